"""Retirement of a base reaches its adapters and their users: told once, and shown with what to call then."""

from datetime import datetime, timedelta

from sqlalchemy import select

from hub.clock import to_us
from hub.deployments.retirements import TOPIC, announce_retirements, list_retirements
from hub.events.tables import Event
from hub.metering.service import accept_usage
from hub.worker import list_chores
from serving import contract
from tests.hub.runs.scene import Scene
from tests.hub.runs.test_deployments import add_adapter, deploy, desired, lead, models, observe
from tests.hub.runs.test_scaling import wanted

NAME = "factory-co/orders"


def serve(scene: Scene) -> str:
    version_id = add_adapter(scene, "a")
    deploy(scene, version_id)
    observe(scene, lead(scene), a="ready")
    return version_id


def use(scene: Scene, version_id: str, who: str) -> None:
    """Let an organisation have called a version an hour ago."""
    at = to_us(scene.work.clock() - timedelta(hours=1))
    owner = scene.actors[who].organisation_id
    ids = ("req_1", 1, "alw_1", owner, "key_1", None, version_id, "d" * 64, "prc_1", "rep_1", 1)
    reason, status = contract.EndReason.STOP, contract.UsageStatus.COMPLETE
    record = contract.UsageRecord(*ids, 5, 0, 5, at, at, reason, status, False)
    with scene.sessions.write() as session:
        accept_usage(session, contract.UsageBatch("gw", 1, 0, (record,)), scene.work.clock())


def retire(scene: Scene, version_id: str, who: str, **more: str) -> str:
    at = (scene.work.clock() + timedelta(days=30)).isoformat()
    answer = scene.call("POST", f"/api/v1/versions/{version_id}/retire", who, json={"retires_at": at, **more})
    assert answer.status_code == 200, answer.json
    return at


def announce(scene: Scene) -> int:
    with scene.sessions.write() as session:
        return announce_retirements(session, scene.work.clock())


def test_a_base_that_ends_is_told_to_owners_and_users_of_its_adapters_once(scene_on_both: Scene) -> None:
    scene = scene_on_both
    version_id = serve(scene)
    use(scene, version_id, "rival")
    assert announce(scene) == 0
    retire(scene, scene.base_version, "operator", successor="operator-co/base-2")
    found = models(scene)[f"{NAME}@1"]
    assert found.retires_at is not None
    assert found.successor == "operator-co/base-2"
    # The base itself to its owner, the adapter to its owner and to the firm that called it.
    assert announce(scene) == 3
    assert announce(scene) == 0
    with scene.sessions.read() as session:
        told = session.scalars(select(Event).where(Event.topic == TOPIC, Event.subject == version_id)).all()
        firms = {scene.actors[who].organisation_id for who in ("factory", "rival")}
        assert {event.organisation_id for event in told} == firms
        assert {event.payload["because"] for event in told} == {"operator-co/base@1"}
        shown = list_retirements(session, scene.actors["rival"].organisation_id, now=scene.work.clock())
    assert [(item.public_name, item.successor) for item in shown] == [(f"{NAME}@1", "operator-co/base-2")]


def test_a_newer_served_version_is_the_successor_and_a_moved_date_is_told_again(scene: Scene) -> None:
    first = serve(scene)
    second = add_adapter(scene, "b")
    deploy(scene, second)
    retire(scene, first, "factory")
    assert models(scene)[f"{NAME}@1"].successor is None
    observe(scene, lead(scene), a="ready", b="ready")
    assert models(scene)[f"{NAME}@1"].successor == f"{NAME}@2"
    assert models(scene)[f"{NAME}@2"].retires_at is None
    assert announce(scene) == 1
    retire(scene, first, "factory")
    assert announce(scene) == 1


def test_the_pool_is_told_once_until_when_an_adapter_of_an_ending_base_is_kept(scene: Scene) -> None:
    serve(scene)
    before = wanted(scene)
    assert [item.keep_until for item in before.adapters] == [None]
    ends_at = retire(scene, scene.base_version, "operator")
    (announce_chore,) = (chore for chore in list_chores() if chore.name == "announce retirements")
    announce_chore.act(scene.work)
    told = desired(scene, after=before.generation)
    assert told is not None
    assert [item.keep_until for item in told.adapters] == [to_us(datetime.fromisoformat(ends_at))]
    announce_chore.act(scene.work)
    assert desired(scene, after=told.generation) is None


def test_the_pool_is_told_until_when_a_set_is_kept_once_all_on_it_ends(scene: Scene) -> None:
    first = serve(scene)
    second = add_adapter(scene, "b")
    deploy(scene, second)
    ends_at = to_us(datetime.fromisoformat(retire(scene, first, "factory")))
    assert [item.keep_until for item in wanted(scene).replica_sets] == [None], "another one goes on"
    scene.call("DELETE", f"/api/v1/versions/{second}/deploy", "factory")
    assert [item.keep_until for item in wanted(scene).replica_sets] == [ends_at], "nobody asked for the base alone"
    deploy(scene, scene.base_version, "operator")
    assert [item.keep_until for item in wanted(scene).replica_sets] == [None], "it was asked for on purpose"
    base_ends_at = to_us(datetime.fromisoformat(retire(scene, scene.base_version, "operator")))
    assert [item.keep_until for item in wanted(scene).replica_sets] == [base_ends_at]
    assert base_ends_at >= ends_at


def test_an_adapter_whose_base_was_retired_is_not_deployed(scene: Scene) -> None:
    version_id = add_adapter(scene)
    answer = scene.call("POST", f"/api/v1/versions/{scene.base_version}/retire", "operator", json={})
    assert answer.status_code == 200, answer.json
    refused = scene.call("POST", f"/api/v1/versions/{version_id}/deploy", "factory").json
    assert refused is not None
    assert (refused["status"], refused["code"], refused["field"]) == (409, "not_deployable", "version_id")
