"""Corrects a settled bill: version n+1 posts the differences; nothing that was posted before changes.

It leaves what moves to `correction_money`. A correction above the limit waits for a second person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import (
    ConflictError,
    FourEyesError,
    InvalidValueError,
    NotFoundError,
    ReasonMissingError,
)
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.periods import month_bounds, month_key
from hub.ledger.rules import PeriodClosedError, derive_id
from hub.orders.correction_money import LineChange, post_changes, work_out
from hub.orders.parts import build_parts
from hub.orders.settlement import METERED, check_complete, check_metered, lock_order, read_fault
from hub.orders.tables import BillVersion, BillVersionState, Charge, Fault, Order, OrderState
from hub.vouchers.service import claw_back

APPROVAL_LIMIT_FEN = 100_000
"""A correction of at most 1,000 yuan is posted by one person; above it a second one approves (our default)."""


@dataclass(frozen=True)
class Wanted:
    """What the bill should say: other metered figures, or nothing at all because of `fault` (platform or provider).

    `month`, where given, must be the open one: differences are never posted into a closed month.
    """

    reason: str
    metered: Mapping[str, int] | None = None
    fault: str | None = None
    month: str | None = None


def propose_correction(session: Session, actor: Actor, order_id: str, wanted: Wanted, *, now: datetime) -> BillVersion:
    """Correct a closed order's bill at its pinned price and rules (operator); posted at once up to the limit.

    Raises:
        ReasonMissingError, PeriodClosedError, MeterRefusedError: what was asked cannot be.
        ConflictError: the order still runs, another correction waits, or nothing would change.
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    actor.require(Role.OPERATOR)
    metered, fault = _check_wanted(wanted, now)
    order = lock_order(session, order_id)
    _check_correctable(session, order)
    changes = work_out(session, order, metered=metered)
    if not any(change.changes_anything for change in changes):
        raise ConflictError(
            f"Order '{order.id}' is billed so already; there is nothing to correct.",
            f"订单“{order.id}”的账单已是该结果，无需更正。",
        )
    version = _build_version(order, actor, wanted, metered=metered, fault=fault, now=now)
    _note_sums(version, changes)
    session.add(version)
    session.flush()
    if max(abs(version.fee_fen), abs(version.voucher_fen), abs(version.cash_fen)) > APPROVAL_LIMIT_FEN:
        _record(session, "correction.proposed", version, actor_id=actor.user_id, now=now)
    else:
        _post(session, order, version, changes, actor_id=actor.user_id, now=now)
    return version


def decide_correction(
    session: Session, actor: Actor, version_id: str, *, approve: bool, reason: str, now: datetime
) -> BillVersion:
    """Approve or refuse a waiting correction, by another person than its author. Deciding again changes nothing.

    Raises:
        FourEyesError: the author decides. ReasonMissingError: a refusal without reason.
        ConflictError: it was decided otherwise.
    """
    actor.require(Role.OPERATOR)
    found = session.get(BillVersion, version_id)
    if found is None:
        raise NotFoundError.of("correction", version_id)
    order = lock_order(session, found.order_id)
    version = session.get_one(BillVersion, version_id, with_for_update=True, populate_existing=True)
    if version.state is not BillVersionState.PROPOSED:
        return _check_same(version, approve)
    _check_decision(version, actor, approve, reason)
    version.decided_by, version.decided_at, version.decision_reason = actor.user_id, now, reason.strip() or None
    if approve:
        changes = work_out(session, order, metered=version.metered)
        _note_sums(version, changes)
        _post(session, order, version, changes, actor_id=actor.user_id, now=now)
    else:
        version.state = BillVersionState.REFUSED
        _record(session, "correction.refused", version, actor_id=actor.user_id, now=now)
    session.flush()
    return version


def list_corrections(
    session: Session, *, order_id: str | None = None, state: BillVersionState | None = None
) -> list[BillVersion]:
    """Return corrections, newest first (the caller authorises)."""
    query = select(BillVersion)
    if order_id is not None:
        query = query.where(BillVersion.order_id == order_id)
    if state is not None:
        query = query.where(BillVersion.state == state)
    return list(session.scalars(query.order_by(BillVersion.id.desc()).limit(500)))


def _check_wanted(wanted: Wanted, now: datetime) -> tuple[dict[str, int], Fault | None]:
    if not wanted.reason.strip():
        raise ReasonMissingError(
            "A correction needs a reason; say what was wrong, as the firm will read it.",
            "更正须填写原因，企业会看到该说明。",
            field="reason",
        )
    if wanted.month is not None and wanted.month != month_key(now):
        month_bounds(wanted.month)
        raise PeriodClosedError(
            f"Month {wanted.month} is closed and never changes; differences are posted in {month_key(now)}.",
            f"账期 {wanted.month} 已关闭，不再变更；差额记入 {month_key(now)}。",
            field="month",
        )
    if (wanted.fault is None) == (wanted.metered is None):
        raise InvalidValueError(
            "Give either the right figures (metered) or whose fault a full refund is (fault), not both.",
            "请填写正确的计量值（metered）或全额退款的责任方（fault），二者择一。",
            field="metered",
        )
    if wanted.fault is None:
        metered = dict(wanted.metered or {})
        check_metered(metered)
        check_complete(metered)
        return {name: metered[name] for name in METERED}, None
    fault = read_fault(wanted.fault)
    if fault not in (Fault.PLATFORM, Fault.PROVIDER):
        raise InvalidValueError(
            f"Fault '{fault}' pays what was metered; a full refund needs platform or provider.",
            f"责任方“{fault}”按计量付费；全额退款须为 platform 或 provider。",
            field="fault",
        )
    return dict.fromkeys((str(name) for name in METERED), 0), fault


