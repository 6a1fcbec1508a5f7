"""The lines of a statement: settled order lines, corrections of earlier ones, bill lines of calls, late top-ups.

It leaves balances to `balances` and the shape on the wire to `api`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.service import name_of
from hub.catalogue.tables import ModelVersion
from hub.ledger.periods import month_bounds
from hub.metering.tables import Usage
from hub.orders.rules import UFEN_PER_FEN
from hub.orders.tables import BillLine, Charge, ChargePart, RatedUsage, UsageTranche
from hub.orders.usage_tables import TrancheState
from hub.prices.service import price_lines
from hub.reports.call_corrections import list_correcting_charges, sum_corrected
from hub.reports.top_ups import list_late_top_ups
from hub.vouchers.tables import Programme, RuleVersion


@dataclass(frozen=True)
class UnitPrice:
    """`amount_fen` for each `per_units` of a meter."""

    meter: str
    amount_fen: int
    per_units: int


@dataclass(frozen=True)
class Part:
    """What one party received of a line, in fen."""

    party: str
    organisation_id: str
    amount_fen: int


@dataclass(frozen=True)
class VoucherShare:
    """What a voucher paid of a line: programme, rule version, share, fen."""

    programme: str
    title_zh: str
    title_en: str
    rule_version_id: str
    rule_number: int
    share_num: int
    share_den: int
    amount_fen: int


@dataclass(frozen=True)
class StatementLine:
    """One line: list price = voucher + self-paid. `running_fen` adds up self-paid from the first line on.

    `line_id` opens the raw meter records behind it. A correction has a `version` above 1 and names the month that it
    corrects. For hosted calls `exact_ufen` is the exact sum behind the posted fen, `carried_ufen` the remainder below a
    fen that carries on, and `pending_ufen` what is used but not posted yet.
    """

    kind: str
    line_id: str
    source_id: str
    version: int
    corrects_month: str | None
    at: datetime
    title_zh: str
    title_en: str
    quantities: dict[str, int]
    price_version_id: str
    prices: list[UnitPrice]
    list_fen: int
    voucher: VoucherShare | None
    self_paid_fen: int
    running_fen: int
    exact_ufen: int
    carried_ufen: int
    pending_ufen: int
    parts: list[Part]


def list_lines(session: Session, organisation_id: str, month: str) -> list[StatementLine]:
    """Return the lines of a Shanghai month in order, with the running sum of what the firm pays itself."""
    lines = [
        *_order_lines(session, organisation_id, month),
        *_call_lines(session, organisation_id, month),
        *_correction_lines(session, organisation_id, month),
        *_late_top_ups(session, organisation_id, month),
    ]
    running = 0
    finished = []
    for line in sorted(lines, key=lambda line: (line.at, line.source_id)):
        running += line.self_paid_fen
        finished.append(StatementLine(**{**vars(line), "running_fen": running}))
    return finished


def _order_lines(session: Session, organisation_id: str, month: str) -> list[StatementLine]:
    query = select(Charge).where(
        Charge.organisation_id == organisation_id, Charge.month == month, Charge.order_id.is_not(None)
    )
    return [
        _show_charge(
            session,
            charge,
            quantities={charge.meter: charge.quantity},
            prices=[UnitPrice(charge.meter, charge.amount_fen or 0, charge.per_units or 1)],
        )
        for charge in session.scalars(query.order_by(Charge.id))
    ]


def _correction_lines(session: Session, organisation_id: str, month: str) -> list[StatementLine]:
    return [
        _show_charge(session, charge, quantities={}, prices=_list_prices(session, charge.price_version_id))
        for charge in list_correcting_charges(session, organisation_id, month)
    ]


def _show_charge(
    session: Session, charge: Charge, *, quantities: dict[str, int], prices: list[UnitPrice]
) -> StatementLine:
    return StatementLine(
        kind="order" if charge.version == 1 else "correction",
        line_id=charge.id,
        source_id=charge.order_id or charge.bill_line_id or "",
        version=charge.version,
        corrects_month=charge.corrects_month,
        at=charge.charged_at,
        title_zh=charge.title_zh,
        title_en=charge.title_en,
        quantities=quantities,
        price_version_id=charge.price_version_id,
        prices=prices,
        list_fen=charge.fee_fen,
        voucher=_describe_voucher(session, charge, charge.voucher_fen),
        self_paid_fen=charge.cash_fen,
        running_fen=0,
        exact_ufen=0,
        carried_ufen=0,
        pending_ufen=0,
        parts=[Part(part.party, part.organisation_id, part.amount_fen) for part in charge.parts],
    )


def _call_lines(session: Session, organisation_id: str, month: str) -> list[StatementLine]:
    query = select(BillLine).where(BillLine.organisation_id == organisation_id, BillLine.month == month)
    lines = []
    for line in session.scalars(query.order_by(BillLine.id)):
        names = ", ".join(_list_models(session, line.id)) or line.price_version_id
        corrected, carried = sum_corrected(session, line.id), line.exact_ufen - line.posted_fen * UFEN_PER_FEN
        billed, paid = line.posted_fen - corrected.fee_fen, line.subsidised_fen - corrected.voucher_fen
        lines.append(
            StatementLine(
                kind="calls",
                line_id=line.id,
                source_id=line.id,
                version=1,
                corrects_month=None,
                at=line.created_at,
                title_zh=f"模型调用 · {names}",
                title_en=f"Hosted calls · {names}",
                quantities=_sum_tokens(session, line.id),
                price_version_id=line.price_version_id,
                prices=_list_prices(session, line.price_version_id),
                list_fen=billed,
                voucher=_describe_voucher(session, line, paid),
                self_paid_fen=billed - paid,
                running_fen=0,
                exact_ufen=billed * UFEN_PER_FEN + carried,
                carried_ufen=carried,
                pending_ufen=_sum_pending(session, line.id),
                parts=_sum_parts(session, line.id),
            )
        )
    return lines


def _late_top_ups(session: Session, organisation_id: str, month: str) -> list[StatementLine]:
    start, end = month_bounds(month)
    return [
        StatementLine(
            kind="top_up",
            line_id=transfer.id,
            source_id=line.id,
            version=1,
            corrects_month=line.month,
            at=transfer.recorded_at,
            title_zh=f"券补付 · 账期 {line.month} 的模型调用",
            title_en=f"Voucher top-up · hosted calls of {line.month}",
            quantities={},
            price_version_id=line.price_version_id,
            prices=[],
            list_fen=0,
            voucher=_describe_voucher(session, line, transfer.amount_fen),
            self_paid_fen=-transfer.amount_fen,
            running_fen=0,
            exact_ufen=0,
            carried_ufen=0,
            pending_ufen=0,
            parts=[],
        )
        for transfer, line in list_late_top_ups(session, organisation_id, start, end)
    ]


def _list_prices(session: Session, price_version_id: str) -> list[UnitPrice]:
    return [UnitPrice(line.meter, line.amount_fen, line.per_units) for line in price_lines(session, price_version_id)]


def _sum_parts(session: Session, bill_line_id: str) -> list[Part]:
    """Return what each party received by the first bills of a line; corrections show theirs themselves."""
    query = (
        select(ChargePart.party, ChargePart.organisation_id, func.sum(ChargePart.amount_fen))
        .join(Charge, Charge.id == ChargePart.charge_id)
        .where(Charge.bill_line_id == bill_line_id, Charge.version == 1)
        .group_by(ChargePart.party, ChargePart.organisation_id)
        .order_by(ChargePart.party, ChargePart.organisation_id)
    )
    return [Part(party, owner, int(amount)) for party, owner, amount in session.execute(query) if amount]


def _describe_voucher(session: Session, row: Charge | BillLine, amount_fen: int) -> VoucherShare | None:
    if row.rule_version_id is None:
        return None
    rule = session.get_one(RuleVersion, row.rule_version_id)
    programme = session.get_one(Programme, rule.programme_id)
    return VoucherShare(
        programme=programme.code,
        title_zh=programme.title_zh,
        title_en=programme.title_en,
        rule_version_id=rule.id,
        rule_number=rule.number,
        share_num=row.share_num,
        share_den=row.share_den,
        amount_fen=amount_fen,
    )


def _list_models(session: Session, bill_line_id: str) -> Sequence[str]:
    versions = session.scalars(
        select(ModelVersion)
        .join(Usage, Usage.version_id == ModelVersion.id)
        .join(RatedUsage, (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt))
        .where(RatedUsage.bill_line_id == bill_line_id)
        .distinct()
    )
    return sorted(name_of(session, version) for version in versions)


def _sum_tokens(session: Session, bill_line_id: str) -> dict[str, int]:
    """Return tokens by meter as they are priced: cached ones apart from the rest of the prompt."""
    joined = (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt)
    sums = session.execute(
        select(func.sum(Usage.prompt_tokens), func.sum(Usage.cached_tokens), func.sum(Usage.completion_tokens))
        .join(RatedUsage, joined)
        .where(RatedUsage.bill_line_id == bill_line_id)
    ).one()
    prompt, cached, completion = (int(total or 0) for total in sums)
    return {"prompt": prompt - cached, "cached": cached, "completion": completion}


def _sum_pending(session: Session, bill_line_id: str) -> int:
    pending = session.scalar(
        select(func.coalesce(func.sum(RatedUsage.cost_ufen), 0))
        .join(UsageTranche, UsageTranche.id == RatedUsage.tranche_id)
        .where(RatedUsage.bill_line_id == bill_line_id, UsageTranche.state == TrancheState.OPEN)
    )
    return int(pending or 0)
