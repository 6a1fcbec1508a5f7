"""Allowances: slices of money that a gateway may spend, cut from a tranche that the ledger holds.

It leaves what calls cost to `rating`, the end of a slice to `closing` and the end of a tranche to `tranches`.
"""

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.clock import to_us
from hub.errors import IdempotencyConflictError, InvalidValueError, NotFoundError
from hub.ids import new_id
from hub.ledger.periods import month_bounds, month_key
from hub.orders.cash import queue_up, wallet
from hub.orders.rules import UFEN_PER_FEN, slice_size
from hub.orders.tranches import find_tranche, open_tranche
from hub.orders.usage_tables import Allowance, AllowanceState, UsageTranche
from hub.organisations.service import find_budget
from hub.organisations.tables import Budget
from hub.prices.service import find_price_version
from hub.prices.tables import CALL_METERS
from serving.contract import AllowanceGrant, AllowanceRefusal, AllowanceRequest

LIFETIME = timedelta(seconds=150)
"""How long a gateway may reserve from a slice. It takes the next one after a fifth of that, so that usage is billed
soon after it happened, and the rest outlasts a silent hub for as long as a snapshot is followed (120 s)."""


def grant_allowance(session: Session, request: AllowanceRequest, now: datetime) -> AllowanceGrant | AllowanceRefusal:
    """Return a slice of the organisation's money, possibly smaller than wanted, or why there is none.

    Asking again with the same key returns the same slice.

    Raises:
        IdempotencyConflictError: the key came with another request before.
        InvalidValueError: nothing wanted, or a price that is not for calls.
    """
    queue_up(session, request.organisation_id)
    known = session.scalar(
        select(Allowance).where(
            Allowance.gateway_id == request.gateway_id, Allowance.idempotency_key == request.idempotency_key
        )
    )
    if known is not None:
        return _repeat(known, request)
    _check_request(session, request)
    want = request.want_ufen
    if request.budget_id is not None:
        budget, used = _read_budget(session, request.organisation_id, request.budget_id, now)
        want = min(want, budget.limit_fen * UFEN_PER_FEN - used)
        if want <= 0:
            return _refuse_budget(budget, used, now)
    tranche = find_tranche(session, request.organisation_id, request.price_version_id, now=now)
    if tranche is None or not _left_in(tranche, want):
        tranche = open_tranche(session, request.organisation_id, request.price_version_id, want_ufen=want, now=now)
    if tranche is None:
        return _refuse_cash(session, request.organisation_id)
    return _cut(session, tranche, request, want_ufen=want, now=now)


def _repeat(known: Allowance, request: AllowanceRequest) -> AllowanceGrant:
    same = (known.organisation_id, known.price_version_id, known.budget_id, known.want_ufen) == (
        request.organisation_id,
        request.price_version_id,
        request.budget_id,
        request.want_ufen,
    )
    if not same:
        raise IdempotencyConflictError(
            f"Key '{request.idempotency_key}' was used for another allowance; take a new key.",
            f"幂等键“{request.idempotency_key}”已用于其他额度，请更换。",
            field="idempotency_key",
        )
    return _answer(known)


def _check_request(session: Session, request: AllowanceRequest) -> None:
    if request.want_ufen <= 0:
        raise InvalidValueError(
            f"want_ufen is {request.want_ufen}; ask for more than 0 µfen.",
            f"want_ufen 为 {request.want_ufen}，须大于 0。",
            field="want_ufen",
        )
    price = find_price_version(session, request.price_version_id)
    if not any(line.meter in CALL_METERS for line in price.lines):
        raise InvalidValueError(
            f"Price '{price.id}' is for {price.subject_kind}, not for calls.",
            f"价格“{price.id}”用于 {price.subject_kind}，不适用于调用。",
            field="price_version_id",
        )


def _read_budget(session: Session, organisation_id: str, budget_id: str, now: datetime) -> tuple[Budget, int]:
    """Return a budget and what its open and closed slices of this month count, in µfen."""
    budget = find_budget(session, budget_id)
    if budget.organisation_id != organisation_id:
        raise NotFoundError.of("budget", budget_id)
    rows = session.execute(
        select(Allowance.state, func.sum(Allowance.amount_ufen), func.sum(Allowance.spent_ufen))
        .where(Allowance.budget_id == budget_id, Allowance.month == month_key(now))
        .group_by(Allowance.state)
    )
    return budget, sum(int(granted if state is AllowanceState.OPEN else spent) for state, granted, spent in rows)


def _left_in(tranche: UsageTranche, want_ufen: int) -> int:
    return slice_size(want_ufen, held_fen=tranche.held_fen, sliced_ufen=tranche.sliced_ufen)


def _cut(
    session: Session, tranche: UsageTranche, request: AllowanceRequest, *, want_ufen: int, now: datetime
) -> AllowanceGrant:
    amount = _left_in(tranche, want_ufen)
    tranche.sliced_ufen += amount
    allowance = Allowance(
        id=new_id("alw"),
        organisation_id=request.organisation_id,
        tranche_id=tranche.id,
        gateway_id=request.gateway_id,
        gateway_epoch=request.gateway_epoch,
        idempotency_key=request.idempotency_key,
        price_version_id=request.price_version_id,
        budget_id=request.budget_id,
        month=tranche.month,
        want_ufen=request.want_ufen,
        amount_ufen=amount,
        state=AllowanceState.OPEN,
        spent_ufen=0,
        granted_at=now,
        expires_at=now + LIFETIME,
    )
    session.add(allowance)
    session.flush()
    return _answer(allowance)


def _answer(allowance: Allowance) -> AllowanceGrant:
    return AllowanceGrant(allowance.id, allowance.amount_ufen, to_us(allowance.expires_at))


def _refuse_budget(budget: Budget, used_ufen: int, now: datetime) -> AllowanceRefusal:
    limit_ufen = budget.limit_fen * UFEN_PER_FEN
    return AllowanceRefusal(
        code="budget_exhausted",
        limit=f"budget {budget.name}",
        set_by=budget.set_by,
        used=used_ufen,
        left=max(0, limit_ufen - used_ufen),
        resets_at=to_us(month_bounds(month_key(now))[1]),
    )


def _refuse_cash(session: Session, organisation_id: str) -> AllowanceRefusal:
    money = wallet(session, organisation_id)
    return AllowanceRefusal(
        code="insufficient_funds",
        limit="firm cash",
        set_by=organisation_id,
        used=money.held_fen * UFEN_PER_FEN,
        left=money.available_fen * UFEN_PER_FEN,
        resets_at=None,
    )
