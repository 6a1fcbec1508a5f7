"""HTTP of machines: list them, take one out of service for maintenance and back.

It leaves what that does to engines to `hub.deployments.maintenance` and the pool controller.
"""

from typing import Any

from flask_openapi3.blueprint import APIBlueprint

from hub.actor import READERS
from hub.compute.tables import Node, Slot
from hub.deployments.maintenance import begin_maintenance, end_maintenance, list_machines
from hub.web import Body, Query, context, current_actor


class NodePath(Query):
    """One machine by id."""

    node_id: str


class MaintenanceBody(Body):
    """In how many seconds the machine is to be empty of engines."""

    notice_s: int = 600


def add_maintenance_routes(blueprint: APIBlueprint) -> None:
    """Put the routes on the room's blueprint."""
    blueprint.get("/api/v1/nodes")(get_nodes)
    blueprint.put("/api/v1/nodes/<node_id>/maintenance")(put_maintenance)
    blueprint.delete("/api/v1/nodes/<node_id>/maintenance")(delete_maintenance)


def present_node(node: Node, slots: list[Slot]) -> dict[str, Any]:
    """Return a machine as JSON values."""
    ends = [slot.drain_by for slot in slots if slot.drain_by is not None]
    return {
        "id": node.id,
        "name": node.name,
        "state": node.state,
        "device": node.device,
        "serve_slots": node.serve_slots,
        "places_used": len(slots),
        "drain_by": max(ends).isoformat() if ends else None,
    }


def get_nodes() -> dict[str, Any]:
    """Return every machine, and by when one under maintenance is empty."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"nodes": [present_node(node, slots) for node, slots in list_machines(session)]}


def put_maintenance(path: NodePath, body: MaintenanceBody) -> tuple[dict[str, Any], int]:
    """Let a machine take nothing new and be empty of engines after `notice_s`; adapters move elsewhere before."""
    actor = current_actor()
    with context().sessions.write() as session:
        node = begin_maintenance(session, actor, path.node_id, notice_s=body.notice_s, now=context().clock())
        return {"node_id": node.id, "state": node.state}, 202


def delete_maintenance(path: NodePath) -> dict[str, Any]:
    """Let a machine take engines again."""
    actor = current_actor()
    with context().sessions.write() as session:
        node = end_maintenance(session, actor, path.node_id, now=context().clock())
        return {"node_id": node.id, "state": node.state}
