"""Works out what a correction changes on each line of a bill, and moves the differences in the ledger.

It leaves who may correct and the record of it to `corrections`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.ledger.movements import move
from hub.ledger.rules import AccountLimitError, Movement, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.orders.cash import firm_cash
from hub.orders.parts import Given, give_out, receiving_account
from hub.orders.placing import clearing_account
from hub.orders.rules import InsufficientFundsError, Subsidy, settle_line
from hub.orders.tables import Charge, Order, Quote, QuoteLine
from hub.prices.rules import Party, fee_fen
from hub.vouchers.tables import Grant

Receiver = tuple[str, str]
"""Party and organisation id."""


@dataclass(frozen=True)
class LineChange:
    """The difference of one line against all its versions so far; `month` is that of its first version."""

    line: QuoteLine
    month: str | None
    quantity: int
    voucher_fen: int
    cash_fen: int
    parts: dict[Receiver, int]

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


def work_out(session: Session, order: Order, *, metered: Mapping[str, int]) -> list[LineChange]:
    """Return the change of each line if the bill were settled on `metered`, at pinned price, share and cover."""
    quote = session.get_one(Quote, order.quote_id)
    charges = list(session.scalars(select(Charge).where(Charge.order_id == order.id).order_by(Charge.version)))
    return [_change_line(session, order, line, charges, metered.get(line.meter, 0)) for line in quote.lines]


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
    clearing = clearing_account(session, order, now)
    taken, advanced = _take_back(session, parts, clearing, keep_receivers=keep_receivers, key=group_id, now=now)
    movements = taken + _move_payers(session, order, changes, clearing, key=group_id, now=now)
    movements += _hand_out(session, parts, clearing, key=group_id, now=now)
    # What comes in stands before what goes out: clearing is never overdrawn on the way.
    movements.sort(key=lambda movement: movement.debit_id == clearing.id)
    if movements:
        try:
            post_group(session, group_id, movements, Posted("order", order.id, actor_id, now))
        except AccountLimitError as error:
            raise _explain(changes, error) from error
    return Moved(parts, advanced)


def _change_line(
    session: Session, order: Order, line: QuoteLine, charges: Sequence[Charge], metered: int
) -> LineChange:
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


def _take_back(
    session: Session,
    parts: Sequence[Sequence[Given]],
    clearing: Account,
    *,
    keep_receivers: bool,
    key: str,
    now: datetime,
) -> tuple[list[Movement], int]:
    """Return what receivers give back; where one was paid out already, the platform advances the rest."""
    cost = open_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST, now=now)
    left: dict[str, int] = {}
    movements, advanced = [], 0
    for index, given in ((index, given) for index, line in enumerate(parts) for given in line if given.amount_fen < 0):
        account = cost if keep_receivers else receiving_account(session, given, now)
        due = -given.amount_fen
        own = min(due, left.setdefault(account.id, account.available_fen)) if account.limited else due
        left[account.id] = left.get(account.id, 0) - own
        name = (key, str(index), given.party, given.organisation_id)
        if own:
            movements.append(
                move(derive_id("tra", "back", *name), account, clearing, amount_fen=own, code="taken_back")
            )
        if due > own:
            advanced += due - own
            again = derive_id("tra", "advance", *name)
            movements.append(move(again, cost, clearing, amount_fen=due - own, code="correction_advanced"))
    return movements, advanced


def _move_payers(
    session: Session, order: Order, changes: Sequence[LineChange], clearing: Account, *, key: str, now: datetime
) -> list[Movement]:
    cash = firm_cash(session, order.organisation_id, now)
    movements = []
    for change in changes:
        name = (key, str(change.line.position))
        if change.cash_fen:
            movements.append(_shift(name, "cash", cash, clearing, change.cash_fen))
        if change.voucher_fen:
            grant = _grant_account(session, change.line)
            movements.append(_shift(name, "voucher", grant, clearing, change.voucher_fen))
    return movements


def _hand_out(
    session: Session, parts: Sequence[Sequence[Given]], clearing: Account, *, key: str, now: datetime
) -> list[Movement]:
    return [
        move(
            derive_id("tra", "part", key, str(index), given.party, given.organisation_id),
            clearing,
            receiving_account(session, given, now),
            amount_fen=given.amount_fen,
            code=f"income_{given.party}",
        )
        for index, line in enumerate(parts)
        for given in line
        if given.amount_fen > 0
    ]


def _shift(name: tuple[str, str], purse: str, payer: Account, clearing: Account, amount_fen: int) -> Movement:
    """Return a payer's difference: more is taken from it, less is given back to it."""
    transfer_id = derive_id("tra", "correct", *name, purse)
    if amount_fen > 0:
        return move(transfer_id, payer, clearing, amount_fen=amount_fen, code=f"{purse}_corrected")
    return move(transfer_id, clearing, payer, amount_fen=-amount_fen, code=f"{purse}_returned")


def _grant_account(session: Session, line: QuoteLine) -> Account:
    grant = session.get_one(Grant, line.covers[0].grant_id)
    return session.get_one(Account, grant.account_id)


def _explain(changes: Sequence[LineChange], error: AccountLimitError) -> Exception:
    if error.extra["kind"] != AccountKind.FIRM_CASH:
        return error
    needed = sum(change.cash_fen for change in changes)
    return InsufficientFundsError(
        f"The correction needs {needed} fen of the firm's cash, {error.extra['available_fen']} fen are available; "
        "nothing was posted. Ask the firm to deposit the rest.",
        f"更正需企业自付 {needed} 分，可用 {error.extra['available_fen']} 分，未入账。请企业补足。",
        available_fen=error.extra["available_fen"],
        needed_fen=needed,
    )
