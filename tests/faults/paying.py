"""One small payment after another, under ids of their maker: what crash tests send, lose and send again.

It leaves crashing to the tests.
"""

from sqlalchemy import func, select

from hub.database import Sessions
from hub.events.service import record_event
from hub.ledger.movements import move
from hub.ledger.service import Posted, find_transfer, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind, Transfer
from tests.faults.ground import NOW

AMOUNT_FEN = 7


def pay(sessions: Sessions, key: str, organisation_id: str) -> bool:
    """Book one payment with its event and say whether it is new; the same key again changes nothing."""
    with sessions.write() as session:
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=NOW)
        cash = open_account(session, organisation_id=organisation_id, kind=AccountKind.FIRM_CASH, now=NOW)
        known = find_transfer(session, key)
        moved = [move(key, bank, cash, amount_fen=AMOUNT_FEN, code="deposit")]
        post_group(session, f"g_{key}", moved, Posted("deposit", key, "usr_1", NOW))
        if known is None:
            record_event(session, "deposit.booked", key, organisation_id=organisation_id, actor_id="usr_1", now=NOW)
        return known is None


def count_double(sessions: Sessions) -> int:
    """Return how many payments the balances hold beyond one for each id, from what the transfers add up to."""
    with sessions.read() as session:
        count, total = session.execute(
            select(func.count(func.distinct(Transfer.business_id)), func.sum(Transfer.amount_fen)).where(
                Transfer.business_id.like("pay-%")
            )
        ).one()
        return int(total or 0) // AMOUNT_FEN - int(count)
