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
from hub.vouchers.rules import read_body
from hub.vouchers.tables import RuleVersion
from serving import contract

MAX_RATED = 500
"""Records rated in one go by the worker, so that its writing transaction stays short."""

Rated = tuple[Usage, Allowance, UsageTranche]


def list_contract_prices(session: Session, price_version_id: str) -> list[contract.SnapshotPrice]:
    """Return a price version as the gateway sees it."""
    return [
        contract.SnapshotPrice(price_version_id, contract.Meter(line.meter), line.amount_fen, line.per_units)
        for line in price_lines(session, price_version_id)
    ]


def check_records(session: Session, records: Sequence[contract.UsageRecord]) -> dict[int, str]:
    """Return the refusal codes by index of records whose allowance does not fit them."""
    wanted = {record.allowance_id for record in records}
    # Held until the records are stored, so that on PostgreSQL no slice closes between the look and the record.
    query = select(Allowance).where(Allowance.id.in_(wanted)).order_by(Allowance.id).with_for_update(read=True)
    found = {row.id: row for row in session.scalars(query)}
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
    found: list[Rated] = [(usage, allowance, tranche) for usage, allowance, tranche in session.execute(query)]
    prices = {usage.price_version_id for usage, _, _ in found}
    listed = {price: list_contract_prices(session, price) for price in prices}
    lines = _find_lines(session, found, now)
    for usage, allowance, tranche in found:
        cost = _cost(usage, listed[usage.price_version_id])
        allowance.spent_ufen += cost
        session.add(_build_rated(usage, tranche, lines[tranche.id, usage.version_id], cost_ufen=cost, now=now))
    session.flush()
    return len(found)


def find_bill_line(session: Session, tranche: UsageTranche, *, subsidised: bool, now: datetime) -> BillLine:
    """Return the line of payer x price version x rule version x month, made on first use."""
    rule_version_id = tranche.rule_version_id if subsidised else None
    key = name_bill_line(tranche, subsidised=subsidised)
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


def name_bill_line(tranche: UsageTranche, *, subsidised: bool) -> str:
    """Return the id of the line that a tranche's calls fall on."""
    rule_version_id = tranche.rule_version_id if subsidised else None
    return derive_id("bil", tranche.organisation_id, tranche.price_version_id, rule_version_id or "", tranche.month)


def is_subsidised(session: Session, tranche: UsageTranche, version_id: str) -> bool:
    """Say whether a tranche's voucher pays for calls of a version: roll-out means a model made from a base.

    Where the rule asks for a filing, that of the root base counts as it stood when the tranche's money was held.
    """
    version = session.get(ModelVersion, version_id)
    if tranche.rule_version_id is None or version is None or version.base_version_id is None:
        return False
    rule = read_body(session.get_one(RuleVersion, tranche.rule_version_id).body)
    return not rule.needs_filed_base or standing_of(session, version.weights_digest, tranche.opened_at).valid


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


def _find_lines(session: Session, found: Sequence[Rated], now: datetime) -> dict[tuple[str, str], BillLine]:
    """Return the bill line of each pair of tranche and model version that occurs."""
    pairs = {(tranche.id, usage.version_id): (tranche, usage.version_id) for usage, _, tranche in found}
    lines = {}
    for key, (tranche, version_id) in sorted(pairs.items()):
        subsidised = is_subsidised(session, tranche, version_id)
        lines[key] = find_bill_line(session, tranche, subsidised=subsidised, now=now)
    return lines


def _cost(usage: Usage, prices: Sequence[contract.SnapshotPrice]) -> int:
    return contract.cost_ufen(prices, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)


def _build_rated(usage: Usage, tranche: UsageTranche, line: BillLine, *, cost_ufen: int, now: datetime) -> RatedUsage:
    return RatedUsage(
        request_id=usage.request_id,
        attempt=usage.attempt,
        organisation_id=usage.organisation_id,
        allowance_id=usage.allowance_id,
        tranche_id=tranche.id,
        bill_line_id=line.id,
        subsidised=line.rule_version_id is not None,
        cost_ufen=cost_ufen,
        rated_at=now,
    )
