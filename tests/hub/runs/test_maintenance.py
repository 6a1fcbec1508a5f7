"""Machines under maintenance: places with an end, replacements elsewhere first, and the machine back in service."""

from dataclasses import replace
from datetime import timedelta

from hub.clock import to_us
from hub.compute.allocation import ensure_machine
from hub.compute.tables import Device, HoldState, Node, NodeState, Slot
from hub.events.tables import Event
from serving import contract
from tests.hub.runs.scene import Scene
from tests.hub.runs.test_deployments import add_adapter, deploy, lead
from tests.hub.runs.test_scaling import report, running, wanted


def node_of(scene: Scene) -> str:
    with scene.sessions.read() as session:
        return session.query(Node.id).order_by(Node.id).limit(1).scalar() or ""


def add_machine(scene: Scene) -> str:
    with scene.sessions.write() as session:
        now = scene.work.clock()
        found = ensure_machine(
            session, name="second", device=Device.CPU, devices=["cpu"], cpu_threads=2, memory_gib=8, now=now
        )
        assert found is not None
        return found.id


def maintain(scene: Scene, node: str, who: str = "operator", **body: int) -> tuple[int, str | None]:
    answer = scene.call("PUT", f"/api/v1/nodes/{node}/maintenance", who, json=body)
    return answer.status_code, (answer.json or {}).get("field")


def say(scene: Scene, epoch: int, replicas: tuple[contract.ObservedReplica, ...], *, wants: int = 0) -> None:
    now = wanted(scene)
    wish = (contract.Want(now.replica_sets[0].set_id, wants, 0),) if wants else ()
    message = contract.Observed(epoch, now.generation, replicas, (), wish)
    assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200


def test_only_the_operator_takes_a_machine_out_and_with_notice(scene: Scene) -> None:
    node = node_of(scene)
    assert maintain(scene, node, "factory")[0] == 403
    assert maintain(scene, node, "auditor")[0] == 403
    assert maintain(scene, "nod_0")[0] == 404
    assert maintain(scene, node, notice_s=119) == (422, "notice_s")
    assert maintain(scene, node, notice_s=7 * 24 * 3600 + 1) == (422, "notice_s")
    assert scene.call("GET", "/api/v1/nodes", "factory").status_code == 403
    assert maintain(scene, node, notice_s=120)[0] == 202
    (row,) = scene.call("GET", "/api/v1/nodes", "auditor").json["nodes"]  # type: ignore[index]
    assert (row["id"], row["state"], row["places_used"]) == (node, "draining", 0)
    with scene.sessions.read() as session:
        assert session.query(Event).where(Event.topic == "node.draining").one().payload["notice_s"] == 120


def test_a_place_that_ends_is_replaced_elsewhere_and_goes_once_it_is_empty(scene: Scene) -> None:
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    report(scene, epoch)
    before, second = wanted(scene), add_machine(scene)
    began = to_us(scene.work.clock())
    assert maintain(scene, node_of(scene), notice_s=600)[0] == 202
    (leaving,) = wanted(scene).slots
    assert 0 <= (leaving.drain_by or 0) - began - 600_000_000 < 60_000_000
    assert wanted(scene).generation > before.generation, "the controller hears of it"
    say(scene, epoch, running(wanted(scene)), wants=1)
    old, new = wanted(scene).slots
    assert (old, new.node_id, new.drain_by) == (leaving, second, None), "a set of one engine has room for its successor"
    say(scene, epoch, running(wanted(scene)))
    assert wanted(scene).slots == (old, new), "its engine still runs"
    engines = running(wanted(scene))
    say(scene, epoch, (replace(engines[0], state=contract.ReplicaState.STOPPED), engines[1]))
    assert wanted(scene).slots == (new,)


def test_a_place_whose_time_is_over_goes_whatever_runs_there(scene: Scene) -> None:
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    report(scene, epoch)
    maintain(scene, node_of(scene), notice_s=600)
    say(scene, epoch, running(wanted(scene)))
    assert len(wanted(scene).slots) == 1
    with scene.sessions.write() as session:
        slot = session.query(Slot).where(Slot.state == HoldState.ACTIVE).one()
        slot.drain_by = scene.work.clock() - timedelta(seconds=1)
    say(scene, epoch, running(wanted(scene)))
    assert wanted(scene).slots == ()


def test_nothing_new_comes_to_it_until_it_is_back(scene: Scene) -> None:
    node = node_of(scene)
    deploy(scene, add_adapter(scene))
    epoch = lead(scene)
    report(scene, epoch)
    maintain(scene, node, notice_s=600)
    answer = scene.call("POST", f"/api/v1/versions/{add_adapter(scene, 'b')}/deploy", "factory")
    assert (answer.status_code, answer.json["code"]) == (409, "no_capacity")  # type: ignore[index]
    for _ in range(2):
        back = scene.call("DELETE", f"/api/v1/nodes/{node}/maintenance", "operator")
        assert (back.status_code, back.json) == (200, {"node_id": node, "state": "up"})
    assert [slot.drain_by for slot in wanted(scene).slots] == [None]
    deploy(scene, add_adapter(scene, "c"))
    with scene.sessions.read() as session:
        assert session.get_one(Node, node).state is NodeState.UP
        assert session.query(Event).where(Event.topic == "node.resumed").count() == 1
