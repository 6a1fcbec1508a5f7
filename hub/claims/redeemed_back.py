"""Takes back what was reimbursed of fees that a correction lowered afterwards, and collects it from the firm's cash.

It leaves corrections to `hub.orders`; the worker calls this, because redemptions stand above them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from hub.claims.evidence import REDEMPTION
from hub.claims.redeemable import Base, base_of, name_base, net_fee, redeemed_fee
from hub.claims.tables import Redemption, RedemptionClawBack, RedemptionLine, RedemptionState
from hub.events.service import SYSTEM, record_event
from hub.ledger.movements import move
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind
from hub.orders.tables import Charge
from hub.payouts.debts import open_debt
from hub.vouchers.rules import effective_share, read_body, share_fen
from hub.vouchers.service import claw_back
from hub.vouchers.tables import Grant, RuleVersion

REDEEMED = "redeemed"
"""Subject of the account that holds reimbursed money a firm owes back."""
MAX_COLLECTED = 100


@dataclass(frozen=True)
class _Cut:
    """How much of one redemption's fees is gone, and how much of its money is due back."""

    redemption: Redemption
    fee_fen: int
    amount_fen: int


def take_back_redeemed(session: Session, now: datetime) -> int:
    """Take back the share of redeemed fees that corrections removed; return how many claw backs that took. Idempotent.

    What the firm's cash does not cover becomes a debt, collected as soon as there is cash.
    """
    done = 0
    for base, cause in _list_corrected(session).items():
        excess = redeemed_fee(session, base, paid_only=True) - net_fee(session, base)
        for cut in _cut_redemptions(session, base, excess) if excess > 0 else ():
            _take_back(session, base, cause, cut, now=now)
            done += 1
    return done


def collect_debts(session: Session, now: datetime) -> int:
    """Pay what firms owe back of reimbursed money out of their free cash; return how many paid. Idempotent."""
    debts = session.scalars(
        select(Account)
        .where(
            Account.kind == AccountKind.FIRM_RECEIVABLE,
            Account.subject == REDEEMED,
            Account.debits_posted > Account.credits_posted,
        )
        .order_by(Account.id)
        .limit(MAX_COLLECTED)
    ).all()
    return sum(_collect(session, debt, now) for debt in debts)


def sum_taken_back(session: Session, redemption_ids: Sequence[str]) -> dict[str, int]:
    """Return what was taken back of each redemption that lost something, in fen."""
    query = (
        select(RedemptionClawBack.redemption_id, func.sum(RedemptionClawBack.amount_fen))
        .where(RedemptionClawBack.redemption_id.in_(redemption_ids))
        .group_by(RedemptionClawBack.redemption_id)
    )
    return {key: int(amount) for key, amount in session.execute(query)}


def _list_corrected(session: Session) -> dict[Base, Charge]:
    """Return the bases of paid redemptions that a correction lowered, each with the newest such charge."""
    redeemed = aliased(Charge)
    same = (redeemed.bill_line_id == Charge.bill_line_id) | (
        (redeemed.order_id == Charge.order_id) & (redeemed.meter == Charge.meter)
    )
    query = (
        select(Charge)
        .join(redeemed, same)
        .join(RedemptionLine, RedemptionLine.charge_id == redeemed.id)
        .join(Redemption, Redemption.id == RedemptionLine.redemption_id)
        .where(Charge.version > 1, Charge.fee_fen < 0, Redemption.state == RedemptionState.PAID)
        .order_by(Charge.charged_at, Charge.id)
    )
    return {base_of(charge): charge for charge in session.scalars(query)}


def _cut_redemptions(session: Session, base: Base, excess: int) -> list[_Cut]:
    """Return what each redemption of a base loses, the last one paid first."""
    cuts = []
    for redemption, fee in _list_paid(session, base):
        lost = min(excess, fee)
        if lost > 0:
            excess -= lost
            cuts.append(_Cut(redemption, lost, _due_back(session, redemption, lost)))
    return cuts


def _list_paid(session: Session, base: Base) -> Sequence[tuple[Redemption, int]]:
    """Return paid redemptions with what they still count of a base, newest first, locked."""
    on = (
        Charge.bill_line_id == base.bill_line_id
        if base.bill_line_id
        else (Charge.order_id == base.order_id) & (Charge.meter == base.meter)
    )
    rows = session.execute(
        select(RedemptionLine.redemption_id, func.sum(RedemptionLine.fee_fen))
        .join(Charge, Charge.id == RedemptionLine.charge_id)
        .join(Redemption, Redemption.id == RedemptionLine.redemption_id)
        .where(on, Redemption.state == RedemptionState.PAID)
        .group_by(RedemptionLine.redemption_id)
        .order_by(RedemptionLine.redemption_id.desc())
    ).all()
    return [
        (
            session.get_one(Redemption, key, with_for_update=True, populate_existing=True),
            int(fee) - _sum_back(session, key, base=base)[0],
        )
        for key, fee in rows
    ]


