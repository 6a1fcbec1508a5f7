"""A trainer that is alive and gets nowhere is ended, resumed from its last commit, and given up with a refund."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from finetune.spec import Event as LineKind
from finetune.spec import Progress
from hub.compute.tables import HoldState, Rental
from hub.events.tables import Event
from hub.orders.tables import OrderState
from hub.tuning import rules
from hub.tuning.openai_events import list_events
from hub.tuning.progress import find_commit
from hub.tuning.tables import Run
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_runs import ask, finish, read_order, read_rentals
from tests.hub.runs.twin_trainer import STEP_MS, TOKENS_PER_STEP

STANDS_STILL_ONCE, STANDS_STILL, TALKS_ON_ONCE, COMMITS_SLOWLY = 10, 11, 12, 13


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real limits are minutes."""
    monkeypatch.setattr(rules, "LEAST_SILENCE_S", 2.0)
    monkeypatch.setattr(rules, "SILENT_STEPS", 1)


def read_ends(run: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row["state"], row["reason_code"]) for row in run["attempts"]]


@pytest.mark.usefixtures("impatient")
def test_a_trainer_that_stands_still_is_ended_and_resumed_from_its_last_commit(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=5, patience=STANDS_STILL_ONCE))
    assert run["state"] == "succeeded", run["message"]
    assert read_ends(run) == [("lost", "stalled"), ("ended", "done")]
    assert [point["step"] for point in run["curve"]] == [1, 2, 3, 4, 5]
    assert run["attempts"][0]["exit_code"] == -9
    order = read_order(scene, run)
    assert order.metered is not None
    assert order.metered["trained_tokens"] == 5 * TOKENS_PER_STEP
    assert order.metered["device_ms"] == 5 * STEP_MS, "the time that it stood still is not billed"
    assert scene.work.launch.list_mine() == []
    with scene.sessions.read() as session:
        query = select(Event.payload).where(Event.subject == run["id"], Event.topic == "run.recovering")
        assert [payload["reason_code"] for payload in session.scalars(query)] == ["stalled"]
        told = [one["message"] for one in list_events(session, session.get_one(Run, run["id"]), scene.home)]
    assert any("stood still and was ended" in text for text in told)


@pytest.mark.usefixtures("impatient")
def test_a_trainer_that_stands_still_again_and_again_fails_its_run_with_a_full_refund(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=5, patience=STANDS_STILL))
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "stalled", "platform")
    assert read_ends(run) == [("lost", "stalled")] * rules.MAX_PLATFORM_ATTEMPTS
    assert "the limit is 2 s" in run["message"]
    order = read_order(scene, run)
    assert (order.state, order.charged_fen) == (OrderState.REFUNDED, 0)
    assert read_rentals(scene) == [HoldState.RELEASED]
    assert scene.work.launch.list_mine() == []


def test_a_trainer_that_runs_beyond_the_limit_of_its_quote_is_ended_though_it_talks_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BESIDE_S", 1.0)
    monkeypatch.setattr(rules, "_LEAST_LIMIT_MS", 0)
    run = finish(scene, scene.order_run(epochs=3, patience=TALKS_ON_ONCE))
    assert run["state"] == "succeeded", run["message"]
    assert read_ends(run) == [("lost", "max_duration"), ("ended", "done")]
    with scene.sessions.read() as session:
        rental = session.scalars(select(Rental)).one()
    lived_ms = rules.limit_attempt_s(run["quoted_device_ms"]) * 1000
    assert rental.device_ms >= lived_ms, "the provider is paid for the time all the same"


