"""Works out what a correction of calls changes on their bill line, and moves the differences in the ledger.

It leaves the costs of calls to `call_figures` and the record of the correction to `call_corrections`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.ledger.rules import AccountLimitError, Movement
from hub.ledger.service import Posted, post_group
from hub.ledger.tables import Account, Transfer
from hub.orders.call_figures import CallChange
from hub.orders.cash import firm_cash
from hub.orders.differences import explain_short, hand_out, shift, take_back
from hub.orders.parts import Given, give_out
from hub.orders.resolving import read_received
from hub.orders.rules import UFEN_PER_FEN
from hub.orders.tables import BillLine, Charge
from hub.orders.tranches import usage_clearing
from hub.prices.rules import Party
from hub.prices.service import find_price_version
from hub.vouchers.tables import Grant


@dataclass(frozen=True)
class LineDifference:
    """What corrected calls change on a bill line: µfen, then fen. `returned` is what goes back to which grant.

    `given` are the receivers' differences; where the platform bears them, its own one.
    """

    exact_ufen: int
    fee_fen: int
    returned: dict[str, int] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)

    @property
    def voucher_fen(self) -> int:
        """What vouchers pay more, 0 or below: what they owe after an increase the month's close pays."""
        return -sum(self.returned.values())

    @property
    def cash_fen(self) -> int:
        """What the firm pays more, negative where it gets money back."""
        return self.fee_fen - self.voucher_fen


def work_out_line(
    session: Session, line: BillLine, changes: Sequence[CallChange], *, keep_receivers: bool
) -> LineDifference:
    """Return the difference: the line has then posted its exact sum rounded down, and no more than its share of it."""
    exact = sum(change.cost_ufen - change.was_ufen for change in changes)
    fee = (line.exact_ufen + exact) // UFEN_PER_FEN - line.posted_fen
    most = (line.posted_fen + fee) * line.share_num // line.share_den
    returned = _unwind(session, line, max(0, line.subsidised_fen - most))
    given = [Given(Party.PLATFORM, "", fee)] if keep_receivers else _share_out(session, line, fee)
    return LineDifference(exact, fee, returned, [part for part in given if part.amount_fen])


def post_line(
    session: Session,
    line: BillLine,
    difference: LineDifference,
    *,
    group_id: str,
    keep_receivers: bool,
    actor_id: str,
    now: datetime,
) -> int:
    """Move the differences in one group and return what the platform advanced for receivers that were paid out.

    Raises:
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    parts = [difference.given]
    clearing = usage_clearing(session, line.organisation_id, now)
    taken, advanced = take_back(session, parts, clearing, keep_receivers=keep_receivers, key=group_id, now=now)
    movements = taken + _move_payers(session, line, difference, clearing, key=group_id, now=now)
    movements += hand_out(session, parts, clearing, key=group_id, now=now)
    # What comes in stands before what goes out: clearing is never overdrawn on the way.
    movements.sort(key=lambda movement: movement.debit_id == clearing.id)
    if movements:
        try:
            post_group(session, group_id, movements, Posted("bill_line", line.id, actor_id, now))
        except AccountLimitError as error:
            raise explain_short(error, needed_fen=difference.cash_fen) from error
    return advanced


def _share_out(session: Session, line: BillLine, fee: int) -> list[Given]:
    """Return each party's share of all that the line has sold, the difference included, less what it received."""
    price = find_price_version(session, line.price_version_id)
    received = read_received(session, line.id)
    shares = give_out(
        session,
        sum(received.values()) + fee,
        seller_id=price.organisation_id,
        split_terms_id=price.split_terms_id,
        payer_id=line.organisation_id,
    )
    due = Counter({(given.party, given.organisation_id): given.amount_fen for given in shares})
    due.subtract(received)
    return [Given(party, owner, amount) for (party, owner), amount in sorted(due.items())]


def _unwind(session: Session, line: BillLine, amount_fen: int) -> dict[str, int]:
    """Return which grants get how much of an amount back: who paid last gets its money back first."""
    returned, left = {}, amount_fen
    for grant_id, paid in _list_payers(session, line) if amount_fen else ():
        back = min(left, paid)
        if back > 0:
            returned[grant_id] = back
            left -= back
    return returned


def _list_payers(session: Session, line: BillLine) -> list[tuple[str, int]]:
    """Return each grant with what it has paid of a line so far, the last one to pay first."""
    paid: Counter[str] = Counter()
    last: dict[str, datetime] = {}
    charged = (
        select(Charge.grant_id, func.sum(Charge.voucher_fen), func.max(Charge.charged_at))
        .where(Charge.bill_line_id == line.id, Charge.grant_id.is_not(None), Charge.version == 1)
        .group_by(Charge.grant_id)
    )
    for charged_id, amount, at in session.execute(charged):
        paid[str(charged_id)] += int(amount)
        last[str(charged_id)] = at
    for grant_id, amount, at in _list_moved(session, line):
        paid[grant_id] += amount
        last[grant_id] = max(at, last.get(grant_id, at)) if amount > 0 else last.get(grant_id, at)
    return [(key, paid[key]) for key in sorted(paid, key=lambda key: (last[key], key), reverse=True)]


def _list_moved(session: Session, line: BillLine) -> list[tuple[str, int, datetime]]:
    """Return what top-ups paid of a line and earlier corrections gave back (negative), by grant."""
    query = (
        select(Grant, Transfer)
        .join(Transfer, (Transfer.debit_id == Grant.account_id) | (Transfer.credit_id == Grant.account_id))
        .where(Transfer.business_id == line.id, Grant.organisation_id == line.organisation_id)
        .order_by(Transfer.seq)
    )
    return [
        (
            grant.id,
            transfer.amount_fen if transfer.debit_id == grant.account_id else -transfer.amount_fen,
            transfer.recorded_at,
        )
        for grant, transfer in session.execute(query)
    ]


def _move_payers(
    session: Session, line: BillLine, difference: LineDifference, clearing: Account, *, key: str, now: datetime
) -> list[Movement]:
    movements = []
    if difference.cash_fen:
        cash = firm_cash(session, line.organisation_id, now)
        movements.append(shift((key, ""), "cash", cash, clearing, difference.cash_fen))
    for grant_id, amount in sorted(difference.returned.items()):
        account = session.get_one(Account, session.get_one(Grant, grant_id).account_id)
        movements.append(shift((key, grant_id), "voucher", account, clearing, -amount))
    return movements