def _due_back(session: Session, redemption: Redemption, lost_fen: int) -> int:
    """Return what was paid above the share of the fees that remain."""
    rule = read_body(session.get_one(RuleVersion, redemption.rule_version_id).body)
    share = effective_share(rule)
    lost_before, back_before = _sum_back(session, redemption.id)
    remaining = redemption.eligible_fen - lost_before - lost_fen
    paid = redemption.amount_fen - back_before
    return paid - min(paid, share_fen(remaining, *share) if share else 0)


def _sum_back(session: Session, redemption_id: str, *, base: Base | None = None) -> tuple[int, int]:
    fees, amounts = func.sum(RedemptionClawBack.fee_fen), func.sum(RedemptionClawBack.amount_fen)
    query = select(func.coalesce(fees, 0), func.coalesce(amounts, 0))
    query = query.where(RedemptionClawBack.redemption_id == redemption_id)
    if base is not None:
        query = query.where(RedemptionClawBack.base == name_base(base))
    fee, amount = session.execute(query).one()
    return int(fee), int(amount)


def _take_back(session: Session, base: Base, cause: Charge, cut: _Cut, *, now: datetime) -> None:
    redemption = cut.redemption
    lost_before, _ = _sum_back(session, redemption.id)
    key = derive_id("rcb", redemption.id, name_base(base), str(lost_before))
    row = RedemptionClawBack(
        id=key,
        organisation_id=redemption.organisation_id,
        redemption_id=redemption.id,
        charge_id=cause.id,
        base=name_base(base),
        fee_fen=cut.fee_fen,
        amount_fen=cut.amount_fen,
        owed_fen=0,
        created_at=now,
    )
    if cut.amount_fen:
        row.owed_fen = _move_back(session, redemption, key, cut.amount_fen, now=now)
    session.add(row)
    session.flush()
    record_event(
        session,
        "redemption.taken_back",
        redemption.id,
        organisation_id=redemption.organisation_id,
        actor_id=SYSTEM,
        now=now,
        claw_back_id=key,
        group_id=derive_id("grp", key),
        charge_id=cause.id,
        grant_id=redemption.grant_id,
        fee_fen=cut.fee_fen,
        amount_fen=cut.amount_fen,
        owed_fen=row.owed_fen,
    )
    if cut.amount_fen:
        claw_back(
            session,
            grant_id=redemption.grant_id,
            charge_id=cause.id,
            correction_id=key,
            amount_fen=cut.amount_fen,
            reason="the redeemed fee was corrected",
            now=now,
        )


def _move_back(session: Session, redemption: Redemption, key: str, amount_fen: int, *, now: datetime) -> int:
    """Post the money into the grant and return what of it the firm owes."""
    owner = redemption.organisation_id
    grant = session.get_one(Account, session.get_one(Grant, redemption.grant_id).account_id)
    cash = open_account(session, organisation_id=owner, kind=AccountKind.FIRM_CASH, now=now)
    session.refresh(cash, with_for_update={"key_share": True})
    own = min(amount_fen, max(0, cash.available_fen))
    movements = [_pay_back("cash", key, cash, grant, own)] if own else []
    if amount_fen > own:
        debt = open_debt(session, owner, now, subject=REDEEMED)
        movements.append(_pay_back("owed", key, debt, grant, amount_fen - own))
    post_group(session, derive_id("grp", key), movements, Posted(REDEMPTION, redemption.id, SYSTEM, now))
    return amount_fen - own


def _pay_back(purse: str, key: str, payer: Account, grant: Account, amount_fen: int) -> Movement:
    transfer_id = derive_id("tra", "redeemed_back", key, purse)
    return move(transfer_id, payer, grant, amount_fen=amount_fen, code="redeemed_back")


def _collect(session: Session, debt: Account, now: datetime) -> bool:
    cash = open_account(session, organisation_id=debt.organisation_id, kind=AccountKind.FIRM_CASH, now=now)
    for account in sorted((debt, cash), key=lambda account: account.id):
        session.refresh(account, with_for_update={"key_share": True})
    amount = min(-debt.balance_fen, cash.available_fen)
    if amount <= 0:
        return False
    # What was paid before is part of the id: a second payment is another movement than the first.
    key = derive_id("tra", "debt_paid", debt.id, str(debt.credits_posted))
    movement = move(key, cash, debt, amount_fen=amount, code="debt_paid")
    post_group(session, key, [movement], Posted("debt", debt.id, SYSTEM, now))
    record_event(
        session,
        "debt.paid",
        debt.id,
        organisation_id=debt.organisation_id,
        actor_id=SYSTEM,
        now=now,
        amount_fen=amount,
        left_fen=-debt.balance_fen,
    )
    return True
