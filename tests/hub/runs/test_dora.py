"""DoRA adapters: evaluated and served by engines whose weights carry them, never by a slot."""

from dataclasses import replace
from pathlib import Path

import pytest

from hub.compute.tables import Node
from hub.deployments.evaluating import Served
from serving import contract
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_deployments import add_adapter, deploy, lead, models, states
from tests.hub.runs.test_evaluating import ask, release
from tests.hub.runs.test_merging import merged_set, quick_merge
from tests.hub.runs.test_scaling import running, wanted

__all__ = ["quick_merge"]
pytestmark = pytest.mark.usefixtures("quick_merge")
NAME = "lora-" + "a" * 32


@pytest.fixture
def version_id(scene: Scene) -> str:
    """A DoRA adapter, and room for the engines that it takes."""
    with scene.sessions.write() as session:
        for node in session.query(Node):
            node.serve_slots = 4
    return add_adapter(scene, variant="dora")


def report(scene: Scene, epoch: int, merged: contract.ReplicaState = contract.ReplicaState.READY) -> None:
    """Report an engine of every set: ready, those with merged weights as said."""
    now = wanted(scene)
    own = {row.set_id for row in now.replica_sets if row.merged}
    engines = tuple(
        replace(one, url=f"http://{one.set_id}", **({"state": merged} if one.set_id in own else {}))
        for one in running(now)
    )
    carrying = tuple(one.replica_id for one in engines if one.set_id in own and merged is contract.ReplicaState.READY)
    state = contract.AdapterState.READY if carrying else contract.AdapterState.FETCHING
    message = contract.Observed(epoch, now.generation, engines, (contract.ObservedAdapter("a" * 64, carrying, state),))
    assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200


def test_an_evaluation_asks_an_engine_of_the_base_and_one_with_merged_weights(scene: Scene, version_id: str) -> None:
    assert ask(scene, version_id).engine is None
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    sets = {bool(row.merged): row for row in wanted(scene).replica_sets}
    assert {row.purpose for row in sets.values()} == {contract.Purpose.EVALUATE}
    assert [item.merged for item in wanted(scene).adapters] == [True], "no slot loads it"
    epoch = lead(scene)
    report(scene, epoch, merged=contract.ReplicaState.STARTING)
    assert ask(scene, version_id).engine is None
    report(scene, epoch)
    engine = ask(scene, version_id).engine
    assert engine is not None
    assert engine.version == Served(f"http://{sets[True].set_id}", NAME)
    assert engine.base == Served(f"http://{sets[False].set_id}", "base")
    assert (models(scene), states(scene)) == ({}, {}), "no caller sees either"
    release(scene, version_id)
    assert merged_set(scene) is None


def test_it_is_served_when_its_own_engine_is_ready(scene: Scene, version_id: str) -> None:
    deploy(scene, version_id)
    epoch = lead(scene)
    report(scene, epoch)
    assert states(scene)["factory-co/orders@1"] == "wanted", "the base's engine says nothing about it"
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    report(scene, epoch, merged=contract.ReplicaState.FAILED)
    assert states(scene)["factory-co/orders@1"] == "failed"
    report(scene, epoch)
    assert states(scene)["factory-co/orders@1"] == "ready"
    assert "factory-co/orders" in models(scene)
    refused = scene.call("DELETE", f"/api/v1/versions/{version_id}/merge", "operator")
    assert (refused.status_code, refused.json["code"]) == (409, "not_mergeable")  # type: ignore[index]
    assert scene.call("DELETE", f"/api/v1/versions/{version_id}/deploy", "factory").status_code == 200
    assert merged_set(scene) is None


def test_what_was_merged_for_the_gate_is_served_without_merging_again(
    scene: Scene, version_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(scene, version_id)
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    first = merged_set(scene)
    release(scene, version_id)

    def refuse(_parts: object, _environment: object) -> Path:
        raise AssertionError("merged a second time")

    monkeypatch.setattr("hub.deployments.merging._merge", refuse)
    deploy(scene, version_id)
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    second = merged_set(scene)
    assert first is not None
    assert second is not None
    assert (second.uri, second.purpose) == (first.uri, contract.Purpose.SERVE)
