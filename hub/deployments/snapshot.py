"""The gateways' snapshot, built from keys, ready deployments, filings, prices and blocks; derived, never edited.

It leaves waiting to the internal API and applying the rules to `serving.gateway`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from hub.catalogue.service import price_of
from hub.catalogue.tables import Model, ModelVersion, VersionState
from hub.clock import to_us
from hub.columns import write_json
from hub.deployments.blocks import list_blocks
from hub.deployments.retirements import find_retirement, find_successor
from hub.deployments.tables import Alias, Deployment, DeploymentState, ReplicaSet, Rollout, RolloutState, SnapshotRow
from hub.events.tables import Event
from hub.filings.service import Standing, standings_of
from hub.organisations.tables import ApiKey
from hub.prices.service import price_lines
from hub.prices.tables import CALL_METERS
from serving import contract

SNAPSHOT_NAME = "gateway"
Served = tuple[Deployment, ModelVersion, Model, ReplicaSet]


def read_snapshot(session: Session) -> contract.Snapshot | None:
    """Return the snapshot as last kept; None before the first."""
    row = session.get(SnapshotRow, SNAPSHOT_NAME)
    return None if row is None else contract.decode(contract.Snapshot, row.body)


def is_stale(session: Session, *, now: datetime, max_age_s: float) -> bool:
    """Return whether anything happened since the kept snapshot, or it is older than `max_age_s`."""
    row = session.get(SnapshotRow, SNAPSHOT_NAME)
    if row is None or read_event_seq(session) != row.event_seq:
        return True
    return (now - row.built_at).total_seconds() >= max_age_s


def read_event_seq(session: Session) -> int:
    """Return the number of the newest event; 0 without any."""
    return session.scalar(select(func.max(Event.seq))) or 0


def build_snapshot(session: Session, now: datetime) -> contract.Snapshot:
    """Return the content of a snapshot with version 0; equal rows give equal content but for `issued_at`."""
    served = _list_served(session)
    standings = standings_of(session, {version.weights_digest for _, version, _, _ in served}, now)
    aliases = {alias.version_id: alias.public_name for alias in session.scalars(select(Alias))}
    shares = _list_shares(session, served)
    models = [
        _present_model(session, name, row, standings[row[1].weights_digest], price.id, shares)
        for row in served
        # A version whose price was withdrawn is left out: nothing is served free, and the others go on.
        if (price := price_of(session, row[1], now)) is not None
        for name in _list_names(row[0], aliases)
    ]
    models.sort(key=lambda model: model.public_name)
    return contract.Snapshot(
        version=0,
        issued_at=to_us(now),
        keys=_list_keys(session, now),
        models=tuple(models),
        prices=_list_prices(session, {model.price_version_id for model in models}),
        blocks=list_blocks(
            session, {row.base_digest: version.weights_digest for _, version, _, row in served}, standings, now=now
        ),
    )


def keep_snapshot(session: Session, built: contract.Snapshot, *, event_seq: int, now: datetime) -> None:
    """Keep a built snapshot unless a later one is kept already; its version grows only when the content changed."""
    row = session.get(SnapshotRow, SNAPSHOT_NAME, with_for_update=True)
    digest = _digest_content(built)
    if row is None:
        row = SnapshotRow(name=SNAPSHOT_NAME, version=0, content_digest="", event_seq=0)
        session.add(row)
    elif event_seq < row.event_seq:
        return
    if row.content_digest != digest:
        row.version += 1
        row.content_digest = digest
    row.event_seq, row.built_at = event_seq, now
    row.body = contract.encode(replace(built, version=row.version, issued_at=to_us(now)))


def _digest_content(built: contract.Snapshot) -> str:
    content: dict[str, Any] = contract.encode(replace(built, version=0, issued_at=0))
    return hashlib.sha256(write_json(content).encode()).hexdigest()


def _list_served(session: Session) -> list[Served]:
    """Return what was ready once and is not stopped; whether an engine answers now is the routes' matter."""
    statement = (
        select(Deployment, ModelVersion, Model, ReplicaSet)
        .join(ModelVersion, ModelVersion.id == Deployment.version_id)
        .join(Model, Model.id == ModelVersion.model_id)
        .join(ReplicaSet, ReplicaSet.id == Deployment.set_id)
        .where(Deployment.state != DeploymentState.STOPPED, Deployment.ready_at.is_not(None))
        .order_by(Deployment.id)
    )
    return [(row[0], row[1], row[2], row[3]) for row in session.execute(statement)]


