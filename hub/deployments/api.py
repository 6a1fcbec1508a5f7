"""HTTP of deployments: deploy, undeploy, roll back, list; the internal routes are added from `internal`.

It leaves calling what is deployed to the gateway.
"""

from dataclasses import asdict
from typing import Any

from flask_openapi3.blueprint import APIBlueprint

from hub.actor import READERS
from hub.deployments import service
from hub.deployments.internal import add_internal_routes
from hub.deployments.maintenance_api import add_maintenance_routes
from hub.deployments.merging import request_merge, split_off
from hub.deployments.policies import DEFAULT_POLICY, Policy, list_policies, set_policy
from hub.deployments.rollout_api import add_rollout_routes
from hub.deployments.tables import Deployment
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("deployments", __name__)
add_internal_routes(blueprint)
add_maintenance_routes(blueprint)
add_rollout_routes(blueprint)


class VersionPath(Query):
    """One model version by id."""

    version_id: str


class DeploymentQuery(Query):
    """Whether stopped deployments are listed too."""

    with_stopped: bool = False


class BasePath(Query):
    """One base model version by id."""

    base_version_id: str


class PolicyBody(Body):
    """How many engines a base may have, how long they stay idle, how many adapters one computes with at once."""

    min: int = DEFAULT_POLICY.min
    max: int = DEFAULT_POLICY.max
    idle_s: int = DEFAULT_POLICY.idle_s
    max_loras: int = DEFAULT_POLICY.max_loras


class RollBackBody(Body):
    """The public name `org/name` to point at its version before."""

    public_name: str


def present_deployment(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment as JSON values."""
    return {
        "id": deployment.id,
        "version_id": deployment.version_id,
        "public_name": deployment.public_name,
        "alias": deployment.public_name.rpartition("@")[0],
        "state": deployment.state,
        "reason_code": deployment.reason_code,
        "implied": deployment.implied,
        "created_at": deployment.created_at.isoformat(),
        "ready_at": None if deployment.ready_at is None else deployment.ready_at.isoformat(),
        "stopped_at": None if deployment.stopped_at is None else deployment.stopped_at.isoformat(),
    }


@blueprint.post("/api/v1/versions/<version_id>/deploy")
def post_deploy(path: VersionPath) -> tuple[dict[str, Any], int]:
    """Ask for a version to be served; poll the deployments until it is ready."""
    actor = current_actor()
    with context().sessions.write() as session:
        deployment = service.deploy(session, actor, path.version_id, now=context().clock())
        return present_deployment(deployment), 202


@blueprint.delete("/api/v1/versions/<version_id>/deploy")
def delete_deploy(path: VersionPath) -> dict[str, Any]:
    """Stop serving a version."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_deployment(service.undeploy(session, actor, path.version_id, now=context().clock()))


@blueprint.post("/api/v1/versions/<version_id>/merge")
def post_merge(path: VersionPath) -> tuple[dict[str, Any], int]:
    """Ask for an engine with merged weights for a hot adapter; its public name stays."""
    actor = current_actor()
    with context().sessions.write() as session:
        request_merge(session, actor, path.version_id, now=context().clock())
        return {"version_id": path.version_id}, 202


@blueprint.delete("/api/v1/versions/<version_id>/merge")
def delete_merge(path: VersionPath) -> dict[str, Any]:
    """Serve an adapter from a slot of its base's engines again."""
    actor = current_actor()
    with context().sessions.write() as session:
        split_off(session, actor, path.version_id, now=context().clock())
        return {"version_id": path.version_id}


@blueprint.get("/api/v1/deployments")
def get_deployments(query: DeploymentQuery) -> dict[str, Any]:
    """Return the organisation's deployments, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_deployments(session, actor, with_stopped=query.with_stopped)
        return {"deployments": [present_deployment(deployment) for deployment in found]}


@blueprint.post("/api/v1/deployments/roll-back")
def post_roll_back(body: RollBackBody) -> dict[str, Any]:
    """Point a public name at its version before."""
    actor = current_actor()
    with context().sessions.write() as session:
        version_id = service.roll_back(session, actor, body.public_name, now=context().clock())
        return {"public_name": body.public_name, "version_id": version_id}


@blueprint.get("/api/v1/serving-policies")
def get_policies() -> dict[str, Any]:
    """Return what holds for each base that has engines or a policy of its own."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        rows = list_policies(session)
        return {"policies": [{"base_version_id": base.id, **asdict(policy)} for base, policy in rows]}


@blueprint.put("/api/v1/serving-policies/<base_version_id>")
def put_policy(path: BasePath, body: PolicyBody) -> dict[str, Any]:
    """Set how engines of a base scale; running ones follow at once."""
    actor = current_actor()
    policy = Policy(body.min, body.max, body.idle_s, body.max_loras)
    with context().sessions.write() as session:
        base = set_policy(session, actor, path.base_version_id, policy, now=context().clock())
        return {"base_version_id": base.id, **asdict(policy)}
