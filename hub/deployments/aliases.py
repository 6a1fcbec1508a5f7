"""Aliases: the version that `org/name` stands for. Moved only after ready was observed.

It leaves deciding when to `hub.deployments.service` and `hub.deployments.pool`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.catalogue.service import mark_endpoint
from hub.deployments.tables import Alias, Deployment
from hub.events.service import record_event


def find_alias(session: Session, public_name: str) -> Alias | None:
    """Return the alias row of a public name."""
    return session.get(Alias, public_name)


def move_alias(session: Session, deployment: Deployment, *, actor_id: str, now: datetime) -> Alias:
    """Let `org/name` stand for a deployment's version; the version before is kept for a roll-back."""
    name = deployment.public_name.rpartition("@")[0]
    alias = session.get(Alias, name, with_for_update=True)
    if alias is None:
        alias = Alias(public_name=name, organisation_id=deployment.organisation_id, version_id=deployment.version_id)
        session.add(alias)
    elif alias.version_id == deployment.version_id:
        return alias
    else:
        alias.previous_version_id, alias.version_id = alias.version_id, deployment.version_id
    alias.moved_at = now
    mark_endpoint(session, deployment.version_id, deployed=True)
    _record(session, "alias.moved", deployment, name, actor_id, now)
    return alias


def drop_alias(
    session: Session, deployment: Deployment, *, before: Deployment | None, actor_id: str, now: datetime
) -> None:
    """Take the alias off a version that stops: back to the one before if given, else away."""
    name = deployment.public_name.rpartition("@")[0]
    alias = session.get(Alias, name, with_for_update=True)
    if alias is None or alias.version_id != deployment.version_id:
        return
    if before is not None and before.version_id != deployment.version_id:
        alias.version_id, alias.previous_version_id, alias.moved_at = before.version_id, None, now
        _record(session, "alias.moved", before, name, actor_id, now)
    else:
        session.delete(alias)
        mark_endpoint(session, deployment.version_id, deployed=False)
        _record(session, "alias.dropped", deployment, name, actor_id, now)


def _record(session: Session, topic: str, deployment: Deployment, name: str, actor_id: str, now: datetime) -> None:
    record_event(
        session,
        topic,
        name,
        organisation_id=deployment.organisation_id,
        actor_id=actor_id,
        now=now,
        version_id=deployment.version_id,
    )
