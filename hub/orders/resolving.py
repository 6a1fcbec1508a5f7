"""Resolves tranches once all their slices are closed: posts whole fen on bill lines and releases the rest.

It leaves opening them to `tranches` and the cost of calls to `rating`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from hub.events.service import SYSTEM, record_event
from hub.ledger.movements import resolve
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import Posted, find_transfers, post_group
from hub.orders.parts import Given, build_parts, give_out, payout_movements
from hub.orders.rating import rate_usage
from hub.orders.rules import LineState, Paid, Subsidy, resolve_tranche
from hub.orders.tables import Charge
from hub.orders.tranches import tranche_hold_id, usage_clearing
from hub.orders.usage_tables import (
    Allowance,
    AllowanceState,
    BillLine,
    BillPart,
    RatedUsage,
    TrancheState,
    UsageTranche,
)
from hub.prices.service import find_price_version

MAX_RESOLVED = 100


@dataclass(frozen=True)
class _Resolved:
    line: BillLine
    paid: Paid
    shares: list[Given]


def settle_tranches(session: Session, now: datetime) -> int:
    """Rate what arrived and resolve tranches whose slices are all closed; return how many were resolved. Idempotent."""
    rate_usage(session, now)
    still_open = exists().where(Allowance.tranche_id == UsageTranche.id, Allowance.state == AllowanceState.OPEN)
    due = session.scalars(
        select(UsageTranche)
        .where(UsageTranche.state == TrancheState.OPEN, ~still_open)
        .order_by(UsageTranche.id)
        .limit(MAX_RESOLVED)
        .with_for_update(skip_locked=True)
    ).all()
    # Asked again under the lock: on PostgreSQL a slice may have been cut between the look and the lock.
    sliced = _list_sliced(session, due)
    free = [tranche for tranche in due if tranche.id not in sliced]
    for tranche in free:
        _resolve(session, tranche, now)
    return len(free)


def read_received(session: Session, bill_line_id: str) -> dict[tuple[str, str], int]:
    """Return what every party has received of a bill line so far, in fen."""
    parts = session.scalars(select(BillPart).where(BillPart.bill_line_id == bill_line_id))
    return {(part.party, part.organisation_id): part.amount_fen for part in parts}


def add_received(session: Session, bill_line_id: str, shares: Sequence[Given]) -> None:
    """Count shares of a bill line to what their parties received; negative ones were taken back."""
    for given in shares:
        part = session.get(BillPart, (bill_line_id, given.party, given.organisation_id))
        if part is None:
            part = BillPart(
                bill_line_id=bill_line_id, party=given.party, organisation_id=given.organisation_id, amount_fen=0
            )
            session.add(part)
        part.amount_fen += given.amount_fen


def _list_sliced(session: Session, tranches: Sequence[UsageTranche]) -> set[str]:
    """Return the ids of those tranches that have an open slice."""
    wanted = [tranche.id for tranche in tranches]
    query = select(Allowance.tranche_id).where(Allowance.tranche_id.in_(wanted), Allowance.state == AllowanceState.OPEN)
    return set(session.scalars(query)) if wanted else set()


def _resolve(session: Session, tranche: UsageTranche, now: datetime) -> None:
    group_id = derive_id("grp", "close", tranche.id)
    resolved = _resolve_lines(session, tranche)
    movements = _release(session, tranche, resolved)
    clearing = usage_clearing(session, tranche.organisation_id, now)
    for item in resolved:
        key = derive_id("key", tranche.id, item.line.id)
        movements += payout_movements(session, clearing, item.shares, key=key, now=now)
    post_group(session, group_id, movements, Posted("tranche", tranche.id, SYSTEM, now))
    for item in resolved:
        _advance(session, tranche, item, group_id=group_id, now=now)
    tranche.state, tranche.resolved_at = TrancheState.RESOLVED, now
    session.flush()
    if resolved:
        record_event(
            session,
            "tranche.resolved",
            tranche.id,
            organisation_id=tranche.organisation_id,
            actor_id=SYSTEM,
            now=now,
            fee_fen=sum(item.paid.fee_fen for item in resolved),
        )


def _resolve_lines(session: Session, tranche: UsageTranche) -> list[_Resolved]:
    left_fen, subsidy_left_fen = tranche.held_fen, tranche.voucher_held_fen
    resolved = []
    for line, used_ufen in _list_lines(session, tranche):
        line.exact_ufen += used_ufen
        subsidy = Subsidy(line.share_num, line.share_den, subsidy_left_fen) if line.rule_version_id else None
        state = LineState(line.exact_ufen, line.posted_fen, line.subsidised_fen)
        paid = resolve_tranche(state, left_fen=left_fen, subsidy=subsidy)
        left_fen -= paid.fee_fen
        subsidy_left_fen -= paid.voucher_fen
        resolved.append(_Resolved(line, paid, _give_out(session, line, paid.fee_fen)))
    return resolved


def _list_lines(session: Session, tranche: UsageTranche) -> list[tuple[BillLine, int]]:
    """Return the lines that a tranche's usage falls on with its exact sum on each, the subsidised one first."""
    sums = session.execute(
        select(RatedUsage.bill_line_id, func.sum(RatedUsage.cost_ufen))
        .where(RatedUsage.tranche_id == tranche.id)
        .group_by(RatedUsage.bill_line_id)
    ).all()
    lines = [
        (session.get_one(BillLine, key, with_for_update=True, populate_existing=True), int(total))
        for key, total in sorted(sums)
    ]
    return sorted(lines, key=lambda pair: (pair[0].rule_version_id is None, pair[0].id))


