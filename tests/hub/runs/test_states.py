"""The state table of a run, exhaustively, and the optimistic move."""

from itertools import pairwise, product
from typing import Any

import pytest

from hub.database import Sessions
from hub.tuning.moves import RunStateError, move_run
from hub.tuning.states import DELIVERED, TERMINAL, TRANSITIONS, UNORDERED, RunState, may_follow, openai_status
from hub.tuning.tables import Run
from tests.hub.runs.scene import Scene

PATH = ("planned", "quoted", "queued", "provisioning", "preparing", "running", "evaluating", "gating", "publishing")


def test_the_table_names_every_state_and_ends_in_the_terminal_ones() -> None:
    assert set(TRANSITIONS) == set(RunState)
    assert {state for state, targets in TRANSITIONS.items() if not targets} == TERMINAL
    assert DELIVERED < TERMINAL
    reached = {target for targets in TRANSITIONS.values() for target in targets}
    assert reached == set(RunState) - {RunState.VALIDATING}


def test_the_ordinary_path_is_open_and_every_started_state_can_fail_or_be_cancelled() -> None:
    states = [RunState.VALIDATING, *(RunState(name) for name in PATH), RunState.SUCCEEDED]
    assert all(may_follow(before, after) for before, after in pairwise(states))
    for state in set(RunState) - TERMINAL - UNORDERED:
        assert may_follow(state, RunState.FAILED), state
    for state in (RunState.QUEUED, RunState.PREPARING, RunState.RUNNING, RunState.EVALUATING, RunState.RECOVERING):
        assert may_follow(state, RunState.CANCELLING), state


def test_openai_words() -> None:
    words = {openai_status(state) for state in RunState}
    assert words == {"validating_files", "queued", "running", "succeeded", "failed", "cancelled"}
    assert openai_status(RunState.HELD) == "succeeded"
    assert openai_status(RunState.RECOVERING) == "running"


@pytest.fixture
def run_id(scene: Scene) -> str:
    dataset_id = scene.add_dataset()
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders"}
    return str(scene.call("POST", "/api/v1/runs", "factory", json=body).json["id"])  # type: ignore[index]


def test_every_pair_of_states_is_decided_by_the_table(scene: Scene, run_id: str) -> None:
    now = scene.work.clock()
    for before, after in product(RunState, RunState):
        with scene.sessions.write() as session:
            put_state(session.get_one(Run, run_id), before, now)
            session.flush()
            allowed = try_move(session, run_id, after, now)
            session.rollback()
        assert allowed == may_follow(before, after), (before, after)


def test_a_stale_move_is_refused_and_leaves_no_event(scene: Scene, run_id: str) -> None:
    now = scene.work.clock()
    with scene.sessions.read() as session:
        stale = session.get_one(Run, run_id)
    with scene.sessions.write() as session:
        move_run(session, session.get_one(Run, run_id), RunState.CANCELLED, now=now)
    with pytest.raises(RunStateError), scene.sessions.write() as session:
        move_run(session, stale, RunState.INVALID, now=now)
    assert scene.read_run(run_id)["state"] == "cancelled"
    assert count_events(scene.sessions, run_id) == 2


def put_state(run: Run, state: RunState, now: Any) -> None:
    run.state = state
    run.finished_at = now if state in TERMINAL else None


def try_move(session: Any, run_id: str, after: RunState, now: Any) -> bool:
    try:
        move_run(session, session.get_one(Run, run_id), after, now=now)
    except RunStateError:
        return False
    return True


def count_events(sessions: Sessions, subject: str) -> int:
    from sqlalchemy import func, select

    from hub.events.tables import Event

    with sessions.read() as session:
        return session.scalar(select(func.count()).where(Event.subject == subject)) or 0
