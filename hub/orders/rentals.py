"""Rentals of offers by firms: hold, devices, more time, the end, and settling on the provider's counted time.

It leaves believing the provider's reports to `hub.compute` and correcting settled bills to `corrections`.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.compute.allocation import allocate, release
from hub.compute.meter_review import resolve_meter
from hub.compute.service import find_offer
from hub.compute.tables import HoldState, MeterRecord, Offer, OfferState, Rental, RentalPurpose
from hub.errors import ConflictError, IdempotencyConflictError, InvalidValueError, NotFoundError
from hub.ids import new_id
from hub.orders.cash import queue_up
from hub.orders.correction_money import work_out
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.elapsed import ELAPSED
from hub.orders.placing import accept_quote
from hub.orders.quotes import require_buyer
from hub.orders.rental_quotes import RENTAL, quote_rental
from hub.orders.settlement import read_fault, refund_order, settle_order
from hub.orders.tables import Fault, Order, Quote
from hub.organisations.service import require_verified
from hub.prices.tables import Meter

LAST_REPORT = timedelta(minutes=2)
"""How long after its time is over a rental waits for the provider's last report."""
MILLISECOND = timedelta(milliseconds=1)


class RentalOverError(ConflictError):
    """The rental has ended."""

    code = "rental_over"


class OfferClosedError(ConflictError):
    """The offer takes no new rental."""

    code = "offer_closed"


def rent_offer(
    session: Session,
    actor: Actor,
    offer_id: str,
    *,
    device_ms: int,
    idempotency_key: str,
    now: datetime,
    cost_centre: str | None = None,
) -> Rental:
    """Rent an offer for at most `device_ms`: money held, devices allocated, or nothing. The same key: same rental.

    Raises:
        InsufficientFundsError, NoCapacityError, OfferClosedError, RentalTimeError, NotVerifiedError.
        IdempotencyConflictError: the key belongs to another order.
    """
    require_buyer(actor)
    queue_up(session, actor.organisation_id)
    known = _find_known(session, actor, idempotency_key)
    if known is not None:
        return _check_same(session, known, offer_id, device_ms, rental_id=None)
    require_verified(session, actor.organisation_id)
    offer = find_offer(session, offer_id)
    _check_open(offer, now)
    rental_id = new_id("rtl")
    quote = quote_rental(session, actor, offer, device_ms=device_ms, subject=rental_id, now=now)
    order = accept_quote(session, actor, quote.id, idempotency_key=idempotency_key, cost_centre=cost_centre, now=now)
    return allocate(
        session,
        organisation_id=actor.organisation_id,
        offer_id=offer.id,
        purpose=RentalPurpose.CUSTOMER,
        order_id=order.id,
        limit_ms=device_ms,
        rental_id=rental_id,
        now=now,
    )


def extend_rental(
    session: Session, actor: Actor, rental_id: str, *, device_ms: int, idempotency_key: str, now: datetime
) -> Rental:
    """Add time to a running rental by a supplementary hold at the offer's price. The same key: once.

    Raises:
        RentalOverError, InsufficientFundsError, RentalTimeError.
    """
    require_buyer(actor)
    queue_up(session, actor.organisation_id)
    rental = _lock_own(session, actor, rental_id)
    known = _find_known(session, actor, idempotency_key)
    if known is not None:
        return _check_same(session, known, rental.offer_id, device_ms, rental_id=rental.id)
    _check_running(rental)
    offer = find_offer(session, rental.offer_id)
    quote = quote_rental(session, actor, offer, device_ms=device_ms, subject=rental.id, now=now)
    accept_quote(session, actor, quote.id, idempotency_key=idempotency_key, now=now)
    rental.limit_ms = (rental.limit_ms or 0) + device_ms
    session.flush()
    return rental


def end_rental(session: Session, actor: Actor, rental_id: str, *, now: datetime) -> Rental:
    """End a rental early and settle it on the time counted so far. Again changes nothing."""
    rental = _lock_own(session, actor, rental_id)
    return _end(session, rental, now)


def fail_rental(session: Session, actor: Actor, rental_id: str, *, fault: str, reason: str, now: datetime) -> Rental:
    """End a rental that went wrong and give everything back: the provider for its own fault, an operator for either.

    Raises:
        NotFoundError: not this provider's. InvalidValueError: no reason, or a fault that does not refund.
        RentalOverError: it ended before; correct its bill instead.
    """
    actor.require(Role.PROVIDER, Role.OPERATOR)
    rental = _lock(session, rental_id)
    if actor.role is Role.PROVIDER and rental.provider_organisation_id != actor.organisation_id:
        raise NotFoundError.of("rental", rental_id)
    blamed = _read_blame(actor, fault, reason)
    _check_running(rental)
    counted = _count(rental, now)
    release(session, rental.id, device_ms=rental.device_ms, fault=str(blamed), now=now)
    for order, allotted in _allot(session, rental, counted):
        metered = {ELAPSED: allotted} if blamed is Fault.PLATFORM else {}
        refund_order(session, order.id, fault=str(blamed), reason_code=reason.strip()[:200], metered=metered, now=now)
    return rental


def end_due_rentals(session: Session, now: datetime) -> int:
    """End rentals whose paid time is used up or over, and return how many; called by the worker."""
    query = select(Rental).where(Rental.state == HoldState.ACTIVE, Rental.purpose == RentalPurpose.CUSTOMER)
    running = session.scalars(query.order_by(Rental.id).with_for_update(skip_locked=True)).all()
    due = [rental for rental in running if _is_due(rental, now)]
    for rental in due:
        _end(session, rental, now)
    return len(due)


