"""Turns of organisations in the queue: the pure order, the claims that follow it, and the place that a run shows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.clock import read_clock
from hub.database import Sessions
from hub.jobs.service import claim_job, enqueue_job, finish_job, release_job
from hub.jobs.turns import Waiting, order_turns
from hub.tuning.kinds import TRAIN_KIND
from tests.hub.runs.scene import Scene

START = datetime(2026, 11, 21, tzinfo=UTC)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_nobody_waits_behind_anothers_second_job(owners: list[int]) -> None:
    waiting = [Waiting(f"j{at:02}", f"o{owner}", START + timedelta(seconds=at)) for at, owner in enumerate(owners)]
    turns = order_turns(waiting, running={}, last_turn_at={})
    assert sorted(turns, key=lambda item: item.job_id) == waiting
    seen: dict[str, int] = {}
    rounds = []
    for item in turns:
        seen[item.organisation_id] = seen.get(item.organisation_id, 0) + 1
        rounds.append(seen[item.organisation_id])
    assert rounds == sorted(rounds)
    for owner in set(owners):
        own = [item.since_at for item in turns if item.organisation_id == f"o{owner}"]
        assert own == sorted(own)


def test_what_runs_now_counts_as_taken_and_the_longest_without_a_turn_goes_first() -> None:
    waiting = [Waiting("a2", "a", START), Waiting("b1", "b", START + timedelta(hours=1))]
    assert [item.job_id for item in order_turns(waiting, running={"a": 1}, last_turn_at={})] == ["b1", "a2"]
    assert [item.job_id for item in order_turns(waiting, running={}, last_turn_at={"a": START})] == ["b1", "a2"]
    assert [item.job_id for item in order_turns(waiting, running={}, last_turn_at={})] == ["a2", "b1"]


def test_workers_take_turns_between_organisations(both: Sessions) -> None:
    with both.write() as session:
        for at, owner in enumerate("aaaabb"):
            enqueue_job(session, kind="k", subject=f"{owner}{at}", organisation_id=owner, now=START)
    taken = []
    for minute in range(6):
        now = START + timedelta(minutes=minute)
        with both.write() as session:
            claim = claim_job(session, kinds=["k"], worker="w", now=now, lock_s=20)
            assert claim is not None
            finish_job(session, claim, now=now)
        taken.append(claim.organisation_id)
    assert taken == ["a", "b", "a", "b", "a", "a"]


@pytest.mark.parametrize("others", [(), ("b",)], ids=["alone", "with another firm"])
def test_a_job_that_was_handed_back_for_a_while_keeps_its_turn(both: Sessions, others: tuple[str, ...]) -> None:
    with both.write() as session:
        for at, owner in enumerate(("a", "a", *others)):
            moment = START + timedelta(seconds=at)
            enqueue_job(session, kind="k", subject=f"{owner}{at}", organisation_id=owner, now=moment)
    with both.write() as session:
        claim = claim_job(session, kinds=["k"], worker="w", now=START, lock_s=20)
        assert claim is not None
        assert release_job(session, claim, run_after=START + timedelta(seconds=10))
    later = START + timedelta(seconds=20)
    with both.write() as session:
        again = claim_job(session, kinds=["k"], worker="w", now=later, lock_s=20)
    assert again is not None
    assert again.subject == claim.subject == "a0"


def accept(scene: Scene, run_id: str, key: str) -> None:
    path = f"/api/v1/runs/{run_id}"
    quote = scene.call("POST", f"{path}/quote", "factory", json={"offer_id": scene.offers["bay"]}).json
    body, headers = {"quote_id": quote["id"]}, {"Idempotency-Key": key}  # type: ignore[index]
    assert scene.call("POST", f"{path}/accept", "factory", json=body, headers=headers).status_code == 202


def test_a_run_that_waits_for_capacity_keeps_its_place_and_one_that_is_placed_now_has_none(scene: Scene) -> None:
    def read_position(run_id: str) -> int | None:
        found = scene.read_run(run_id)["queue"]
        return found and int(found["position"])

    second = str(scene.start_run(epochs=4)["id"])
    first = str(scene.order_run(epochs=4)["id"])
    accept(scene, second, "key-2")
    now = read_clock()
    with scene.sessions.write() as session:
        claim = claim_job(session, kinds=[TRAIN_KIND], worker="w", now=now, lock_s=20)
    assert claim is not None
    assert claim.subject == first
    assert (read_position(first), read_position(second)) == (None, 1)
    with scene.sessions.write() as session:
        assert release_job(session, claim, run_after=now + timedelta(minutes=1))  # no device was free
    assert (read_position(first), read_position(second)) == (1, 2)


def test_a_waiting_run_shows_its_place_and_when_it_may_start(scene: Scene) -> None:
    second = scene.start_run(epochs=4)
    first = scene.order_run(epochs=4)
    assert scene.read_run(first["id"])["queue"] == {"position": 1, "ahead": 0, "eta_s": 0}
    assert scene.read_run(second["id"])["queue"] is None
    accept(scene, second["id"], "key-2")
    # 1,875 ms were quoted for the run ahead, a quarter of them headroom
    assert scene.read_run(second["id"])["queue"] == {"position": 2, "ahead": 1, "eta_s": 2}
