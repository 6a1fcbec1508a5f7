"""Ends an order once: settles it on what was metered, or refunds it by fault; the rest of every hold is released.

It leaves who receives what to `parts` and the arithmetic to `rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.errors import ConflictError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ledger.movements import resolve
from hub.ledger.periods import month_key
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import Posted, find_transfers, post_group
from hub.orders.elapsed import ELAPSED, due_fen, pay_elapsed
from hub.orders.leases import revive_holds
from hub.orders.parts import Given, build_parts, give_out, payout_movements
from hub.orders.placing import CASH, VOUCHER, clearing_account, hold_id
from hub.orders.rules import MeterRefusedError, Paid, Subsidy, settle_line
from hub.orders.tables import Charge, Fault, Order, OrderState, Quote, QuoteLine
from hub.prices.rules import fee_fen
from hub.prices.tables import Meter

METERED = (Meter.DEVICE_MS, Meter.TRAINED_TOKENS)


@dataclass(frozen=True)
class _Settled:
    line: QuoteLine
    quantity: int
    paid: Paid
    shares: list[Given]


def settle_order(session: Session, order_id: str, *, metered: Mapping[str, int], now: datetime) -> Order:
    """Charge what was metered, at most what was quoted, and release the rest. Settling again changes nothing.

    `metered` holds `device_ms` (billable) and `trained_tokens`; `elapsed_device_ms`, where given, is what the
    provider is paid for, and the platform bears the difference.

    Raises:
        MeterRefusedError: a figure missing, unknown or negative.
        ConflictError: the order was refunded.
    """
    order = lock_order(session, order_id)
    check_metered(metered)
    check_complete(metered)
    if order.state is OrderState.REFUNDED:
        raise ConflictError(
            f"Order '{order.id}' was refunded ({order.reason_code}); it cannot be settled.",
            f"订单“{order.id}”已退款（{order.reason_code}），不能结算。",
        )
    if order.state is OrderState.HELD:
        _close(session, order, metered=metered, state=OrderState.SETTLED, now=now)
        _record(session, "order.settled", order, now)
    return order


def refund_order(
    session: Session,
    order_id: str,
    *,
    fault: str,
    reason_code: str,
    now: datetime,
    metered: Mapping[str, int] | None = None,
) -> Order:
    """End an order that failed: platform or provider fault releases everything, user fault or cancel pays the meter.

    On platform fault the provider is still paid for `elapsed_device_ms`, by the platform. Again: changes nothing.

    Raises:
        ConflictError: the order was settled.
    """
    order = lock_order(session, order_id)
    check_metered(metered or {})
    if order.state is OrderState.SETTLED:
        raise ConflictError(
            f"Order '{order.id}' was settled; a settled order is corrected by a new charge, not refunded.",
            f"订单“{order.id}”已结算，不能退款。",
        )
    if order.state is OrderState.HELD:
        order.fault, order.reason_code = read_fault(fault), reason_code
        charged = metered or {} if order.fault in (Fault.USER, Fault.CANCEL) else _without_fee(order.fault, metered)
        _close(session, order, metered=charged, state=OrderState.REFUNDED, now=now)
        _record(session, "order.refunded", order, now)
    return order


def read_fault(fault: str) -> Fault:
    """Return the fault; `customer` is another word for `user`.

    Raises:
        MeterRefusedError: an unknown word.
    """
    words = {"customer": Fault.USER, **{str(known): known for known in Fault}}
    if fault not in words:
        raise MeterRefusedError(
            f"Fault '{fault}' is unknown; use {', '.join(Fault)}.",
            f"责任方“{fault}”未知，可用 {', '.join(Fault)}。",
            field="fault",
        )
    return words[fault]


def find_order(session: Session, order_id: str) -> Order:
    """Return an order by id, whosever it is (the caller authorises).

    Raises:
        NotFoundError: there is none.
    """
    order = session.get(Order, order_id)
    if order is None:
        raise NotFoundError.of("order", order_id)
    return order


def lock_order(session: Session, order_id: str) -> Order:
    """Return an order locked for its end or a correction. Raises: NotFoundError."""
    order = session.get(Order, order_id, with_for_update=True, populate_existing=True)
    if order is None:
        raise NotFoundError.of("order", order_id)
    return order


def check_metered(metered: Mapping[str, int]) -> None:
    """Pass known, whole figures within range. Raises: MeterRefusedError."""
    for name, figure in metered.items():
        if name not in (*METERED, ELAPSED) or type(figure) is not int or not 0 <= figure <= 10**13:
            raise MeterRefusedError(
                f"Metered {name} = {figure}: give {', '.join(METERED)} (and {ELAPSED}) from 0 to 10^13.",
                f"计量 {name} = {figure} 有误：可用 {', '.join(METERED)}、{ELAPSED}，范围 0..10^13。",
                field=name,
            )


def check_complete(metered: Mapping[str, int]) -> None:
    """A figure left out is not a zero: settling without it would give the work away."""
    for name in METERED:
        if name not in metered:
            raise MeterRefusedError(
                f"Settling needs {name}, which is missing; give 0 where nothing was metered.",
                f"结算缺少计量 {name}；未计量请填 0。",
                field=name,
            )


def _without_fee(fault: Fault, metered: Mapping[str, int] | None) -> dict[str, int]:
    elapsed = (metered or {}).get(ELAPSED, 0)
    return {ELAPSED: elapsed} if fault is Fault.PLATFORM and elapsed else {}


def _close(session: Session, order: Order, *, metered: Mapping[str, int], state: OrderState, now: datetime) -> None:
    quote = session.get_one(Quote, order.quote_id)
    settled = [_settle(session, line, min(metered.get(line.meter, 0), line.quantity)) for line in quote.lines]
    group_id = derive_id("grp", "close", order.id)
    revive_holds(session, order.id, now=now)
    movements = _release(session, order, settled)
    clearing = clearing_account(session, order, now)
    for item in settled:
        key = derive_id("key", order.id, str(item.line.position))
        movements += payout_movements(session, clearing, item.shares, key=key, now=now)
    device = next(item for item in settled if item.line.meter is Meter.DEVICE_MS)
    movements += pay_elapsed(session, order, device.line, due_fen(device.line, metered, device.paid.fee_fen), now)
    if movements:
        post_group(session, group_id, movements, Posted("order", order.id, SYSTEM, now))
    for item in settled:
        _charge(session, order, item, group_id=group_id, now=now)
    order.state, order.closed_at, order.metered = state, now, dict(metered)
    order.voucher_fen = sum(item.paid.voucher_fen for item in settled)
    order.cash_fen = sum(item.paid.cash_fen for item in settled)
    order.charged_fen = order.voucher_fen + order.cash_fen
    session.flush()


def _settle(session: Session, line: QuoteLine, quantity: int) -> _Settled:
    cover = line.covers[0] if line.covers else None
    subsidy = Subsidy(cover.share_num, cover.share_den, cover.amount_fen) if cover else None
    paid = settle_line(fee_fen(quantity, line.amount_fen, line.per_units), subsidy)
    shares = give_out(session, paid.fee_fen, seller_id=line.seller_organisation_id, split_terms_id=line.split_terms_id)
    return _Settled(line, quantity, paid, shares)


def _release(session: Session, order: Order, settled: list[_Settled]) -> list[Movement]:
    ends = {
        hold_id(order.id, item.line, purse): (amount, f"{purse}_settled")
        for item in settled
        for purse, amount in ((VOUCHER, item.paid.voucher_fen), (CASH, item.paid.cash_fen))
    }
    held = find_transfers(session, list(ends))
    return [
        resolve(derive_id("tra", "resolve", key), held[key], amount_fen=amount, code=code)
        for key, (amount, code) in ends.items()
        if key in held
    ]


def _charge(session: Session, order: Order, item: _Settled, *, group_id: str, now: datetime) -> None:
    if not item.quantity:
        return
    line = item.line
    cover = line.covers[0] if line.covers else None
    charge = Charge(
        id=derive_id("chg", order.id, str(line.position)),
        organisation_id=order.organisation_id,
        month=month_key(now),
        order_id=order.id,
        meter=line.meter,
        title_zh=line.title_zh,
        title_en=line.title_en,
        quantity=item.quantity,
        price_version_id=line.price_version_id,
        amount_fen=line.amount_fen,
        per_units=line.per_units,
        fee_fen=item.paid.fee_fen,
        voucher_fen=item.paid.voucher_fen,
        cash_fen=item.paid.cash_fen,
        programme=cover.programme if cover else None,
        rule_version_id=cover.rule_version_id if cover else None,
        grant_id=cover.grant_id if cover else None,
        share_num=cover.share_num if cover else 0,
        share_den=cover.share_den if cover else 1,
        group_id=group_id,
        charged_at=now,
    )
    charge.parts = build_parts(charge.id, item.shares)
    session.add(charge)


def _record(session: Session, topic: str, order: Order, now: datetime) -> None:
    record_event(
        session,
        topic,
        order.id,
        organisation_id=order.organisation_id,
        actor_id=SYSTEM,
        now=now,
        order_subject=order.subject,
        charged_fen=order.charged_fen,
        voucher_fen=order.voucher_fen,
        fault=order.fault,
        reason_code=order.reason_code,
    )
