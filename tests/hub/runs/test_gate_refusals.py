"""An engine that the gate asks refuses, or answers what is no number: asked again, held, or taken for another model."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import VersionState
from hub.jobs.tables import Job, JobState
from hub.orders.tables import OrderState
from hub.tuning.examining import EVALUATION_NAME
from hub.tuning.progress import locate_attempt
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_gating import (
    OVER,
    SOUND,
    Engine,
    gate,
    make_worker,
    read_order,
    read_version,
    report_evaluation,
    train,
    wait_in_vain,
)


class Refusing(Engine):
    """Answers the first `times` calls with an error that repeats what it was asked."""

    def __init__(self, status: int, times: int) -> None:
        super().__init__(SOUND)
        self.status, self.times = status, times

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.times == 0:
            return super().answer(body)
        self.times -= 1
        return self.status, {"error": {"message": f"cannot answer {body['prompt']}"}}


@pytest.fixture
def refuse() -> Iterator[Callable[[int, int], Refusing]]:
    started: list[Refusing] = []

    def start(status: int, times: int) -> Refusing:
        started.append(Refusing(status, times))
        return started[-1]

    yield start
    for engine in started:
        engine.server.shutdown()
        engine.server.server_close()


def read_gate_job(scene: Scene) -> Job:
    with scene.sessions.read() as session:
        return session.scalars(select(Job).where(Job.kind == "run.gate")).one()


def wait_for_refusal(scene: Scene, engine: Refusing) -> str:
    """Train and let the gate be refused once; returns the run's id."""
    run_id = train(scene)
    report_evaluation(scene, engine.url)
    run_until(make_worker(scene), lambda: read_gate_job(scene).failures == 1)
    return run_id


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_refusal_that_may_pass_is_asked_again(
    scene: Scene, refuse: Callable[[int, int], Refusing], status: int
) -> None:
    run_id = wait_for_refusal(scene, refuse(status, 1))
    job = read_gate_job(scene)
    assert (job.state, job.last_error) == (JobState.WAITING, f"the engine answered {status}"), "no row in a log"
    assert scene.read_run(run_id)["state"] == "gating"
    assert read_order(scene).state is OrderState.HELD
    wait_in_vain(scene, run_id, timedelta(0))
    assert scene.read_run(run_id)["state"] == "succeeded"


def test_a_refusal_that_lasts_holds_the_run(scene: Scene, refuse: Callable[[int, int], Refusing]) -> None:
    run_id = wait_for_refusal(scene, refuse(503, -1))
    wait_in_vain(scene, run_id, timedelta(minutes=16))
    run = scene.read_run(run_id)
    assert (run["state"], run["reason_code"]) == ("held", "gate_not_measured")
    assert (run["gate"]["why"], run["gate"]["reason"]) == ("engine_refused", "the engine answered 503")


def test_a_question_that_an_engine_refuses_holds_the_run_at_once(
    scene: Scene, refuse: Callable[[int, int], Refusing]
) -> None:
    run = gate(scene, refuse(400, -1))
    assert (run["state"], run["gate"]["why"]) == ("held", "engine_refused")
    assert read_gate_job(scene).failures == 0


def test_rows_of_deleted_data_are_told_as_missing(scene: Scene, refuse: Callable[[int, int], Refusing]) -> None:
    run_id = train(scene)
    (locate_attempt(scene.home, run_id, 1) / EVALUATION_NAME).unlink()
    report_evaluation(scene, refuse(503, 0).url)
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)
    run = scene.read_run(run_id)
    assert (run["state"], run["gate"]["code"], run["gate"]["why"]) == ("held", "gate_not_measured", "no_rows")


@pytest.mark.parametrize(("side", "code"), [("base", "base_differs"), ("adapter", "adapter_differs")])
def test_an_engine_that_computes_no_numbers_does_not_run_what_was_trained(
    scene: Scene, refuse: Callable[[int, int], Refusing], side: str, code: str
) -> None:
    engine = refuse(503, 0)
    engine.logprobs = SOUND | {side: None}  # type: ignore[dict-item]  # as JSON tells NaN
    run = gate(scene, engine)
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", code, "platform")
    assert (run["gate"]["scores"], run["gate"]["rules"]) == ({}, [])
    assert read_version(scene, run["id"]).state is VersionState.QUARANTINED
    assert read_order(scene).state is OrderState.REFUNDED