def _list_names(deployment: Deployment, aliases: dict[str, str]) -> list[str]:
    alias = aliases.get(deployment.version_id)
    return [deployment.public_name] if alias is None else [alias, deployment.public_name]


def _list_shares(session: Session, served: list[Served]) -> dict[str, tuple[contract.ModelTarget, ...]]:
    """Return the targets of names whose rollout runs, the new version first: who has it keeps it as its share grows."""
    digests = {version.id: version.artifact_digest for _, version, _, _ in served}
    return {
        row.public_name: (
            contract.ModelTarget(row.version_id, digests[row.version_id], row.percent),
            contract.ModelTarget(row.stable_version_id, digests[row.stable_version_id], 100 - row.percent),
        )
        for row in session.scalars(select(Rollout).where(Rollout.state == RolloutState.RUNNING))
        if row.version_id in digests and row.stable_version_id in digests
    }


def _present_model(
    session: Session,
    name: str,
    row: Served,
    standing: Standing,
    price_version_id: str,
    shares: Mapping[str, tuple[contract.ModelTarget, ...]],
) -> contract.SnapshotModel:
    _, version, model, replica_set = row
    listed = version.state in (VersionState.LISTED, VersionState.RETIRED)
    filing = standing.filing
    retirement = find_retirement(session, version)
    return contract.SnapshotModel(
        public_name=name,
        version_id=version.id,
        organisation_id=version.organisation_id,
        owner_may_call=True,
        base_digest=replica_set.base_digest,
        context_tokens=replica_set.context_tokens,
        visibility=model.visibility if listed else contract.Visibility.PRIVATE,
        acl=tuple(model.acl),
        price_version_id=price_version_id,
        targets=shares.get(name, (contract.ModelTarget(version.id, version.artifact_digest, 1),)),
        locality=str(model.locality),
        retires_at=None if retirement is None else to_us(retirement[1]),
        successor=None if retirement is None else find_successor(session, version),
        filing=None
        if filing is None
        else contract.Filing(
            name=filing.model_name,
            number=filing.number,
            valid_until=None if filing.valid_until is None else to_us(filing.valid_until),
        ),
    )


def _list_keys(session: Session, now: datetime) -> tuple[contract.SnapshotKey, ...]:
    statement = (
        select(ApiKey)
        .where(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))
        .order_by(ApiKey.id)
    )
    return tuple(_present_key(key) for key in session.scalars(statement))


def _present_key(key: ApiKey) -> contract.SnapshotKey:
    return contract.SnapshotKey(
        key_id=key.id,
        mac=key.mac,
        pepper_id=key.pepper_id,
        organisation_id=key.organisation_id,
        cost_centre=key.cost_centre,
        scopes=tuple(key.scopes),
        models=tuple(key.models) if key.models else None,
        ip_ranges=tuple(key.ip_ranges) if key.ip_ranges else None,
        expires_at=None if key.expires_at is None else to_us(key.expires_at),
        revoked_at=None,
        rpm=key.rpm,
        tpm=key.tpm,
        concurrency=key.concurrency,
        budget_id=key.budget_id,
    )


def _list_prices(session: Session, price_version_ids: set[str]) -> tuple[contract.SnapshotPrice, ...]:
    return tuple(
        contract.SnapshotPrice(
            price_version_id=price_version_id,
            meter=contract.Meter(line.meter.value),
            amount_fen=line.amount_fen,
            per_units=line.per_units,
        )
        for price_version_id in sorted(price_version_ids)
        for line in price_lines(session, price_version_id)
        if line.meter in CALL_METERS
    )
