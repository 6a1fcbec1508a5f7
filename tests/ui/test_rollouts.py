"""The rollouts page: start with cases, change the share, promote behind a question, take back; others see nothing."""

import pytest

from hub.catalogue.registration import register_version
from hub.catalogue.service import price_version
from hub.deployments.aliases import find_alias
from hub.deployments.rollout_state import begin_if_waiting
from hub.deployments.tables import Deployment, DeploymentState
from tests.ui.world import World, mark_ready

NAME = "demo-integrator/orders"


@pytest.fixture
def second(world: World) -> str:
    """The id of a second version of a name that answers."""
    mark_ready(world, "orders", "integrator")
    owner = world.actors["integrator"]
    with world.sessions.write() as session:
        version = register_version(
            session,
            organisation_id=owner.organisation_id,
            model_name="orders",
            base_version_id=world.versions["demo-zh"].id,
            artifact_digest="c" * 64,
            artifact_uri="file:///c",
            run_id=None,
            rank=8,
            metrics={},
            lineage={},
            size_bytes=1,
            now=world.now,
        )
        lines = {"prompt": (800, 1_000_000), "completion": (2000, 1_000_000)}
        price_version(session, owner, version.id, lines=lines, parts=[], now=world.now)
        return version.id


def begin(world: World, version_id: str) -> None:
    with world.sessions.write() as session:
        row = session.query(Deployment).where(Deployment.version_id == version_id).one()
        row.state, row.ready_at = DeploymentState.READY, world.now
        begin_if_waiting(session, version_id, world.now)


def rollout_id_in(page: str) -> str:
    return page.partition('action="/rollouts/')[2].partition("/")[0]


def test_a_rollout_from_start_to_promotion(world: World, second: str) -> None:
    owner = world.visit("integrator")
    assert f"{NAME}@2" in owner.get("/rollouts").text
    bad = owner.post("/rollouts", data={"version_id": second, "percent": "5", "cases": "no sign here"})
    assert bad.status_code == 422
    assert "question =&gt; expected answer" in bad.text
    form = {"version_id": second, "percent": "5", "cases": "pump leaks => replace seal"}
    assert owner.post("/rollouts", data=form).location == "/rollouts?done=started"
    assert "Waits for its version" in owner.get("/rollouts").text
    begin(world, second)
    page = owner.get("/rollouts").text
    assert "Under way" in page
    assert "Promote the new version?" in page
    rollout_id = rollout_id_in(page)
    assert owner.post(f"/rollouts/{rollout_id}/share", data={"percent": "50"}).location == "/rollouts?done=shifted"
    assert "50 %" in owner.get("/rollouts").text
    assert world.visit("factory").post(f"/rollouts/{rollout_id}/promote").status_code in (404, 409)
    assert NAME not in world.visit("factory").get("/rollouts").text
    assert owner.post(f"/rollouts/{rollout_id}/promote").location == "/rollouts?done=promoted"
    with world.sessions.read() as session:
        alias = find_alias(session, NAME)
        assert alias is not None
        assert alias.version_id == second
    assert "已转正" in world.visit("integrator", "zh").get("/rollouts").text


def test_taking_back_says_who_did_it(world: World, second: str) -> None:
    owner = world.visit("integrator")
    owner.post("/rollouts", data={"version_id": second, "percent": "25", "cases": ""})
    begin(world, second)
    rollout_id = rollout_id_in(owner.get("/rollouts").text)
    assert owner.post(f"/rollouts/{rollout_id}/take-back").location == "/rollouts?done=taken_back"
    assert "by a person" in owner.get("/rollouts").text
    assert owner.post(f"/rollouts/{rollout_id}/promote").status_code == 409
