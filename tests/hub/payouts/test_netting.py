"""What a receiver was paid before a correction took it back is netted from its next payouts, to the fen."""

import pytest

from hub.ledger.audit import check_books
from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.payouts.debts import open_debt, read_debt
from hub.payouts.service import NotEnoughEarnedError
from tests.hub.money.market import Market
from tests.hub.payouts.test_payouts import ask, conclude, earned, send


def owe(market: Market, amount_fen: int) -> None:
    """Make a debt as a correction does: the platform lays the money out."""
    with market.sessions.write() as session:
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=market.now)
        debt = open_debt(session, market.owner("provider"), market.now)
        owed = move(f"tra_owed_{amount_fen}", debt, bank, amount_fen=amount_fen, code="correction_advanced")
        post_group(session, f"grp_owed_{amount_fen}", [owed], Posted("test", "t", "usr", market.now))


def debt_of(market: Market) -> int:
    with market.sessions.read() as session:
        assert check_books(session) == []
        return read_debt(session, market.owner("provider"))


def test_the_bank_sends_what_is_left_after_the_debt(earner: Market) -> None:
    owe(earner, 1200)
    payout = ask(earner, 3000)
    assert (payout.netted_fen, payout.sent_fen, payout.state) == (1200, 1800, "requested")
    assert ask(earner, 3000).id == payout.id
    assert debt_of(earner) == 0
    assert earned(earner) == (2000, 1800)
    send(earner, payout)
    conclude(earner, payout, "paid", reference="bank-1")
    assert earned(earner) == (2000, 0)
    assert ask(earner, 2000, key="p-2").netted_fen == 0


def test_a_debt_above_the_payout_takes_all_of_it_and_the_rest_later(earner: Market) -> None:
    owe(earner, 3500)
    payout = ask(earner, 3000)
    assert (payout.netted_fen, payout.sent_fen, payout.state) == (3000, 0, "netted")
    assert [step.state for step in payout.steps] == ["netted"]
    assert (debt_of(earner), earned(earner)) == (500, (2000, 0))
    assert ask(earner, 2000, key="p-2").sent_fen == 1500
    assert debt_of(earner) == 0


def test_a_failed_payout_gives_back_what_was_to_be_sent_and_the_debt_stays_paid(earner: Market) -> None:
    owe(earner, 1200)
    payout = ask(earner, 3000)
    send(earner, payout)
    conclude(earner, payout, "failed", reason="account closed")
    assert (debt_of(earner), earned(earner)) == (0, (3800, 0))


def test_more_than_was_earned_is_refused_and_nothing_netted(earner: Market) -> None:
    owe(earner, 1200)
    with pytest.raises(NotEnoughEarnedError, match="5000 fen are earned"):
        ask(earner, 5001)
    assert (debt_of(earner), earned(earner)) == (1200, (5000, 0))
