"""Pays a provider, at the platform's cost, for time that passed and that the customer is not charged.

It leaves the bill itself to `settlement` and `corrections`.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from hub.ledger.movements import difference, move
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import find_account, list_transfers, open_account
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.orders.parts import SELLER, Given, receiving_account
from hub.orders.tables import Order, QuoteLine
from hub.prices.rules import fee_fen

ELAPSED = "elapsed_device_ms"
"""The figure of an order's meter that says how much time passed."""
PAID = "elapsed_time_paid"
CORRECTED = "elapsed_time_corrected"


def due_fen(line: QuoteLine, metered: Mapping[str, int], charged_fen: int) -> int:
    """Return what the platform adds to a device line charged `charged_fen`, so that all the time is paid."""
    return max(0, fee_fen(metered.get(ELAPSED, 0), line.amount_fen, line.per_units) - charged_fen)


def pay_elapsed(session: Session, order: Order, line: QuoteLine, amount_fen: int, now: datetime) -> list[Movement]:
    """Return the payment that closes an order, straight from the platform's cost to the provider."""
    if not amount_fen:
        return []
    cost = open_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST, now=now)
    provider = receiving_account(session, Given("provider", line.seller_organisation_id, amount_fen), now)
    return [move(derive_id("tra", "elapsed", order.id), cost, provider, amount_fen=amount_fen, code=PAID)]


def read_paid_fen(session: Session, order: Order) -> int:
    """Return what the platform has paid for an order's time, less what corrections gave back to it."""
    cost = find_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST)
    if cost is None:
        return 0
    rows = [row for row in list_transfers(session, order.id) if row.code in (PAID, CORRECTED)]
    return sum(row.amount_fen if row.debit_id == cost.id else -row.amount_fen for row in rows)


def correct_elapsed(session: Session, clearing: Account, change_fen: int, *, key: str, now: datetime) -> list[Movement]:
    """Return what the platform adds through clearing, or gets back where `change_fen` is negative."""
    cost = open_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST, now=now)
    name = derive_id("tra", "elapsed", key)
    return difference(name, cost, clearing, was_fen=0, now_fen=change_fen, code=CORRECTED)


def count_elapsed(given: list[Given], line: QuoteLine, change_fen: int) -> list[Given]:
    """Return who receives how much of a line's difference, with that of the platform's payment on the provider's part.

    Both in one sum: what the customer now pays for time that was paid before leaves the provider with the same.
    """
    provider = line.seller_organisation_id
    own = next((part for part in given if part.organisation_id == provider), Given(SELLER, provider, 0))
    return [
        *(part for part in given if part is not own),
        Given(own.party, provider, own.amount_fen + change_fen),
    ]
