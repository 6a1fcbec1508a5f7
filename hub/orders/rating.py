"""Rates usage: the cost of each record in µfen, once, on the bill line that it belongs to.

It leaves the price arithmetic to `serving.contract.cost_ufen` and posting fen to `tranches`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.filings.service import standing_of
from hub.ledger.rules import derive_id
from hub.metering.tables import Usage
from hub.orders.usage_tables import Allowance, AllowanceState, BillLine, RatedUsage, UsageTranche
from hub.prices.service import price_lines
from serving import contract

MAX_RATED = 2_000


def list_contract_prices(session: Session, price_version_id: str) -> list[contract.SnapshotPrice]:
    """Return a price version as the gateway sees it."""
    return [
        contract.SnapshotPrice(price_version_id, contract.Meter(line.meter), line.amount_fen, line.per_units)
        for line in price_lines(session, price_version_id)
    ]


def check_records(session: Session, records: Sequence[contract.UsageRecord]) -> dict[int, str]:
    """Return the refusal codes by index of records whose allowance does not fit them."""
    wanted = {record.allowance_id for record in records}
    found = {row.id: row for row in session.scalars(select(Allowance).where(Allowance.id.in_(wanted)))}
    codes = {}
    for index, record in enumerate(records):
        code = _check_record(record, found.get(record.allowance_id))
        if code is not None:
            codes[index] = code
    return codes


def rate_usage(session: Session, now: datetime, *, allowance_ids: Sequence[str] | None = None) -> int:
    """Rate records of open allowances that are not rated yet and return how many. Idempotent."""
    query = (
        select(Usage, Allowance, UsageTranche)
        .join(Allowance, Allowance.id == Usage.allowance_id)
        .join(UsageTranche, UsageTranche.id == Allowance.tranche_id)
        .where(Allowance.state == AllowanceState.OPEN)
        .where(~exists().where(RatedUsage.request_id == Usage.request_id, RatedUsage.attempt == Usage.attempt))
        .order_by(Usage.request_id, Usage.attempt)
        .limit(MAX_RATED)
    )
    if allowance_ids is not None:
        query = query.where(Allowance.id.in_(allowance_ids))
    count = 0
    for usage, allowance, tranche in session.execute(query).all():
        _rate(session, usage, allowance, tranche, now)
        count += 1
    session.flush()
    return count


def find_bill_line(session: Session, tranche: UsageTranche, *, subsidised: bool, now: datetime) -> BillLine:
    """Return the line of payer x price version x rule version x month, made on first use."""
    rule_version_id = tranche.rule_version_id if subsidised else None
    key = derive_id("bil", tranche.organisation_id, tranche.price_version_id, rule_version_id or "", tranche.month)
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    session.execute(
        insert(BillLine)
        .values(
            id=key,
            organisation_id=tranche.organisation_id,
            price_version_id=tranche.price_version_id,
            programme=tranche.programme if subsidised else None,
            rule_version_id=rule_version_id,
            month=tranche.month,
            share_num=tranche.share_num if subsidised else 0,
            share_den=tranche.share_den if subsidised else 1,
            exact_ufen=0,
            posted_fen=0,
            subsidised_fen=0,
            created_at=now,
        )
        .on_conflict_do_nothing()
    )
    return session.get_one(BillLine, key)


def _check_record(record: contract.UsageRecord, allowance: Allowance | None) -> str | None:
    if allowance is None:
        return "unknown_allowance"
    if allowance.state is not AllowanceState.OPEN:
        return "allowance_closed"
    if record.organisation_id != allowance.organisation_id:
        return "wrong_organisation"
    if record.price_version_id != allowance.price_version_id:
        return "wrong_price_version"
    return None


def _rate(session: Session, usage: Usage, allowance: Allowance, tranche: UsageTranche, now: datetime) -> None:
    cost = contract.cost_ufen(
        list_contract_prices(session, usage.price_version_id),
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
    )
    subsidised = tranche.rule_version_id is not None and _stands(session, usage.version_id, tranche.opened_at)
    line = find_bill_line(session, tranche, subsidised=subsidised, now=now)
    session.add(
        RatedUsage(
            request_id=usage.request_id,
            attempt=usage.attempt,
            organisation_id=usage.organisation_id,
            allowance_id=allowance.id,
            tranche_id=tranche.id,
            bill_line_id=line.id,
            subsidised=subsidised,
            cost_ufen=cost,
            rated_at=now,
        )
    )
    allowance.spent_ufen += cost


def _stands(session: Session, version_id: str, moment: datetime) -> bool:
    """Say whether the root base of a version had a valid filing when the tranche's money was held."""
    version = session.get(ModelVersion, version_id)
    return version is not None and standing_of(session, version.weights_digest, moment).valid
