"""HTTP of rollouts: start, shift, promote, take back, list; each step answers the rollout as it then is.

It leaves the rules to `rollouts`.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.deployments import rollout_rules as rules
from hub.deployments import rollouts
from hub.deployments.tables import Rollout
from hub.web import Body, Query, context, current_actor


class CaseBody(Body):
    """One question with the answer that is expected of both versions."""

    prompt: str = Field(min_length=1, max_length=8000)
    expected: str = Field(max_length=8000)


class StartBody(Body):
    """A version and how it takes over; without cases those held out by its fine-tuning run are asked."""

    version_id: str
    percent: int = Field(ge=1, le=99)
    max_error_percent: int = Field(rules.MAX_ERROR_PERCENT, ge=0, le=100)
    max_drop_percent: int = Field(rules.MAX_DROP_PERCENT, ge=0, le=100)
    cases: list[CaseBody] = Field(default_factory=list, max_length=rules.MOST_CASES)


class ShareBody(Body):
    """Another share of the calls."""

    percent: int = Field(ge=1, le=99)


class RolloutPath(Query):
    """One rollout."""

    rollout_id: str


def present_rollout(row: Rollout) -> dict[str, Any]:
    """Return a rollout as JSON values."""
    return {
        "id": row.id,
        "public_name": row.public_name,
        "state": row.state,
        "version_id": row.version_id,
        "stable_version_id": row.stable_version_id,
        "percent": row.percent,
        "max_error_percent": row.max_error_percent,
        "max_drop_percent": row.max_drop_percent,
        "cases": len(row.cases),
        "probe": row.probe,
        "reason_code": row.reason_code,
        "started_at": row.started_at.isoformat(),
        "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
    }


def add_rollout_routes(blueprint: APIBlueprint) -> None:
    """Put the routes on the room's blueprint."""
    blueprint.post("/api/v1/rollouts")(post_rollout)
    blueprint.get("/api/v1/rollouts")(get_rollouts)
    blueprint.post("/api/v1/rollouts/<rollout_id>/share")(post_share)
    blueprint.post("/api/v1/rollouts/<rollout_id>/promote")(post_promote)
    blueprint.post("/api/v1/rollouts/<rollout_id>/take-back")(post_take_back)


def post_rollout(body: StartBody) -> tuple[dict[str, Any], int]:
    """Deploy a version and give it a share of its name's calls once it is ready."""
    actor = current_actor()
    terms = rollouts.Terms(
        percent=body.percent,
        max_error_percent=body.max_error_percent,
        max_drop_percent=body.max_drop_percent,
        cases=[case.model_dump() for case in body.cases],
    )
    with context().sessions.write() as session:
        row = rollouts.start_rollout(session, actor, body.version_id, terms, now=context().clock())
        return present_rollout(row), 202


def get_rollouts() -> dict[str, Any]:
    """Return the organisation's rollouts, newest first."""
    actor = current_actor()
    with context().sessions.read() as session:
        return {"rollouts": [present_rollout(row) for row in rollouts.list_rollouts(session, actor)]}


def post_share(path: RolloutPath, body: ShareBody) -> dict[str, Any]:
    """Give the new version another share of the calls."""
    return _step(
        lambda session, actor, now: rollouts.set_percent(session, actor, path.rollout_id, body.percent, now=now)
    )


def post_promote(path: RolloutPath) -> dict[str, Any]:
    """Let the name stand for the new version."""
    return _step(lambda session, actor, now: rollouts.promote(session, actor, path.rollout_id, now=now))


def post_take_back(path: RolloutPath) -> dict[str, Any]:
    """Send every call to the stable version again."""
    return _step(lambda session, actor, now: rollouts.take_back(session, actor, path.rollout_id, now=now))


def _step(act: Callable[[Session, Actor, datetime], Rollout]) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        return present_rollout(act(session, actor, context().clock()))
