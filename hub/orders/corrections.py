"""Corrects a settled order's bill: version n+1 posts the differences; nothing that was posted before changes.

It leaves what moves to `correction_money` and a second person's approval above the limit to `deciding`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, InvalidValueError
from hub.ids import new_id
from hub.ledger.periods import month_key
from hub.ledger.rules import derive_id
from hub.orders.correction_money import LineChange, post_changes, work_out
from hub.orders.correction_steps import (
    check_month,
    check_none_waits,
    check_reason,
    needs_second_person,
    next_number,
    note_sums,
    record_correction,
)
from hub.orders.elapsed import ELAPSED
from hub.orders.parts import build_parts
from hub.orders.rules import MeterRefusedError
from hub.orders.settlement import METERED, check_complete, check_metered, lock_order, read_fault
from hub.orders.tables import BillVersion, BillVersionState, Charge, Fault, Order, OrderState
from hub.vouchers.service import claw_back


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
    _check_closed(order)
    metered = _leave_out_elapsed(order, metered)
    version = _build_version(order, actor, wanted, metered=metered, fault=fault, now=now)
    check_none_waits(session, version)
    changes = work_out(session, order, metered=version.metered, fault=version.fault)
    if not any(change.changes_anything or change.elapsed_fen for change in changes):
        raise ConflictError(
            f"Order '{order.id}' is billed so already; there is nothing to correct.",
            f"订单“{order.id}”的账单已是该结果，无需更正。",
        )
    _note_sums(version, changes)
    session.add(version)
    session.flush()
    if needs_second_person(session, version):
        record_correction(session, "correction.proposed", version, actor_id=actor.user_id, now=now)
    else:
        _post(session, order, version, changes, actor_id=actor.user_id, now=now)
    return version


def post_order_version(session: Session, order: Order, version: BillVersion, *, actor_id: str, now: datetime) -> None:
    """Post a correction whose second person approved; what it changes is worked out anew. The order is locked.

    Raises:
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    changes = work_out(session, order, metered=version.metered, fault=version.fault)
    _note_sums(version, changes)
    _post(session, order, version, changes, actor_id=actor_id, now=now)


def _check_wanted(wanted: Wanted, now: datetime) -> tuple[dict[str, int], Fault | None]:
    check_reason(wanted.reason)
    check_month(wanted.month, now)
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
        return metered, None
    fault = read_fault(wanted.fault)
    if fault not in (Fault.PLATFORM, Fault.PROVIDER):
        raise InvalidValueError(
            f"Fault '{fault}' pays what was metered; a full refund needs platform or provider.",
            f"责任方“{fault}”按计量付费；全额退款须为 platform 或 provider。",
            field="fault",
        )
    return dict.fromkeys((str(name) for name in METERED), 0), fault


def _check_closed(order: Order) -> None:
    if order.state is OrderState.HELD:
        raise ConflictError(
            f"Order '{order.id}' is not settled yet; settle or refund it instead.",
            f"订单“{order.id}”尚未结算，请先结算或退款。",
        )


def _leave_out_elapsed(order: Order, metered: dict[str, int]) -> dict[str, int]:
    """Return the figures that are billed; the time that passed may be repeated as it was, and is never another."""
    passed = (order.metered or {}).get(ELAPSED, 0)
    if metered.get(ELAPSED, passed) != passed:
        raise MeterRefusedError(
            f"{ELAPSED} = {metered[ELAPSED]}: {passed} ms passed, and a correction does not change that; leave it out.",
            f"{ELAPSED} = {metered[ELAPSED]}：实际经过 {passed} 毫秒，更正不改变该值，请勿填写。",
            field=ELAPSED,
        )
    return {name: figure for name, figure in metered.items() if name != ELAPSED}


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
    note_sums(
        version,
        voucher_fen=sum(change.voucher_fen for change in changes),
        cash_fen=sum(change.cash_fen for change in changes),
        elapsed_fen=sum(change.elapsed_fen for change in changes),
    )


def _post(
    session: Session,
    order: Order,
    version: BillVersion,
    changes: Sequence[LineChange],
    *,
    actor_id: str,
    now: datetime,
) -> None:
    number = next_number(session, version)
    group_id = derive_id("grp", "correct", order.id, str(number))
    keep = version.fault == Fault.PLATFORM
    posted = post_changes(session, order, changes, group_id=group_id, keep_receivers=keep, actor_id=actor_id, now=now)
    for change, given in zip(changes, posted.parts, strict=True):
        # Also where only the receivers' parts move, or the next correction would move them again.
        if change.changes_anything or any(part.amount_fen for part in given):
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
    record_correction(session, "bill.corrected", version, actor_id=actor_id, now=now)


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
