"""Completed runs on an offer teach later quotes there how fast it is, within bounds and with their date."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from hub.clock import read_clock
from hub.ids import new_id
from hub.tuning import rules
from hub.tuning.speeds import LEAST_TAUGHT_MS, MOST_RUNS, WINDOW, Speed, read_speeds
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from tests.hub.runs.scene import Scene

PLAN = {
    "tokens": 300_000,
    "device": "cpu",
    "estimate": {"basis": "measured", "tokens_per_s": 500.0, "device_ms": 700_000, "train_ms": 600_000},
}
"""Of an offer of 1000 tokens a second: 600 s of steps as the plan timed them and 100 s beside."""


def add_done(session: Session, like_id: str, offer_id: str, finished: Sequence[tuple[int, int, datetime]]) -> list[str]:
    """Enter completed runs with tokens, device time in ms and end, in all else like another run; returns their ids."""
    made: list[str] = []
    like = session.get_one(Run, like_id)
    kept = {part.key: getattr(like, part.key) for part in inspect(Run).column_attrs}
    for tokens, device_ms, at in finished:
        changed = {
            "id": new_id("run"),
            "state": RunState.SUCCEEDED,
            "offer_id": offer_id,
            "trained_tokens": tokens,
            "device_ms": device_ms,
            "finished_at": at,
            "quote_id": None,
        }
        session.add(Run(**kept | changed))
        made.append(str(changed["id"]))
    return made


@pytest.mark.parametrize(
    ("measured_tokens_per_s", "device_ms"),
    [
        (None, 875_000),
        (300.0, 1_250_000),
        (600.0, 625_000),
        (0.1, 3_500_000),
        (1e9, 218_750),
    ],
    ids=["nothing measured", "slower than thought", "faster", "at most four times longer", "and shorter"],
)
def test_a_quote_goes_by_what_completed_runs_took_within_bounds(
    measured_tokens_per_s: float | None, device_ms: int
) -> None:
    quoted = rules.quote_device_ms(PLAN, tokens_per_s=1000, device="cpu", measured_tokens_per_s=measured_tokens_per_s)
    assert quoted == device_ms


def test_an_offer_elsewhere_is_quoted_by_its_word_until_runs_there_teach_better(scene_on_both: Scene) -> None:
    scene, now = scene_on_both, read_clock() - timedelta(days=1)
    run = scene.start_run(epochs=3)
    path = f"/api/v1/runs/{run['id']}"
    city, bay = scene.offers["city"], scene.offers["bay"]
    assert _estimates(run)[city]["speed"]["basis"] == "timed_by_plan"
    with scene.sessions.write() as session:
        taught = [(30_000, device_ms, now - timedelta(hours=hour)) for hour, device_ms in enumerate((150_000, 600_000))]
        add_done(session, run["id"], city, taught)
    assert _estimates(scene.read_run(run["id"])) == _estimates(run), "two runs say nothing yet"
    with scene.sessions.write() as session:
        add_done(session, run["id"], city, [(30_000, 300_000, now - timedelta(hours=3))])
    found = _estimates(scene.read_run(run["id"]))
    # 300 tokens at the median of 200, 100 and 50 a second, a quarter more
    assert found[city] == {
        "offer_id": city,
        "device_ms": 3750,
        "speed": {"basis": "completed_runs", "tokens_per_s": 100.0, "runs": 3, "newest_at": now.isoformat()},
    }
    assert found[bay] == _estimates(run)[bay], "another offer"
    quote = scene.call("POST", f"{path}/quote", "factory", json={"offer_id": city})
    assert quote.status_code == 201, quote.json
    assert quote.json["device_ms"] == 3750  # type: ignore[index]
    assert scene.read_run(run["id"])["quoted_device_ms"] == 3750


def test_the_newest_long_enough_runs_that_came_to_their_end_count(scene: Scene) -> None:
    now = read_clock()
    run, city = scene.start_run(epochs=3), scene.offers["city"]
    with scene.sessions.write() as session:
        usual = [(60_000, 60_000, now - timedelta(hours=hour)) for hour in range(1, 31)]
        add_done(session, run["id"], city, usual)
        odd = [
            (60_000, LEAST_TAUGHT_MS - 1, now),
            (0, 60_000, now),
            (60_000, 60_000, now + timedelta(seconds=1)),
            (600_000, 60_000, now - WINDOW),
        ]
        ignored = add_done(session, run["id"], city, odd + [(600_000, 60_000, now)] * 2)
        session.get_one(Run, ignored[-1]).device_batch_tokens = 64
        session.get_one(Run, ignored[-2]).state = RunState.EARLY_STOPPED
    with scene.sessions.read() as session:
        newest = now - timedelta(hours=1)
        assert read_speeds(session, as_of=now) == {city: Speed(1000.0, MOST_RUNS, newest)}
        assert read_speeds(session, as_of=now, base_version_id=run["base_version_id"])[city].runs == MOST_RUNS
        assert read_speeds(session, as_of=now, base_version_id="ver_another") == {}
        assert read_speeds(session, as_of=now - timedelta(hours=30)) == {}, "as it was known then"


def _estimates(run: dict[str, Any]) -> dict[str, Any]:
    return {row["offer_id"]: row for row in run["estimates"]}
