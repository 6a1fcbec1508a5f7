"""The hub's side of scaling: policies of bases, places granted and taken back, scale to zero and its waking."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hub.compute.tables import HoldState, Node, Slot
from hub.deployments.places import UNUSED_FOR
from serving import contract
from tests.hub.runs.scene import Scene
from tests.hub.runs.test_deployments import add_adapter, deploy, desired, lead, models, observe, states


def put_policy(scene: Scene, who: str = "operator", **numbers: int) -> dict[str, object]:
    body = {"min": 0, "max": 2, "idle_s": 60, "max_loras": 4} | numbers
    answer = scene.call("PUT", f"/api/v1/serving-policies/{scene.base_version}", who, json=body)
    return {"status": answer.status_code, **(answer.json or {})}


def wanted(scene: Scene) -> contract.Desired:
    found = desired(scene)
    assert found is not None
    return found


def report(scene: Scene, epoch: int, *, wants: int = 0, idle: bool = False) -> None:
    """Report what is wanted as running, or nothing when `idle`, and ask for `wants` places more."""
    now = wanted(scene)
    if idle or wants:
        set_id = now.replica_sets[0].set_id
        replicas = () if idle else running(now)
        wish = (contract.Want(set_id, wants, 2000),) if wants else ()
        message = contract.Observed(epoch, now.generation, replicas, (), wish)
        assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200
    else:
        assert observe(scene, epoch, a="ready") == 200


def running(now: contract.Desired) -> tuple[contract.ObservedReplica, ...]:
    one = contract.ObservedReplica("", 1, "", "", 1, "http://x", contract.ReplicaState.READY, None, 1, 1)
    return tuple(
        replace(one, replica_id=f"rep_{slot.slot_id}", set_id=slot.set_id, slot_id=slot.slot_id) for slot in now.slots
    )


def age_slots(scene: Scene) -> None:
    with scene.sessions.write() as session:
        for slot in session.query(Slot):
            slot.granted_at -= UNUSED_FOR + timedelta(seconds=1)


def test_only_the_operator_sets_a_policy_and_each_number_has_its_limits(scene: Scene) -> None:
    assert put_policy(scene, "factory")["status"] == 403
    for numbers, field in (
        ({"min": 3}, "min"),
        ({"idle_s": 1}, "idle_s"),
        ({"max": 0}, "max"),
        ({"max_loras": 0}, "max_loras"),
    ):
        refused = put_policy(scene, **numbers)
        assert (refused["status"], refused["field"]) == (422, field)
    adapter = add_adapter(scene)
    answer = scene.call("PUT", f"/api/v1/serving-policies/{adapter}", "operator", json={"max": 2})
    assert (answer.status_code, answer.json["field"]) == (422, "base")  # type: ignore[index]
    assert put_policy(scene)["status"] == 200
    rows = scene.call("GET", "/api/v1/serving-policies", "auditor").json["policies"]  # type: ignore[index]
    assert rows == [{"base_version_id": scene.base_version, "min": 0, "max": 2, "idle_s": 60, "max_loras": 4}]


def test_a_policy_reaches_engines_that_run_and_those_to_come(scene: Scene) -> None:
    deploy(scene, add_adapter(scene))
    before = wanted(scene)
    put_policy(scene)
    (row,) = wanted(scene).replica_sets
    assert (row.max, row.idle_s, row.max_loras) == (2, 60, 4)
    assert wanted(scene).generation > before.generation


def test_scale_to_zero_waits_for_the_first_ready_and_keeps_the_name(scene: Scene) -> None:
    put_policy(scene)
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    assert (wanted(scene).replica_sets[0].min, wanted(scene).adapters[0].min_replicas) == (1, 1)
    report(scene, epoch)
    assert (wanted(scene).replica_sets[0].min, wanted(scene).adapters[0].min_replicas) == (0, 0)
    age_slots(scene)
    report(scene, epoch, idle=True)
    assert wanted(scene).slots == (), "the machine is free for others"
    assert states(scene)["factory-co/orders@1"] == "ready"
    assert "factory-co/orders" in models(scene), "a call finds the name and waits for an engine"
    report(scene, epoch, idle=True, wants=1)
    assert len(wanted(scene).slots) == 1


def test_places_are_granted_one_by_one_up_to_the_maximum(scene: Scene) -> None:
    put_policy(scene, min=1)
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    for count in (2, 2):
        report(scene, epoch, wants=1)
        assert len(wanted(scene).slots) == count
    epochs = [slot.allocation_epoch for slot in wanted(scene).slots]
    assert len(set(epochs)) == 2


def test_a_place_without_an_engine_is_kept_at_first_and_taken_back_later(scene: Scene) -> None:
    put_policy(scene, min=1)
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    report(scene, epoch, wants=1)
    first = running(wanted(scene))[:1]

    def say(generation: int) -> int:
        message = contract.Observed(epoch, generation, first, ())
        scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message))
        return len(wanted(scene).slots)

    assert say(wanted(scene).generation) == 2, "its engine may be about to start"
    age_slots(scene)
    assert say(wanted(scene).generation - 1) == 2, "the controller has not seen it yet"
    assert say(wanted(scene).generation) == 1
    with scene.sessions.read() as session:
        kept = session.query(Slot).where(Slot.state == HoldState.ACTIVE).one()
        assert kept.id == first[0].slot_id


@pytest.mark.parametrize("places", [1, 2])
def test_a_full_machine_gives_no_more(scene: Scene, places: int) -> None:
    with scene.sessions.write() as session:
        for node in session.query(Node):
            node.serve_slots = places
    put_policy(scene, min=1, max=4)
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    for _ in range(3):
        report(scene, epoch, wants=1)
    assert len(wanted(scene).slots) == places
