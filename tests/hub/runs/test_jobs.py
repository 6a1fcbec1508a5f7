"""Locked rows: one claimer wins, a lost lock applies nothing, failures are counted, one process holds a role."""

from datetime import datetime, timedelta
from threading import Barrier, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from hub.database import Sessions
from hub.ids import new_id
from hub.jobs.service import (
    Claim,
    LockLostError,
    cancel_waiting_job,
    claim_job,
    enqueue_job,
    fail_job,
    finish_job,
    give_up_role,
    hold_role,
    release_job,
    renew_lock,
    require_lock,
)
from hub.jobs.tables import Job, JobState

LOCK_S = 10.0


def add(sessions: Sessions, now: datetime, subject: str = "thing", **options: object) -> str:
    with sessions.write() as session:
        return enqueue_job(
            session,
            kind="demo",
            subject=subject,
            organisation_id="org_1",
            now=now,
            **options,  # type: ignore[arg-type]
        ).id


def claim(sessions: Sessions, now: datetime, worker: str = "w1") -> Claim | None:
    with sessions.write() as session:
        return claim_job(session, kinds=["demo"], worker=worker, now=now, lock_s=LOCK_S)


def test_an_open_job_of_the_same_subject_is_not_added_twice(both: Sessions, now: datetime) -> None:
    assert add(both, now) == add(both, now)
    held = claim(both, now)
    assert held is not None
    with both.write() as session:
        finish_job(session, held, now=now)
    assert add(both, now) != held.job_id


def test_two_claimers_at_once_get_each_job_once(both: Sessions, now: datetime) -> None:
    wanted = {add(both, now, subject=f"s{number}") for number in range(12)}
    found: list[str] = []
    barrier = Barrier(4)

    def work(name: str) -> None:
        barrier.wait()
        while (held := claim(both, now, name)) is not None:
            found.append(held.job_id)

    threads = [Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(wanted)


def test_an_expired_lock_is_taken_over_and_the_first_worker_applies_nothing(both: Sessions, now: datetime) -> None:
    job_id = add(both, now)
    first = claim(both, now)
    assert first is not None
    assert claim(both, now + timedelta(seconds=LOCK_S - 1), "w2") is None
    later = now + timedelta(seconds=LOCK_S)
    second = claim(both, later, "w2")
    assert second is not None
    assert (second.job_id, second.attempts) == (job_id, 2)
    with both.write() as session:
        assert renew_lock(session, first, now=later, lock_s=LOCK_S) is False
        assert release_job(session, first, run_after=later) is False
        for step in (lambda: require_lock(session, first), lambda: finish_job(session, first, now=later)):
            with pytest.raises(LockLostError):
                step()
    with both.write() as session:
        assert renew_lock(session, second, now=later, lock_s=LOCK_S)
        finish_job(session, second, now=later)
    with both.read() as session:
        assert session.get_one(Job, job_id).state is JobState.DONE


def test_failures_wait_and_are_used_up(sessions: Sessions, now: datetime) -> None:
    job_id = add(sessions, now, max_failures=2)
    held = claim(sessions, now)
    assert held is not None
    with sessions.write() as session:
        assert fail_job(session, held, error="no", now=now, retry_after_s=5) is JobState.WAITING
    assert claim(sessions, now + timedelta(seconds=4)) is None
    again = claim(sessions, now + timedelta(seconds=5))
    assert again is not None
    assert again.failures == 1
    with sessions.write() as session:
        assert fail_job(session, again, error="no", now=now, retry_after_s=5) is JobState.FAILED
    with sessions.read() as session:
        assert session.get_one(Job, job_id).last_error == "no"
    assert claim(sessions, now + timedelta(days=1)) is None


def test_a_waiting_job_can_be_cancelled_a_locked_one_not(sessions: Sessions, now: datetime) -> None:
    add(sessions, now)
    held = claim(sessions, now)
    assert held is not None
    with sessions.write() as session:
        assert not cancel_waiting_job(session, kind="demo", subject="thing", now=now)
        assert release_job(session, held, run_after=now)
    with sessions.write() as session:
        assert cancel_waiting_job(session, kind="demo", subject="thing", now=now)
    assert claim(sessions, now) is None


def test_the_database_refuses_a_lock_without_its_token(both: Sessions, now: datetime) -> None:
    job_id = add(both, now)
    with pytest.raises(IntegrityError), both.write() as session:
        session.get_one(Job, job_id).state = JobState.LOCKED


def test_one_process_holds_a_role(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        assert hold_role(session, "sweeper", holder="a", now=now, hold_s=10)
        assert hold_role(session, "sweeper", holder="a", now=now + timedelta(seconds=5), hold_s=10)
        assert not hold_role(session, "sweeper", holder="b", now=now + timedelta(seconds=14), hold_s=10)
        assert hold_role(session, "sweeper", holder="b", now=now + timedelta(seconds=15), hold_s=10)
        give_up_role(session, "sweeper", holder="a")
        assert not hold_role(session, "sweeper", holder="a", now=now + timedelta(seconds=16), hold_s=10)
        give_up_role(session, "sweeper", holder="b")
        assert hold_role(session, "sweeper", holder="a", now=now + timedelta(seconds=16), hold_s=10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["claim", "finish", "fail", "release", "wait"]), max_size=12))
def test_at_most_one_valid_token_whatever_happens(sessions: Sessions, now: datetime, steps: list[str]) -> None:
    with sessions.write() as session:
        job_id = enqueue_job(session, kind="demo", subject=new_id("s"), organisation_id="org_1", now=now).id
    claims: list[Claim] = []
    for step in steps:
        if step == "wait":
            now += timedelta(seconds=LOCK_S)
        elif step == "claim":
            with sessions.write() as session:
                held = claim_job(session, kinds=["demo"], worker="w", now=now, lock_s=LOCK_S)
            claims += [held] if held is not None and held.job_id == job_id else []
        elif claims:
            apply(sessions, claims[-1], step, now)
    with sessions.write() as session:
        valid = [held for held in claims if renew_lock(session, held, now=now, lock_s=LOCK_S)]
        job = session.get_one(Job, job_id)
        assert len(valid) == (1 if job.state is JobState.LOCKED else 0)
        session.delete(job)


def apply(sessions: Sessions, held: Claim, step: str, now: datetime) -> None:
    try:
        with sessions.write() as session:
            if step == "finish":
                finish_job(session, held, now=now)
            elif step == "fail":
                fail_job(session, held, error="no", now=now, retry_after_s=0)
            else:
                release_job(session, held, run_after=now)
    except LockLostError:
        return