def decide_meter(
    session: Session,
    actor: Actor,
    record_id: str,
    *,
    accept: bool,
    reason: str,
    now: datetime,
    device_ms: int | None = None,
) -> MeterRecord:
    """Decide on a quarantined report; where the rental is settled already, its bill is corrected by what now counts.

    Raises:
        what `hub.compute.meter_review.resolve_meter` and `corrections.propose_correction` raise.
    """
    record = resolve_meter(session, actor, record_id, accept=accept, reason=reason, device_ms=device_ms, now=now)
    rental = session.get_one(Rental, record.rental_id)
    if accept and rental.state is HoldState.RELEASED and rental.fault is None:
        for order, allotted in _allot(session, rental, _count(rental, now)):
            metered = _metered(allotted)
            if any(change.changes_anything for change in work_out(session, order, metered=metered)):
                propose_correction(session, actor, order.id, Wanted(reason, metered), now=now)
    return record


def ends_at(rental: Rental) -> datetime:
    """Return when a rental's paid time is over by the clock."""
    return rental.allocated_at + (rental.limit_ms or 0) * MILLISECOND


def list_rental_orders(session: Session, rental_id: str) -> list[Order]:
    """Return the orders of a rental, the first one and its extensions, oldest first."""
    query = select(Order).where(Order.subject_kind == RENTAL, Order.subject == rental_id)
    return list(session.scalars(query.order_by(Order.accepted_at, Order.id)))


def _find_known(session: Session, actor: Actor, idempotency_key: str) -> Order | None:
    return session.scalar(
        select(Order).where(Order.organisation_id == actor.organisation_id, Order.idempotency_key == idempotency_key)
    )


def _check_same(session: Session, order: Order, offer_id: str, device_ms: int, *, rental_id: str | None) -> Rental:
    """Return the rental that an order was for: begun by it, or (`rental_id`) given more time by it."""
    quote = session.get_one(Quote, order.quote_id)
    rental = session.get(Rental, order.subject) if quote.subject_kind == RENTAL else None
    same = (quote.offer_id, quote.device_ms) == (offer_id, device_ms)
    is_extension = rental is not None and rental.order_id != order.id
    if rental is None or not same or (rental.id if is_extension else None) != rental_id:
        raise IdempotencyConflictError(
            f"Idempotency key '{order.idempotency_key}' belongs to order '{order.id}', which is another one; "
            "take a new key.",
            f"幂等键“{order.idempotency_key}”已用于另一订单“{order.id}”，请更换。",
            field="idempotency_key",
        )
    return rental


def _check_open(offer: Offer, now: datetime) -> None:
    if offer.state is not OfferState.OPEN or (offer.valid_until is not None and offer.valid_until <= now):
        raise OfferClosedError(
            f"Offer '{offer.id}' takes no new rental; choose another one.", f"报价“{offer.id}”已停止出租，请另选。"
        )


def _lock(session: Session, rental_id: str) -> Rental:
    rental = session.get(Rental, rental_id, with_for_update=True, populate_existing=True)
    if rental is None or rental.purpose is not RentalPurpose.CUSTOMER:
        raise NotFoundError.of("rental", rental_id)
    return rental


def _lock_own(session: Session, actor: Actor, rental_id: str) -> Rental:
    rental = _lock(session, rental_id)
    if actor.role is not Role.OPERATOR:
        require_buyer(actor)
        if rental.organisation_id != actor.organisation_id:
            raise NotFoundError.of("rental", rental_id)
    return rental


def _check_running(rental: Rental) -> None:
    if rental.state is not HoldState.ACTIVE:
        raise RentalOverError(
            f"Rental '{rental.id}' is over; rent the offer again, or ask the operator to correct its bill.",
            f"租用“{rental.id}”已结束；请重新租用，或联系运营方更正账单。",
        )


def _read_blame(actor: Actor, fault: str, reason: str) -> Fault:
    blamed = read_fault(fault)
    allowed = (Fault.PROVIDER,) if actor.role is Role.PROVIDER else (Fault.PROVIDER, Fault.PLATFORM)
    if blamed not in allowed:
        raise InvalidValueError(
            f"Fault '{fault}' cannot be said here; use {', '.join(allowed)}.",
            f"此处责任方只能为 {', '.join(allowed)}，不能为“{fault}”。",
            field="fault",
        )
    if not reason.strip():
        raise InvalidValueError(
            "Ending a rental for a fault needs a reason; the firm will read it.",
            "因故障结束租用须填写原因。",
            field="reason",
        )
    return blamed


def _is_due(rental: Rental, now: datetime) -> bool:
    return rental.device_ms >= (rental.limit_ms or 0) or now >= ends_at(rental) + LAST_REPORT


def _end(session: Session, rental: Rental, now: datetime) -> Rental:
    if rental.state is HoldState.ACTIVE:
        release(session, rental.id, device_ms=rental.device_ms, now=now)
        for order, allotted in _allot(session, rental, _count(rental, now)):
            settle_order(session, order.id, metered=_metered(allotted), now=now)
    return rental


def _count(rental: Rental, now: datetime) -> int:
    """Return the device time that is billed: what was counted, never more than the time that passed."""
    elapsed = (rental.released_at or now) - rental.allocated_at
    return min(rental.device_ms, elapsed // MILLISECOND)


def _allot(session: Session, rental: Rental, device_ms: int) -> list[tuple[Order, int]]:
    """Return how much of the counted time falls on each order: the first is used up before its extensions."""
    allotted = []
    for order in list_rental_orders(session, rental.id):
        part = min(device_ms, session.get_one(Quote, order.quote_id).device_ms)
        device_ms -= part
        allotted.append((order, part))
    return allotted


def _metered(device_ms: int) -> dict[str, int]:
    return {str(Meter.DEVICE_MS): device_ms, str(Meter.TRAINED_TOKENS): 0}
