"""Engines of purpose `evaluate`: started on demand, out of the tenants' sight, renewed by asking, ended when idle."""

from datetime import timedelta

from hub.compute.tables import Node
from hub.deployments.evaluating import EvaluationStatus, release_evaluation, request_evaluation
from hub.deployments.sets import EVALUATE_IDLE_S
from hub.deployments.tables import Evaluation
from serving.contract import Desired, Purpose
from tests.hub.runs.scene import Scene
from tests.hub.runs.test_deployments import add_adapter, deploy, desired, end_idle, lead, models, observe, states


def ask(scene: Scene, version_id: str, subject: str = "run_1") -> EvaluationStatus:
    with scene.sessions.write() as session:
        return request_evaluation(session, version_id, subject=subject, now=scene.work.clock())


def release(scene: Scene, version_id: str, subject: str = "run_1") -> None:
    with scene.sessions.write() as session:
        release_evaluation(session, version_id, subject=subject, now=scene.work.clock())


def wanted(scene: Scene) -> Desired:
    found = desired(scene)
    assert found is not None
    return found


def test_a_version_that_is_not_deployed_gets_an_engine_that_no_tenant_sees(scene: Scene) -> None:
    version_id = add_adapter(scene)
    assert ask(scene, version_id).engine is None
    (replica_set,) = wanted(scene).replica_sets
    assert (replica_set.purpose, replica_set.min, replica_set.max) == (Purpose.EVALUATE, 1, 1)
    assert [item.purposes for item in wanted(scene).adapters] == [(Purpose.EVALUATE,)]
    epoch = lead(scene)
    observe(scene, epoch, a="ready")
    engine = ask(scene, version_id).engine
    assert engine is not None
    assert (engine.version.name, engine.base.name) == ("lora-" + "a" * 32, "base")
    assert models(scene) == {}
    assert states(scene) == {}


def test_an_adapter_ready_for_evaluation_only_is_not_ready_for_callers(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    ask(scene, version_id)
    both = wanted(scene)
    assert {row.purpose for row in both.replica_sets} == {Purpose.SERVE, Purpose.EVALUATE}
    assert [item.purposes for item in both.adapters] == [(Purpose.SERVE, Purpose.EVALUATE)]
    epoch = lead(scene)
    apart = {row.purpose: row.set_id for row in both.replica_sets}
    observe(scene, epoch, only=apart[Purpose.EVALUATE], a="ready")
    assert ask(scene, version_id).engine is not None
    assert states(scene)["factory-co/orders@1"] == "wanted"


def test_an_engine_that_fails_says_why(scene: Scene) -> None:
    version_id = add_adapter(scene)
    ask(scene, version_id)
    observe(scene, lead(scene), a="failed")
    assert ask(scene, version_id) == EvaluationStatus(None, "load_failed")


def test_the_engine_ends_a_minute_after_the_last_wish(scene: Scene) -> None:
    first, second = add_adapter(scene), add_adapter(scene, "b")
    ask(scene, first)
    ask(scene, second)
    release(scene, first)
    assert [item.digest for item in wanted(scene).adapters] == ["b" * 64]
    now = scene.work.clock()
    assert end_idle(scene, now + timedelta(seconds=2 * EVALUATE_IDLE_S)) == 0, "somebody still evaluates"
    release(scene, second)
    release(scene, second)
    assert end_idle(scene, now) == 0
    assert end_idle(scene, now + timedelta(seconds=2 * EVALUATE_IDLE_S)) == 1
    assert wanted(scene).replica_sets == ()


def test_a_wish_that_nobody_renews_is_over(scene: Scene) -> None:
    version_id = add_adapter(scene)
    ask(scene, version_id)
    epoch = lead(scene)
    observe(scene, epoch, a="ready")
    assert len(wanted(scene).adapters) == 1
    with scene.sessions.write() as session:
        session.query(Evaluation).one().until_at = scene.work.clock() - timedelta(seconds=1)
    observe(scene, epoch, a="ready")
    assert wanted(scene).adapters == ()


def test_an_idle_engine_gives_its_place_to_a_deployment(scene: Scene) -> None:
    with scene.sessions.write() as session:
        for node in session.query(Node):
            node.serve_slots = 1
    version_id = add_adapter(scene)
    ask(scene, version_id)
    refused = scene.call("POST", f"/api/v1/versions/{version_id}/deploy", "factory")
    assert (refused.status_code, refused.json["code"]) == (409, "no_capacity")  # type: ignore[index]
    release(scene, version_id)
    deploy(scene, version_id)
    assert [row.purpose for row in wanted(scene).replica_sets] == [Purpose.SERVE]