def _give_out(session: Session, line: BillLine, fee_fen: int) -> list[Given]:
    price = find_price_version(session, line.price_version_id)
    received = read_received(session, line.id)
    return give_out(
        session,
        fee_fen,
        seller_id=price.organisation_id,
        split_terms_id=price.split_terms_id,
        payer_id=line.organisation_id,
        # Not what was posted: where the platform bore a refund, the receivers kept more than that.
        before_fen=sum(received.values()),
        received=received,
    )


def _release(session: Session, tranche: UsageTranche, resolved: Sequence[_Resolved]) -> list[Movement]:
    amounts = {
        "voucher": sum(item.paid.voucher_fen for item in resolved),
        "cash": sum(item.paid.cash_fen for item in resolved),
    }
    held = find_transfers(session, [tranche_hold_id(tranche, purse) for purse in amounts])
    return [
        resolve(derive_id("tra", "resolve", key), held[key], amount_fen=amount, code=f"{purse}_settled")
        for purse, amount in amounts.items()
        if (key := tranche_hold_id(tranche, purse)) in held
    ]


def _advance(session: Session, tranche: UsageTranche, item: _Resolved, *, group_id: str, now: datetime) -> None:
    line = item.line
    line.posted_fen += item.paid.fee_fen
    line.subsidised_fen += item.paid.voucher_fen
    add_received(session, line.id, item.shares)
    if item.paid.fee_fen:
        session.add(_build_charge(tranche, item, group_id=group_id, now=now))


def _build_charge(tranche: UsageTranche, item: _Resolved, *, group_id: str, now: datetime) -> Charge:
    line, subsidised = item.line, item.paid.voucher_fen > 0
    charge = Charge(
        id=derive_id("chg", tranche.id, line.id),
        organisation_id=line.organisation_id,
        month=line.month,
        bill_line_id=line.id,
        tranche_id=tranche.id,
        meter="calls",
        title_zh="模型调用",
        title_en="Hosted calls",
        quantity=0,
        price_version_id=line.price_version_id,
        fee_fen=item.paid.fee_fen,
        voucher_fen=item.paid.voucher_fen,
        cash_fen=item.paid.cash_fen,
        programme=line.programme if subsidised else None,
        rule_version_id=line.rule_version_id if subsidised else None,
        grant_id=tranche.grant_id if subsidised else None,
        share_num=line.share_num,
        share_den=line.share_den,
        group_id=group_id,
        charged_at=now,
    )
    charge.parts = build_parts(charge.id, item.shares)
    return charge