def _check_correctable(session: Session, order: Order) -> None:
    if order.state is OrderState.HELD:
        raise ConflictError(
            f"Order '{order.id}' is not settled yet; settle or refund it instead.",
            f"订单“{order.id}”尚未结算，请先结算或退款。",
        )
    waiting = session.scalar(
        select(BillVersion.id).where(BillVersion.order_id == order.id, BillVersion.state == BillVersionState.PROPOSED)
    )
    if waiting is not None:
        raise ConflictError(
            f"Correction '{waiting}' of this order waits for approval; decide on it first.",
            f"该订单的更正“{waiting}”待批准，请先处理。",
        )


def _build_version(
    order: Order, actor: Actor, wanted: Wanted, *, metered: dict[str, int], fault: Fault | None, now: datetime
) -> BillVersion:
    return BillVersion(
        id=new_id("bvr"),
        organisation_id=order.organisation_id,
        order_id=order.id,
        state=BillVersionState.PROPOSED,
        fault=str(fault) if fault else None,
        metered=metered,
        reason=wanted.reason.strip(),
        advanced_fen=0,
        proposed_by=actor.user_id,
        proposed_at=now,
    )


def _note_sums(version: BillVersion, changes: Sequence[LineChange]) -> None:
    version.voucher_fen = sum(change.voucher_fen for change in changes)
    version.cash_fen = sum(change.cash_fen for change in changes)
    version.fee_fen = version.voucher_fen + version.cash_fen


def _post(
    session: Session,
    order: Order,
    version: BillVersion,
    changes: Sequence[LineChange],
    *,
    actor_id: str,
    now: datetime,
) -> None:
    highest = session.scalar(select(func.max(BillVersion.number)).where(BillVersion.order_id == order.id))
    number = (highest or 1) + 1
    group_id = derive_id("grp", "correct", order.id, str(number))
    keep = version.fault == Fault.PLATFORM
    posted = post_changes(session, order, changes, group_id=group_id, keep_receivers=keep, actor_id=actor_id, now=now)
    for change, given in zip(changes, posted.parts, strict=True):
        if change.changes_anything:
            charge = _build_charge(order, change, number=number, group_id=group_id, now=now)
            charge.parts = build_parts(charge.id, given)
            session.add(charge)
            session.flush()
            _claw_back(session, version, change, charge, actor_id=actor_id, now=now)
    order.voucher_fen += version.voucher_fen
    order.cash_fen += version.cash_fen
    order.charged_fen += version.fee_fen
    version.number, version.state, version.group_id = number, BillVersionState.POSTED, group_id
    version.advanced_fen = posted.advanced_fen
    session.flush()
    _record(session, "bill.corrected", version, actor_id=actor_id, now=now)


def _claw_back(
    session: Session, version: BillVersion, change: LineChange, charge: Charge, *, actor_id: str, now: datetime
) -> None:
    """Tell the voucher room what came back to a grant: a claim made before then carries it as a negative line."""
    if change.voucher_fen < 0:
        claw_back(
            session,
            grant_id=change.line.covers[0].grant_id,
            charge_id=charge.id,
            correction_id=version.id,
            amount_fen=-change.voucher_fen,
            reason=version.reason,
            actor_id=actor_id,
            now=now,
        )


def _build_charge(order: Order, change: LineChange, *, number: int, group_id: str, now: datetime) -> Charge:
    line = change.line
    cover = line.covers[0] if line.covers else None
    return Charge(
        id=derive_id("chg", order.id, str(line.position), str(number)),
        organisation_id=order.organisation_id,
        month=month_key(now),
        version=number,
        corrects_month=change.month or month_key(order.closed_at or now),
        order_id=order.id,
        meter=line.meter,
        title_zh=line.title_zh,
        title_en=line.title_en,
        quantity=change.quantity,
        price_version_id=line.price_version_id,
        amount_fen=line.amount_fen,
        per_units=line.per_units,
        fee_fen=change.fee_fen,
        voucher_fen=change.voucher_fen,
        cash_fen=change.cash_fen,
        programme=cover.programme if cover else None,
        rule_version_id=cover.rule_version_id if cover else None,
        grant_id=cover.grant_id if cover else None,
        share_num=cover.share_num if cover else 0,
        share_den=cover.share_den if cover else 1,
        group_id=group_id,
        charged_at=now,
    )


def _check_same(version: BillVersion, approve: bool) -> BillVersion:
    if (version.state is BillVersionState.POSTED) != approve:
        raise ConflictError(
            f"Correction '{version.id}' was {version.state} before; it is decided once.",
            f"更正“{version.id}”已处理（{version.state}），只能处理一次。",
        )
    return version


def _check_decision(version: BillVersion, actor: Actor, approve: bool, reason: str) -> None:
    if actor.user_id == version.proposed_by:
        raise FourEyesError(
            "You proposed this correction; another operator decides on it.",
            "该更正由您提出，须由另一名运营人员审批。",
        )
    if not approve and not reason.strip():
        raise ReasonMissingError(
            "A refusal needs a reason; say what is wrong with the correction.", "驳回须填写原因。", field="reason"
        )


def _record(session: Session, topic: str, version: BillVersion, *, actor_id: str, now: datetime) -> None:
    record_event(
        session,
        topic,
        version.order_id,
        organisation_id=version.organisation_id,
        actor_id=actor_id,
        now=now,
        bill_version_id=version.id,
        number=version.number,
        fault=version.fault,
        reason=version.reason,
        fee_fen=version.fee_fen,
        voucher_fen=version.voucher_fen,
        cash_fen=version.cash_fen,
        advanced_fen=version.advanced_fen,
    )
