"""Desired and observed state, leads and epochs, aliases that move on ready only, and the gateways' snapshot."""

import json
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from hub.catalogue.registration import register_version
from hub.catalogue.tables import Block, ModelVersion
from hub.database import News
from hub.deployments.idle import end_idle_sets
from hub.deployments.policies import DEFAULT_POLICY
from hub.deployments.waiting import wait_for
from hub.filings.service import withdraw_filing
from hub.ids import new_id
from hub.organisations.keys import create_key
from serving import contract
from tests.hub.runs.scene import Scene

KEEP_WARM = timedelta(seconds=DEFAULT_POLICY.idle_s)


def add_adapter(scene: Scene, letter: str = "a", *, variant: str | None = None) -> str:
    owner = scene.actors["factory"]
    with scene.sessions.write() as session:
        return register_version(
            session,
            organisation_id=owner.organisation_id,
            model_name="orders",
            base_version_id=scene.base_version,
            artifact_digest=letter * 64,
            artifact_uri=f"file:///{letter * 64}",
            run_id=None,
            rank=32,
            metrics={},
            lineage={},
            size_bytes=1,
            now=scene.work.clock(),
            variant=variant,
        ).id


def deploy(scene: Scene, version_id: str, who: str = "factory") -> dict[str, Any]:
    answer = scene.call("POST", f"/api/v1/versions/{version_id}/deploy", who)
    assert answer.status_code == 202, answer.json
    return answer.json  # type: ignore[return-value]


def lead(scene: Scene, controller: str = "c1") -> int:
    answer = scene.internal("POST", "pool/lead", "pool", data=contract.dumps(contract.Lead(controller)))
    assert answer.status_code == 200, answer.json
    return contract.loads(contract.LeadGrant, answer.data).epoch


def desired(scene: Scene, after: int = 0) -> contract.Desired | None:
    answer = scene.internal("GET", f"pool/desired?after={after}", "pool")
    return None if answer.status_code == 204 else contract.loads(contract.Desired, answer.data)


def observe(scene: Scene, epoch: int, *, only: str | None = None, **adapters: str) -> int:
    """Report wanted sets ready, all or `only` one, and adapters by first letter of their digest with their state."""
    wanted = desired(scene)
    assert wanted is not None
    replicas = tuple(
        contract.ObservedReplica(
            replica_id=f"rep_{slot.set_id}",
            replica_epoch=1,
            set_id=slot.set_id,
            slot_id=slot.slot_id,
            allocation_epoch=slot.allocation_epoch,
            url="http://127.0.0.1:1",
            state=contract.ReplicaState.READY,
            reason_code=None,
            since_at=1,
            device_ms=1000,
        )
        for slot in wanted.slots
        if only in (None, slot.set_id)
    )
    seen = tuple(
        contract.ObservedAdapter(
            digest=letter * 64,
            ready_on=tuple(item.replica_id for item in replicas) if state == "ready" else (),
            state=contract.AdapterState(state),
            reason_code="load_failed" if state == "failed" else None,
        )
        for letter, state in adapters.items()
    )
    message = contract.Observed(epoch, wanted.generation, replicas, seen)
    return scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code


def snapshot(scene: Scene, after: int = -1) -> contract.Snapshot | None:
    answer = scene.internal("GET", f"snapshot?after={after}", "gateway")
    assert answer.status_code in (200, 204), answer.json
    return None if answer.status_code == 204 else contract.loads(contract.Snapshot, answer.data)


def models(scene: Scene) -> dict[str, contract.SnapshotModel]:
    found = snapshot(scene)
    assert found is not None
    return {model.public_name: model for model in found.models}


def states(scene: Scene) -> dict[str, str]:
    rows = scene.call("GET", "/api/v1/deployments", "operator").json["deployments"]  # type: ignore[index]
    return {row["public_name"]: row["state"] for row in rows}


