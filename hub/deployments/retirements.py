"""Retirements as they reach people: who is told that a version or its base ends, what shows it, and what comes after.

It leaves setting the date to the catalogue and refusing calls after it to the gateway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from hub.catalogue.service import lineage_of
from hub.catalogue.tables import Model, ModelVersion
from hub.deployments.tables import Deployment, DeploymentState
from hub.events.service import SYSTEM, record_event
from hub.events.tables import Event
from hub.metering.tables import Usage

TOPIC = "retirement.announced"
USED_WITHIN = timedelta(days=30)


@dataclass(frozen=True)
class Retirement:
    """A served version that ends at a time, because of which link of its lineage, and what to call then."""

    version_id: str
    public_name: str
    because: str
    retires_at: datetime
    successor: str | None


def find_retirement(session: Session, version: ModelVersion) -> tuple[ModelVersion, datetime] | None:
    """Return the link of a version's lineage that ends first, and when; None while none does."""
    ends = [(link.retires_at, link) for link in lineage_of(session, version) if link.retires_at is not None]
    if not ends:
        return None
    at, link = min(ends, key=lambda end: end[0])
    return link, at


def find_successor(session: Session, version: ModelVersion) -> str | None:
    """Return the public name to call instead: the one named by who retires, else a newer version that is served.

    A newer version that ends too is none.
    """
    found = find_retirement(session, version)
    if found is not None and found[0].successor:
        return found[0].successor
    newer = session.scalars(
        select(ModelVersion)
        .join(Deployment, Deployment.version_id == ModelVersion.id)
        .where(
            ModelVersion.model_id == version.model_id,
            ModelVersion.number > version.number,
            Deployment.state == DeploymentState.READY,
        )
        .order_by(ModelVersion.number.desc())
    )
    fit = next((each for each in newer if find_retirement(session, each) is None), None)
    return None if fit is None else _name(session, fit)


def list_retirements(session: Session, organisation_id: str, *, now: datetime) -> list[Retirement]:
    """Return what an organisation serves or called lately and that ends or has ended, the soonest first."""
    used = select(Usage.version_id).where(
        Usage.organisation_id == organisation_id, Usage.ended_at > now - USED_WITHIN, Usage.ended_at <= now
    )
    rows = session.scalars(
        select(Deployment).where(
            Deployment.state != DeploymentState.STOPPED,
            or_(Deployment.organisation_id == organisation_id, Deployment.version_id.in_(used)),
        )
    )
    found = [item for row in rows if (item := _describe(session, row)) is not None]
    return sorted(found, key=lambda item: (item.retires_at, item.public_name))


def announce_retirements(session: Session, now: datetime) -> int:
    """Tell the owner and the users of every served version that ends, once each; returns how many were told."""
    told = 0
    retiring = session.scalar(select(ModelVersion.id).where(ModelVersion.retires_at.is_not(None)).limit(1))
    if retiring is None:
        return 0
    for row in session.scalars(select(Deployment).where(Deployment.state != DeploymentState.STOPPED)).all():
        item = _describe(session, row)
        if item is None or _was_told(session, item):
            continue
        for organisation_id in _list_concerned(session, row, now):
            _tell(session, item, organisation_id, now)
            told += 1
    return told


def _describe(session: Session, row: Deployment) -> Retirement | None:
    version = session.get_one(ModelVersion, row.version_id)
    found = find_retirement(session, version)
    if found is None:
        return None
    link, at = found
    return Retirement(version.id, row.public_name, _name(session, link), at, find_successor(session, version))


def _was_told(session: Session, item: Retirement) -> bool:
    """A date that moves is told again."""
    query = select(Event.payload).where(Event.subject == item.version_id, Event.topic == TOPIC)
    return any(payload["retires_at"] == item.retires_at.isoformat() for payload in session.scalars(query))


def _list_concerned(session: Session, row: Deployment, now: datetime) -> Sequence[str]:
    users = session.scalars(
        select(Usage.organisation_id)
        .where(Usage.version_id == row.version_id, Usage.ended_at > now - USED_WITHIN)
        .distinct()
    )
    return sorted({row.organisation_id, *users})


def _tell(session: Session, item: Retirement, organisation_id: str, now: datetime) -> None:
    record_event(
        session,
        TOPIC,
        item.version_id,
        organisation_id=organisation_id,
        actor_id=SYSTEM,
        now=now,
        public_name=item.public_name,
        because=item.because,
        retires_at=item.retires_at.isoformat(),
        successor=item.successor,
    )


def _name(session: Session, version: ModelVersion) -> str:
    return f"{session.get_one(Model, version.model_id).name}@{version.number}"
