"""Moves payouts from request to the bank's answer; the only writer of this room.

Asking first nets what the organisation owes, then holds the rest on the payable account; paid posts it, failed releases
it, unknown keeps it held. It leaves talking to a bank to people: the operator sends and enters what the bank says.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, IdempotencyConflictError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from hub.ledger.movements import hold, resolve
from hub.ledger.rules import AccountLimitError, derive_id
from hub.ledger.service import Posted, find_account, find_transfers, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.organisations.service import require_second_person
from hub.payouts.debts import net_debt, open_debt, read_debt
from hub.payouts.rules import SILENT_AFTER, PayoutRefusedError, PayoutStepError, check_details, check_step
from hub.payouts.tables import Payout, PayoutState, PayoutStep

MAX_FEN = 10**15


class NotEnoughEarnedError(ConflictError):
    """More is asked for than was earned and is not on its way already."""

    code = "not_enough_earned"


def request_payout(session: Session, actor: Actor, *, amount_fen: int, idempotency_key: str, now: datetime) -> Payout:
    """Ask for earned money; it is held from now on. The same key again returns the same payout.

    What a correction took back after it had been paid out is netted first: only the rest is sent.

    Raises:
        NotEnoughEarnedError: names what is available. PayoutRefusedError: an amount or key that is none.
        IdempotencyConflictError: the key came with another amount.
    """
    if actor.role is Role.AUDITOR:
        raise ForbiddenError("An auditor reads and is paid nothing.", "审计员只读，不能申请付款。")
    _check_request(amount_fen, idempotency_key)
    # Locked before the look, so that two requests with one key cannot both find nothing.
    payable = open_account(session, organisation_id=actor.organisation_id, kind=AccountKind.PAYABLE, now=now)
    session.refresh(payable, with_for_update={"key_share": True})
    known = session.scalar(
        select(Payout).where(Payout.organisation_id == actor.organisation_id, Payout.idempotency_key == idempotency_key)
    )
    if known is not None:
        return _repeat(known, amount_fen)
    payout = Payout(
        id=new_id("pay"),
        organisation_id=actor.organisation_id,
        idempotency_key=idempotency_key,
        amount_fen=amount_fen,
        netted_fen=min(amount_fen, read_debt(session, actor.organisation_id)),
        state=PayoutState.REQUESTED,
        requested_by=actor.user_id,
        requested_at=now,
        changed_at=now,
    )
    _hold(session, payout, actor_id=actor.user_id, now=now)
    first = PayoutState.REQUESTED if payout.sent_fen else PayoutState.NETTED
    payout.state = first
    session.add(payout)
    _note(session, payout, first, actor_id=actor.user_id, now=now)
    return payout


def send_payout(session: Session, actor: Actor, payout_id: str, *, now: datetime) -> Payout:
    """Note that the operator instructs the bank now; once, whatever comes of it. Raises: PayoutStepError."""
    actor.require(Role.OPERATOR)
    payout = _lock(session, payout_id)
    check_step(payout.state, PayoutState.IN_PAYOUT)
    require_second_person(
        session,
        actor,
        [payout.requested_by],
        en="You asked for this payout; another person sends it.",
        zh="该付款由您申请，须由他人发出。",
    )
    _note(session, payout, PayoutState.IN_PAYOUT, actor_id=actor.user_id, now=now)
    return payout


def withdraw_payout(session: Session, actor: Actor, payout_id: str, *, now: datetime) -> Payout:
    """Take an own payout back before it is sent; its money is free again. A second time changes nothing.

    What was netted against a debt stays paid.

    Raises:
        NotFoundError: missing, or another organisation's. PayoutStepError: sent or ended already.
    """
    payout = _lock(session, payout_id)
    if payout.organisation_id != actor.organisation_id:
        raise NotFoundError.of("payout", payout_id)
    if payout.state is PayoutState.WITHDRAWN:
        return payout
    if payout.state is not PayoutState.REQUESTED:
        raise PayoutStepError(
            f"Payout '{payout.id}' is {payout.state}; it can be taken back until it is sent.",
            f"付款“{payout.id}”处于 {payout.state}，仅在发出前可以撤回。",
            state=str(payout.state),
        )
    _end_hold(session, payout, paid=False, actor_id=actor.user_id, now=now)
    _note(session, payout, PayoutState.WITHDRAWN, actor_id=actor.user_id, now=now)
    return payout


def conclude_payout(
    session: Session,
    actor: Actor,
    payout_id: str,
    *,
    result: PayoutState,
    now: datetime,
    bank_reference: str = "",
    reason: str = "",
) -> Payout:
    """Enter what became of a payout: paid, failed or unknown. The same result again changes nothing.

    An unknown one is settled by another person than the one who sent it.

    Raises:
        PayoutStepError, PayoutRefusedError: not from here, or a detail is missing.
        FourEyesError: the sender settles an unknown one. ConflictError: the reference names another payout.
    """
    actor.require(Role.OPERATOR)
    payout = _lock(session, payout_id)
    last = payout.steps[-1]
    if payout.state is result and (last.bank_reference or "") == bank_reference.strip():
        return payout
    check_step(payout.state, result)
    check_details(payout.state, result, bank_reference=bank_reference, reason=reason)
    _check_person(session, payout, actor)
    _check_reference(session, payout, bank_reference.strip())
    if result is not PayoutState.UNKNOWN:
        _end_hold(session, payout, paid=result is PayoutState.PAID, actor_id=actor.user_id, now=now)
    _note(
        session,
        payout,
        result,
        actor_id=actor.user_id,
        now=now,
        bank_reference=bank_reference.strip() or None,
        reason=reason.strip() or None,
    )
    return payout


def age_payouts(session: Session, now: datetime) -> int:
    """Mark payouts that the bank was silent about for a day as unknown, and return how many; called by the worker."""
    query = select(Payout).where(Payout.state == PayoutState.IN_PAYOUT, Payout.changed_at <= now - SILENT_AFTER)
    due = session.scalars(query.order_by(Payout.id).limit(100).with_for_update(skip_locked=True)).all()
    for payout in due:
        _note(session, payout, PayoutState.UNKNOWN, actor_id=SYSTEM, now=now, reason="the bank was silent for a day")
    return len(due)


def find_payout(session: Session, actor: Actor, payout_id: str) -> Payout:
    """Return a payout that the actor may see. Raises: NotFoundError."""
    payout = session.get(Payout, payout_id)
    wide = actor.reads_all
    if payout is None or (payout.organisation_id != actor.organisation_id and not wide):
        raise NotFoundError.of("payout", payout_id)
    return payout


def list_payouts(
    session: Session, *, organisation_id: str | None = None, state: PayoutState | None = None
) -> list[Payout]:
    """Return payouts, newest first (the caller authorises)."""
    query = select(Payout)
    if organisation_id is not None:
        query = query.where(Payout.organisation_id == organisation_id)
    if state is not None:
        query = query.where(Payout.state == state)
    return list(session.scalars(query.order_by(Payout.id.desc()).limit(500)))


def earned(session: Session, organisation_id: str) -> tuple[int, int]:
    """Return what an organisation may ask for and what is on its way, in fen."""
    account = find_account(session, organisation_id=organisation_id, kind=AccountKind.PAYABLE)
    return (account.available_fen, account.debits_pending) if account else (0, 0)


def _check_request(amount_fen: int, idempotency_key: str) -> None:
    if type(amount_fen) is not int or not 1 <= amount_fen <= MAX_FEN:
        raise PayoutRefusedError(
            f"Amount {amount_fen} is out of 1..{MAX_FEN}; give whole fen.",
            f"金额 {amount_fen} 超出 1..{MAX_FEN}，请给出整数分。",
            field="amount_fen",
        )
    if not 1 <= len(idempotency_key) <= 200:
        raise PayoutRefusedError(
            f"The idempotency key has {len(idempotency_key)} characters; give 1..200, the same on a retry.",
            f"幂等键长度为 {len(idempotency_key)}，应为 1..200。",
            field="idempotency_key",
        )


def _repeat(known: Payout, amount_fen: int) -> Payout:
    if known.amount_fen != amount_fen:
        raise IdempotencyConflictError(
            f"Key '{known.idempotency_key}' was used for a payout of {known.amount_fen} fen; take a new key.",
            f"幂等键“{known.idempotency_key}”已用于 {known.amount_fen} 分的付款，请更换。",
            field="idempotency_key",
        )
    return known


def _hold(session: Session, payout: Payout, *, actor_id: str, now: datetime) -> None:
    payable = open_account(session, organisation_id=payout.organisation_id, kind=AccountKind.PAYABLE, now=now)
    bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=now)
    movements = []
    if payout.netted_fen:
        debt = open_debt(session, payout.organisation_id, now)
        movements.append(net_debt(payout.id, payable, debt, amount_fen=payout.netted_fen))
    if payout.sent_fen:
        movements.append(hold(_hold_id(payout), payable, bank, amount_fen=payout.sent_fen, code="payout_held"))
    try:
        post_group(session, derive_id("grp", "hold", payout.id), movements, _posted(payout, actor_id, now))
    except AccountLimitError as error:
        available = payable.available_fen
        raise NotEnoughEarnedError(
            f"{payout.amount_fen} fen are asked for, {available} fen are earned and free; ask for at most that.",
            f"申请付款 {payout.amount_fen} 分，可付 {available} 分，请减少金额。",
            field="amount_fen",
            available_fen=available,
        ) from error


def _end_hold(session: Session, payout: Payout, *, paid: bool, actor_id: str, now: datetime) -> None:
    held = find_transfers(session, [_hold_id(payout)])[_hold_id(payout)]
    code = "payout_paid" if paid else "payout_released"
    end = resolve(derive_id("tra", "resolve", payout.id), held, amount_fen=payout.sent_fen if paid else 0, code=code)
    post_group(session, derive_id("grp", "resolve", payout.id), [end], _posted(payout, actor_id, now))


def _hold_id(payout: Payout) -> str:
    return derive_id("tra", "hold", payout.id)


def _posted(payout: Payout, actor_id: str, now: datetime) -> Posted:
    return Posted("payout", payout.id, actor_id, now)


def _lock(session: Session, payout_id: str) -> Payout:
    payout = session.get(Payout, payout_id, with_for_update=True, populate_existing=True)
    if payout is None:
        raise NotFoundError.of("payout", payout_id)
    return payout


def _check_person(session: Session, payout: Payout, actor: Actor) -> None:
    if payout.state is PayoutState.UNKNOWN:
        require_second_person(
            session,
            actor,
            [step.actor_id for step in payout.steps if step.state is PayoutState.IN_PAYOUT],
            en="You sent this payout; another operator settles what the bank did not answer.",
            zh="该付款由您发出；银行未答复的须由另一名运营人员核实。",
        )


def _check_reference(session: Session, payout: Payout, bank_reference: str) -> None:
    if not bank_reference:
        return
    other = session.scalar(
        select(PayoutStep.payout_id).where(
            PayoutStep.bank_reference == bank_reference, PayoutStep.payout_id != payout.id
        )
    )
    if other is not None:
        raise ConflictError(
            f"Bank reference '{bank_reference}' names payout '{other}'; check the bank's statement.",
            f"银行流水号“{bank_reference}”已用于付款“{other}”，请核对。",
            field="bank_reference",
        )


def _note(
    session: Session,
    payout: Payout,
    state: PayoutState,
    *,
    actor_id: str,
    now: datetime,
    bank_reference: str | None = None,
    reason: str | None = None,
) -> None:
    payout.state, payout.changed_at = state, now
    payout.steps.append(
        PayoutStep(
            payout_id=payout.id,
            number=len(payout.steps) + 1,
            state=state,
            bank_reference=bank_reference,
            reason=reason,
            actor_id=actor_id,
            at=now,
        )
    )
    session.flush()
    record_event(
        session,
        f"payout.{state}",
        payout.id,
        organisation_id=payout.organisation_id,
        actor_id=actor_id,
        now=now,
        amount_fen=payout.amount_fen,
        netted_fen=payout.netted_fen,
        bank_reference=bank_reference,
        reason=reason,
    )