def test_deploying_an_adapter_wants_its_base_a_slot_and_the_adapter(scene: Scene) -> None:
    fresh = desired(scene)
    assert fresh is not None
    assert fresh.replica_sets == ()
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    deploy(scene, version_id)
    wanted = desired(scene, after=fresh.generation)
    assert wanted is not None
    with scene.sessions.read() as session:
        base = session.get_one(ModelVersion, scene.base_version)
    assert [row.base_digest for row in wanted.replica_sets] == [base.artifact_digest]
    assert wanted.replica_sets[0].max_lora_rank == 32
    assert wanted.replica_sets[0].engine_args == {
        "max-model-len": base.facts["context_length"],
        "tool-call-parser": "hermes",
    }
    assert [slot.set_id for slot in wanted.slots] == [wanted.replica_sets[0].set_id]
    assert [(row.digest, row.base_digest, row.rank) for row in wanted.adapters] == [
        ("a" * 64, base.artifact_digest, 32)
    ]
    assert desired(scene, after=wanted.generation) is None


def test_names_are_served_only_after_ready_was_observed(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    epoch = lead(scene)
    assert models(scene) == {}
    assert observe(scene, epoch, a="loading") == 200
    assert set(models(scene)) == {"operator-co/base", "operator-co/base@1"}
    assert observe(scene, epoch, a="ready") == 200
    found = models(scene)
    assert set(found) == {"operator-co/base", "operator-co/base@1", "factory-co/orders", "factory-co/orders@1"}
    assert found["factory-co/orders"].targets == (contract.ModelTarget(version_id, "a" * 64, 1),)
    assert found["factory-co/orders"].visibility is contract.Visibility.PRIVATE
    assert found["operator-co/base"].visibility is contract.Visibility.PUBLIC
    assert found["operator-co/base"].targets[0].digest == found["operator-co/base"].base_digest
    assert states(scene) == {"operator-co/base@1": "ready", "factory-co/orders@1": "ready"}


def test_the_alias_moves_forward_falls_back_and_rolls_back(scene_on_both: Scene) -> None:
    scene = scene_on_both
    first, second = add_adapter(scene, "a"), add_adapter(scene, "b")
    epoch = lead(scene)
    deploy(scene, first)
    observe(scene, epoch, a="ready")
    deploy(scene, second)
    observe(scene, epoch, a="ready", b="loading")
    assert models(scene)["factory-co/orders"].version_id == first
    observe(scene, epoch, a="ready", b="ready")
    assert models(scene)["factory-co/orders"].version_id == second
    # an engine that comes back does not turn the name back
    observe(scene, epoch, a="failed", b="ready")
    observe(scene, epoch, a="ready", b="ready")
    assert models(scene)["factory-co/orders"].version_id == second
    body = {"public_name": "factory-co/orders"}
    assert scene.call("POST", "/api/v1/deployments/roll-back", "rival", json=body).status_code == 404
    rolled = scene.call("POST", "/api/v1/deployments/roll-back", "factory", json=body)
    assert rolled.json["version_id"] == first  # type: ignore[index]
    assert models(scene)["factory-co/orders"].version_id == first
    assert scene.call("DELETE", f"/api/v1/versions/{first}/deploy", "factory").status_code == 200
    assert models(scene)["factory-co/orders"].version_id == second
    assert "factory-co/orders@1" not in models(scene)


def test_engines_stay_warm_after_the_last_adapter_and_end_after_a_while(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    observe(scene, lead(scene), a="ready")
    path = f"/api/v1/versions/{version_id}/deploy"
    assert scene.call("DELETE", path, "factory").json["state"] == "stopped"  # type: ignore[index]
    assert scene.call("DELETE", path, "factory").status_code == 200
    warm = desired(scene)
    assert warm is not None
    assert (len(warm.replica_sets), len(warm.slots), warm.adapters) == (1, 1, ())
    assert "factory-co/orders" not in models(scene)
    later = scene.work.clock() + KEEP_WARM
    assert end_idle(scene, later - timedelta(seconds=30)) == 0
    assert end_idle(scene, later + timedelta(seconds=30)) == 1
    ended = desired(scene)
    assert ended is not None
    assert (ended.replica_sets, ended.slots, ended.adapters) == ((), (), ())
    assert models(scene) == {}
    deploy(scene, version_id)
    again = desired(scene)
    assert again is not None
    assert again.slots[0].allocation_epoch == 2


def test_a_new_demand_keeps_a_warm_set(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    scene.call("DELETE", f"/api/v1/versions/{version_id}/deploy", "factory")
    deploy(scene, version_id)
    assert end_idle(scene, scene.work.clock() + 2 * KEEP_WARM) == 0
    again = desired(scene)
    assert again is not None
    assert [slot.allocation_epoch for slot in again.slots] == [1]


def end_idle(scene: Scene, now: datetime) -> int:
    with scene.sessions.write() as session:
        return end_idle_sets(session, now=now)


def test_a_base_deployed_on_purpose_outlives_its_adapters(scene: Scene) -> None:
    deploy(scene, scene.base_version, "operator")
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    scene.call("DELETE", f"/api/v1/versions/{version_id}/deploy", "factory")
    assert states(scene) == {"operator-co/base@1": "wanted"}


def test_a_failed_adapter_says_why_and_may_still_come_up(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    epoch = lead(scene)
    observe(scene, epoch, a="failed")
    rows = scene.call("GET", "/api/v1/deployments", "factory").json["deployments"]  # type: ignore[index]
    assert [(row["state"], row["reason_code"]) for row in rows] == [("failed", "load_failed")]
    observe(scene, epoch, a="ready")
    assert states(scene)["factory-co/orders@1"] == "ready"


def test_only_the_owner_or_an_operator_deploys(scene: Scene) -> None:
    version_id = add_adapter(scene)
    for method in ("POST", "DELETE"):
        assert scene.call(method, f"/api/v1/versions/{version_id}/deploy", "rival").status_code == 404
        assert scene.call(method, f"/api/v1/versions/{scene.base_version}/deploy", "rival").status_code == 404
    assert scene.call("GET", "/api/v1/deployments", "rival").json == {"deployments": []}
    assert scene.call("POST", f"/api/v1/versions/{version_id}/deploy", "auditor").status_code == 403


def test_one_controller_leads_and_an_old_epoch_is_refused(scene: Scene) -> None:
    deploy(scene, add_adapter(scene))
    first = lead(scene)
    refused = scene.internal("POST", "pool/lead", "pool", data=contract.dumps(contract.Lead("c2")))
    assert (refused.status_code, refused.json["code"]) == (409, "wrong_epoch")  # type: ignore[index]
    second = lead(scene)
    assert second == first + 1
    assert observe(scene, first) == 409
    assert observe(scene, second) == 200


def test_internal_routes_take_their_own_token_and_whole_messages(scene: Scene) -> None:
    assert scene.internal("GET", "pool/desired", "gateway").status_code == 401
    assert scene.internal("GET", "snapshot", "pool").status_code == 401
    wrong = scene.internal("POST", "pool/lead", "pool", data=json.dumps({"contract_version": 1, "who": 1}))
    assert (wrong.status_code, wrong.json["field"]) == (422, "who")  # type: ignore[index]


def test_a_long_poll_answers_as_soon_as_something_changes(scene: Scene) -> None:
    version_id = add_adapter(scene)
    current = desired(scene)
    assert current is not None
    timer = threading.Timer(0.4, deploy, (scene, version_id))
    timer.start()
    started_s = time.monotonic()
    answer = scene.internal("GET", f"pool/desired?after={current.generation}&wait_s=20", "pool")
    timer.join()
    assert answer.status_code == 200
    assert time.monotonic() - started_s < 18


def test_a_wait_ends_without_news() -> None:
    looks: list[int] = []

    def look() -> None:
        looks.append(1)

    assert wait_for(look, 0.1, news=News(), pause_s=0.03) is None
    assert len(looks) >= 3


def test_a_write_of_this_process_ends_a_wait_at_once(scene: Scene) -> None:
    written: list[float] = []

    def write() -> None:
        with scene.sessions.write():
            written.append(time.monotonic())

    timer = threading.Timer(0.2, write)
    timer.start()
    found = wait_for(lambda: written and written[0], 5.0, news=scene.sessions.news, pause_s=5.0)
    timer.join()
    assert found
    assert time.monotonic() - written[0] < 1.0


def test_the_snapshot_version_grows_with_its_content_only(scene: Scene) -> None:
    first = snapshot(scene)
    assert first is not None
    assert snapshot(scene, after=first.version) is None
    version_id = add_adapter(scene)  # an event without meaning for gateways
    assert snapshot(scene, after=first.version) is None
    deploy(scene, version_id)
    observe(scene, lead(scene), a="ready")
    second = snapshot(scene, after=first.version)
    assert second is not None
    assert second.version == first.version + 1


def test_keys_reach_the_snapshot_and_leave_it_when_revoked(scene: Scene) -> None:
    now, actor = scene.work.clock(), scene.actors["factory"]
    with scene.sessions.write() as session:
        key, text = create_key(
            session, actor, name="line 1", models=["factory-co/orders"], rpm=60, pepper=b"p", pepper_id="1", now=now
        )
    found = snapshot(scene)
    assert found is not None
    assert [(row.key_id, row.mac, row.models, row.rpm) for row in found.keys] == [
        (key.id, contract.key_mac(b"p", text), ("factory-co/orders",), 60)
    ]
    assert scene.call("DELETE", f"/api/v1/keys/{key.id}", "factory").status_code in (200, 204)
    later = snapshot(scene, after=found.version)
    assert later is not None
    assert later.keys == ()


def test_filings_prices_and_blocks_stand_in_the_snapshot(scene: Scene) -> None:
    deploy(scene, scene.base_version, "operator")
    observe(scene, lead(scene))
    assert models(scene)["operator-co/base"].filing is None
    filing = scene.add_filing()
    named = models(scene)["operator-co/base"]
    assert named.filing == contract.Filing("Demo base", "DEMO-备案-0001", None)
    found = snapshot(scene)
    assert found is not None
    assert {(price.price_version_id, price.meter, price.per_units) for price in found.prices} == {
        (named.price_version_id, contract.Meter.PROMPT, 1000),
        (named.price_version_id, contract.Meter.COMPLETION, 1000),
    }
    assert found.blocks == ()
    with scene.sessions.write() as session:
        withdraw_filing(session, scene.actors["operator"], filing.id, reason="test", now=scene.work.clock())
    stopped = snapshot(scene, after=found.version)
    assert stopped is not None
    assert [(row.subject_kind, row.subject, row.scope, row.code) for row in stopped.blocks] == [
        (contract.SubjectKind.BASE, named.base_digest, contract.BlockScope.PUBLIC, "filing_withdrawn")
    ]


@pytest.mark.parametrize("subject", ["artifact_digest", "weights_digest"])
def test_a_block_on_a_base_reaches_what_gateways_compare(scene: Scene, subject: str) -> None:
    deploy(scene, scene.base_version, "operator")
    observe(scene, lead(scene))
    with scene.sessions.write() as session:
        version = session.get_one(ModelVersion, scene.base_version)
        session.add(
            Block(
                id=new_id("blk"),
                organisation_id=version.organisation_id,
                subject_kind=contract.SubjectKind.BASE,
                subject=getattr(version, subject),
                scope=contract.BlockScope.ALL,
                in_flight=contract.InFlight.CUT,
                code="quarantined",
                message_zh="隔离",
                message_en="quarantined",
                from_at=scene.work.clock(),
                set_by="system",
            )
        )
    # Set without its event: the snapshot is built anew by age.
    with scene.sessions.write() as session:
        from hub.deployments.snapshot import build_snapshot

        built = build_snapshot(session, scene.work.clock())
    assert version.artifact_digest in {block.subject for block in built.blocks}


def test_an_embedding_base_gets_a_pooling_engine_without_adapters(scene: Scene) -> None:
    with scene.sessions.write() as session:
        base = session.get_one(ModelVersion, scene.base_version)
        base.facts = base.facts | {"task": "embed", "pooling": "MEAN", "normalize": True, "dtype": "F32"}
    deploy(scene, scene.base_version, "operator")
    wanted = desired(scene)
    assert wanted is not None
    (row,) = wanted.replica_sets
    assert (row.task, row.max_loras, row.engine_args["dtype"]) == (contract.Task.EMBED, 0, "float32")
    assert json.loads(str(row.engine_args["pooler-config"])) == {"pooling_type": "MEAN", "use_activation": True}
