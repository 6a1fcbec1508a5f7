"""A hot adapter gets an engine of its own when the pool measured that it gains enough and the operator allows it."""

from dataclasses import replace

import pytest

from hub.deployments.tables import DeploymentState
from hub.events.tables import Event
from serving import contract
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_deployments import add_adapter, deploy, lead, observe
from tests.hub.runs.test_merging import merge, merged_set, quick_merge
from tests.hub.runs.test_scaling import put_policy, running, wanted

__all__ = ["quick_merge"]
HOT = contract.ObservedAdapter(
    "a" * 64, ("rep_1",), contract.AdapterState.READY, share_percent=80, speed_up_percent=300
)


def report(scene: Scene, epoch: int, adapter: contract.ObservedAdapter) -> None:
    now = wanted(scene)
    ready = tuple(item.replica_id for item in running(now))
    message = contract.Observed(epoch, now.generation, running(now), (replace(adapter, ready_on=ready),))
    assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200


def serve(scene: Scene, *, engines: int) -> tuple[str, int]:
    """Deploy an adapter whose base may have so many engines; returns its version and the pool's epoch."""
    put_policy(scene, min=1, max=engines)
    version_id = add_adapter(scene)
    assert deploy(scene, version_id)["state"] != DeploymentState.READY
    epoch = lead(scene)
    observe(scene, epoch, a="ready")
    return version_id, epoch


def topics(scene: Scene, version_id: str) -> list[str]:
    with scene.sessions.read() as session:
        found = session.query(Event.topic).filter(Event.subject == version_id).order_by(Event.seq)
        return [topic for (topic,) in found if "merge" in topic or "split" in topic]


@pytest.mark.usefixtures("quick_merge")
def test_a_hot_adapter_is_merged_and_split_off_again_by_its_gain(scene: Scene) -> None:
    version_id, epoch = serve(scene, engines=2)
    for _ in range(3):
        report(scene, epoch, HOT)
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    assert topics(scene, version_id) == ["version.merge_chosen", "version.merged"]
    report(scene, epoch, replace(HOT, share_percent=10))
    assert merged_set(scene) is not None, "0.07 saved is still worth what is there"
    report(scene, epoch, replace(HOT, share_percent=5))
    assert merged_set(scene) is None
    assert topics(scene, version_id)[-1] == "version.split"
    report(scene, epoch, HOT)
    assert topics(scene, version_id)[-1] == "version.split", "not again within the hour"


@pytest.mark.usefixtures("quick_merge")
@pytest.mark.parametrize(
    ("engines", "changes"),
    [(1, {}), (2, {"share_percent": 10}), (2, {"speed_up_percent": 95}), (2, {"speed_up_percent": None})],
)
def test_what_is_not_allowed_or_not_worth_it_is_not_merged(
    scene: Scene, engines: int, changes: dict[str, int | None]
) -> None:
    version_id, epoch = serve(scene, engines=engines)
    report(scene, epoch, replace(HOT, **changes))  # type: ignore[arg-type]
    assert topics(scene, version_id) == []


@pytest.mark.usefixtures("quick_merge")
def test_what_the_operator_merged_stays(scene: Scene) -> None:
    version_id, epoch = serve(scene, engines=2)
    assert merge(scene, version_id) == 202
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    report(scene, epoch, replace(HOT, share_percent=0))
    assert merged_set(scene) is not None
    assert topics(scene, version_id) == ["version.merge_asked", "version.merged"]
