"""Works out what a correction changes on each line of an order's bill, and moves the differences in the ledger.

It leaves who may correct and the record of it to `corrections`, and the movements themselves to `differences`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.ledger.rules import AccountLimitError, Movement
from hub.ledger.service import Posted, post_group
from hub.ledger.tables import Account
from hub.orders.cash import firm_cash
from hub.orders.differences import explain_short, hand_out, shift, take_back
from hub.orders.elapsed import correct_elapsed, count_elapsed, due_fen, read_paid_fen
from hub.orders.parts import Given, give_out
from hub.orders.placing import clearing_account
from hub.orders.rules import Subsidy, settle_line
from hub.orders.tables import Charge, Fault, Order, Quote, QuoteLine
from hub.prices.rules import Party, fee_fen
from hub.prices.tables import Meter
from hub.vouchers.tables import Grant

Receiver = tuple[str, str]
"""Party and organisation id."""


@dataclass(frozen=True)
class LineChange:
    """The difference of one line against all its versions so far; `month` is that of its first version.

    `elapsed_fen` is what the platform pays the provider more, or less, for time that the customer is not charged.
    """

    line: QuoteLine
    month: str | None
    quantity: int
    voucher_fen: int
    cash_fen: int
    parts: dict[Receiver, int]
    elapsed_fen: int = 0

    @property
    def fee_fen(self) -> int:
        """What the fee grows by, negative where it shrinks."""
        return self.voucher_fen + self.cash_fen

    @property
    def changes_anything(self) -> bool:
        """Whether a charge is due for it."""
        return bool(self.quantity or self.voucher_fen or self.cash_fen)


@dataclass(frozen=True)
class Moved:
    """What each line's receivers got (or gave back), and what the platform advanced for those paid out already."""

    parts: list[list[Given]]
    advanced_fen: int


def work_out(
    session: Session, order: Order, *, metered: Mapping[str, int], fault: str | None = None
) -> list[LineChange]:
    """Return the change of each line if the bill were settled on `metered`, at pinned price, share and cover."""
    quote = session.get_one(Quote, order.quote_id)
    charges = list(session.scalars(select(Charge).where(Charge.order_id == order.id).order_by(Charge.version)))
    changes = [_change_line(session, line, charges, metered.get(line.meter, 0)) for line in quote.lines]
    return [_change_elapsed(session, order, change, charges=charges, fault=fault) for change in changes]


def post_changes(
    session: Session,
    order: Order,
    changes: Sequence[LineChange],
    *,
    group_id: str,
    keep_receivers: bool,
    actor_id: str,
    now: datetime,
) -> Moved:
    """Move the differences in one group through the order's clearing account.

    `keep_receivers` (platform fault): who did the work keeps its pay and the platform bears what is given back.

    Raises:
        InsufficientFundsError: the firm's cash does not cover an increase.
    """
    parts = [_list_parts(change, keep_receivers) for change in changes]
    moved = [_count_elapsed(change, given) for change, given in zip(changes, parts, strict=True)]
    clearing = clearing_account(session, order, now)
    taken, advanced = take_back(session, moved, clearing, keep_receivers=keep_receivers, key=group_id, now=now)
    movements = taken + _move_payers(session, order, changes, clearing, key=group_id, now=now)
    for change in changes:
        movements += correct_elapsed(session, clearing, change.elapsed_fen, key=group_id, now=now)
    movements += hand_out(session, moved, clearing, key=group_id, now=now)
    # What comes in stands before what goes out: clearing is never overdrawn on the way.
    movements.sort(key=lambda movement: movement.debit_id == clearing.id)
    if movements:
        try:
            post_group(session, group_id, movements, Posted("order", order.id, actor_id, now))
        except AccountLimitError as error:
            needed = sum(change.cash_fen for change in changes)
            raise explain_short(error, needed_fen=needed) from error
    return Moved(parts, advanced)


def _change_line(session: Session, line: QuoteLine, charges: Sequence[Charge], metered: int) -> LineChange:
    had = [charge for charge in charges if charge.meter == line.meter]
    quantity = min(metered, line.quantity)
    fee = fee_fen(quantity, line.amount_fen, line.per_units)
    voucher_had = sum(charge.voucher_fen for charge in had)
    voucher = _voucher_now(session, line, fee, voucher_had)
    shares = give_out(session, fee, seller_id=line.seller_organisation_id, split_terms_id=line.split_terms_id)
    parts: dict[Receiver, int] = defaultdict(int)
    for given in shares:
        parts[given.party, given.organisation_id] += given.amount_fen
    for charge in had:
        for part in charge.parts:
            parts[part.party, part.organisation_id] -= part.amount_fen
    return LineChange(
        line=line,
        month=had[0].month if had else None,
        quantity=quantity - sum(charge.quantity for charge in had),
        voucher_fen=voucher - voucher_had,
        cash_fen=fee - voucher - sum(charge.cash_fen for charge in had),
        parts={key: amount for key, amount in parts.items() if amount},
    )


def _change_elapsed(
    session: Session, order: Order, change: LineChange, *, charges: Sequence[Charge], fault: str | None
) -> LineChange:
    """Add what the platform pays for time: nothing more or less on its own fault, on the provider's all comes back.

    Otherwise as if the order had been closed on the right figures: all the time that passed is paid, once.
    """
    if change.line.meter is not Meter.DEVICE_MS or fault == Fault.PLATFORM:
        return change
    charged = change.fee_fen + sum(charge.fee_fen for charge in charges if charge.meter == change.line.meter)
    due = 0 if fault else due_fen(change.line, order.metered or {}, charged)
    return replace(change, elapsed_fen=due - read_paid_fen(session, order))


def _voucher_now(session: Session, line: QuoteLine, fee: int, voucher_had: int) -> int:
    """Return what the voucher pays of the new fee: its share, at most what was quoted and what the grant has left."""
    if not line.covers:
        return 0
    cover = line.covers[0]
    paid = settle_line(fee, Subsidy(cover.share_num, cover.share_den, cover.amount_fen)).voucher_fen
    return paid if paid <= voucher_had else min(paid, voucher_had + _grant_account(session, line).available_fen)


def _list_parts(change: LineChange, keep_receivers: bool) -> list[Given]:
    if keep_receivers:
        return [Given(Party.PLATFORM, "", change.fee_fen)]
    return [Given(party, organisation_id, amount) for (party, organisation_id), amount in sorted(change.parts.items())]


def _count_elapsed(change: LineChange, given: list[Given]) -> list[Given]:
    return count_elapsed(given, change.line, change.elapsed_fen) if change.elapsed_fen else given


def _move_payers(
    session: Session, order: Order, changes: Sequence[LineChange], clearing: Account, *, key: str, now: datetime
) -> list[Movement]:
    cash = firm_cash(session, order.organisation_id, now)
    movements = []
    for change in changes:
        name = (key, str(change.line.position))
        if change.cash_fen:
            movements.append(shift(name, "cash", cash, clearing, change.cash_fen))
        if change.voucher_fen:
            grant = _grant_account(session, change.line)
            movements.append(shift(name, "voucher", grant, clearing, change.voucher_fen))
    return movements


def _grant_account(session: Session, line: QuoteLine) -> Account:
    grant = session.get_one(Grant, line.covers[0].grant_id)
    return session.get_one(Account, grant.account_id)