def test_the_time_that_a_trainer_commits_does_not_count_into_its_life(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BESIDE_S", 1.0)
    monkeypatch.setattr(rules, "_LEAST_LIMIT_MS", 0)
    run = finish(scene, scene.order_run(epochs=3, patience=COMMITS_SLOWLY))
    assert run["state"] == "succeeded", run["message"]
    assert read_ends(run) == [("ended", "done")]
    (attempt,) = run["attempts"]
    lived_s = (
        datetime.fromisoformat(attempt["ended_at"]) - datetime.fromisoformat(attempt["created_at"])
    ).total_seconds()
    assert lived_s > rules.limit_attempt_s(run["quoted_device_ms"])


@pytest.mark.usefixtures("impatient")
def test_a_pause_of_a_trainer_that_stands_still_takes_effect_with_its_end(scene: Scene) -> None:
    run = scene.order_run(epochs=5, patience=STANDS_STILL)
    worker = scene.make_worker()
    run_until(worker, lambda: (commit := find_commit(scene.home, run["id"], 1)) is not None and commit.step == 2)
    ask(scene, run, "pause")
    run_until(worker, lambda: scene.read_run(run["id"])["state"] not in ("preparing", "running"))
    assert scene.read_run(run["id"])["state"] == "paused"
    assert read_rentals(scene) == [HoldState.RELEASED]


def at_step(step: int, device_ms: int) -> Progress:
    return Progress(1, 1, 9, 0, LineKind.STEP, step=step, device_ms=device_ms)


def scoring(step: int, device_ms: int) -> Progress:
    stage = {"stage": "evaluating_adapter", "done": 0, "of": 9}
    return Progress(1, 1, 9, 0, LineKind.STAGE, step=step, device_ms=device_ms, metrics=stage)


@pytest.mark.parametrize(
    ("newest", "quoted_ms", "limit_s"),
    [
        (None, 60_000, 1_800),
        (at_step(0, 0), 60_000, 1_800),
        (at_step(0, 0), 40_000_000, 10_000),
        (at_step(100, 50_000), 60_000, 600),
        (at_step(10, 600_000), 60_000, 3_000),
        (at_step(2, 10_000_000), 60_000, 7_200),
        (at_step(-3, 10), 60_000, 1_800),
        (scoring(100, 50_000), 60_000, 1_800),
        (scoring(2, 10_000_000), 60_000, 7_200),
    ],
    ids=[
        "no line",
        "no step",
        "a long probe",
        "fast steps",
        "slow steps",
        "endless steps",
        "a line that lies",
        "scoring",
        "endless scoring",
    ],
)
def test_how_long_a_trainer_may_say_nothing_goes_by_its_own_steps_within_bounds(
    newest: Progress | None, quoted_ms: int, limit_s: float
) -> None:
    assert rules.limit_silence_s(newest, quoted_ms) == limit_s


def test_who_talks_within_its_limits_goes_on() -> None:
    sound: dict[str, Any] = {"newest": at_step(100, 50_000), "quoted_device_ms": 60_000}
    assert rules.find_stuck(silent_s=599, lived_s=1_900, **sound) is None
    stalled, too_long = (rules.find_stuck(silent_s=a, lived_s=b, **sound) for a, b in ((601, 700), (1, 2_000)))
    assert stalled is not None
    assert too_long is not None
    assert (stalled.code, too_long.code) == ("stalled", "max_duration")


@pytest.mark.parametrize(
    ("committing_ms", "lived_s", "code"),
    [(0, 1_981, "max_duration"), (20_000, 2_000, None), (20_000, 2_001, "max_duration"), (-9_000, 1_980, None)],
)
def test_commits_lengthen_a_life_by_what_they_take(committing_ms: int, lived_s: float, code: str | None) -> None:
    newest = replace(at_step(100, 50_000), committing_ms=committing_ms)
    found = rules.find_stuck(silent_s=1, lived_s=lived_s, newest=newest, quoted_device_ms=60_000)
    assert (None if found is None else found.code) == code


def test_a_trainer_that_says_it_only_commits_lives_twice_as_long_at_most() -> None:
    newest = replace(at_step(100, 50_000), committing_ms=10**12)
    ends = [
        rules.find_stuck(silent_s=1, lived_s=lived_s, newest=newest, quoted_device_ms=60_000)
        for lived_s in (3_960, 3_961)
    ]
    assert [None if end is None else end.code for end in ends] == [None, "max_duration"]
