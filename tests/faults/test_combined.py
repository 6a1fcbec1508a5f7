"""Fault 1 for holds that share a commit: killed anywhere, each caller is served or not at all; a repeat settles it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub import combining
from hub.app import create_api
from hub.database import Sessions
from hub.ledger.audit import check_books
from hub.ledger.joint import Posting
from hub.ledger.movements import hold
from hub.ledger.rules import AccountLimitError
from hub.ledger.service import Group, Posted, open_account
from hub.ledger.tables import Account, AccountKind, Transfer
from hub.orders.tables import Order
from hub.orders.usage_tables import Allowance
from hub.settings import Settings
from serving import contract
from tests.faults.boundaries import COMMIT, Range
from tests.faults.ground import Ground
from tests.faults.story import read_outcome
from tests.faults.tally import take_tally
from tests.hub.ledger.test_combining import Work, count_commits, line_up, run_together
from tests.hub.money.market import Market
from tests.hub.money.test_money_api import ROOMS, SECRETS, Client

Ask = Callable[[], Any]
CASH_FEN = 100
WISHES = {"broke": 101, "first": 10, "second": 20, "third": 30, "greedy": 90, "fourth": 40}
FITTING = [name for name in WISHES if name not in ("broke", "greedy")]
"""Together they take all there is; the greedy one does not fit behind the first three, and the broke one not at all."""


@pytest.mark.parametrize("joint", [False, True], ids=["works", "postings"])
def test_killed_anywhere_each_caller_is_served_or_not_at_all(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joint: bool
) -> None:
    monkeypatch.setattr(combining, "LONGEST_S", 60)  # no slow machine decides who is taken along
    before, acks = ground.copy(), tmp_path / "acks"
    with ground.market(before) as market:
        market.fund("factory", CASH_FEN, "bank-1")
    sound, aimed = ground.copy(before), Range(ground, before)

    def step(market: Market) -> None:
        hold_together(market, acks, joint=joint)

    places = aimed.list_places(sound, step)
    assert places.count(COMMIT) == 2  # of the account, and of all who waited while the first was refused
    wanted = read_outcome(aimed.aim(sound))
    assert list_held(aimed.market.sessions) == set(FITTING)
    acked_at: list[str] = []
    for number in range(len(places)):
        url = ground.copy(before)
        acks.unlink(missing_ok=True)
        aimed.die_at(url, step, number)
        answered = set(acks.read_text().split()) if acks.exists() else set()
        market = aimed.aim(url)
        held = list_held(market.sessions)
        assert answered <= held
        assert held in (set(), set(FITTING)), places[number]
        step(market)
        assert read_outcome(market) == wanted, places[number]
        acked_at += [f"{name} {number}" for name in answered]
        aimed.close()
        ground.drop(url)
    sent = [f"{name} {number}" for name in list_wishes(joint=joint) for number in range(len(places))]
    name = f"1 combined {'postings' if joint else 'holds'} killed at {len(places)} places"
    tally = take_tally(aimed.aim(sound).sessions, name, sent=sent, acked=acked_at, found=acked_at)
    aimed.close()
    for url in (before, sound):
        ground.drop(url)
    assert tally.sound, tally
    assert len(places) > 10


def test_requests_over_http_that_wait_share_a_commit(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices for a gateway and an accepted quote of one firm, as they come over the hub's address."""
    monkeypatch.setattr(combining, "LONGEST_S", 60)
    monkeypatch.setattr("hub.app.ROOMS", ROOMS)
    market.fund("factory", 8_000, "bank-1")
    owner, quote = market.owner("factory"), market.quote(offer="private")
    settings = Settings(home=tmp_path, database_url="")
    app = create_api(settings, secrets=SECRETS, sessions=market.sessions, clock=lambda: market.now)
    client, sessions = Client(app, market), market.sessions

    def draw(key: str, want_ufen: int) -> Ask:
        wanted = contract.encode(contract.AllowanceRequest("gw", 1, key, owner, None, market.call_price, want_ufen))
        return lambda: client.call("POST", "/internal/v1/allowances", "gateway", wanted)

    accept = f"/api/v1/quotes/{quote.id}/accept"
    asks: list[Ask] = [
        draw("a", 10**8),
        draw("a", 10**8),
        draw("a", 10**7),
        lambda: client.call("POST", accept, "factory", {"idempotency_key": "k"}),
        lambda: client.call("POST", accept, "factory", {"idempotency_key": "other"}),
        draw("b", 0),
        draw("c", 10**8),
    ]
    commits = count_commits(sessions)
    busy = line_up(sessions, asks, lambda go_on: sessions.combine(f"money {owner}", lambda _: go_on()))
    answers = [future.result() for future in busy[1:]]
    assert [answer.status_code for answer in answers] == [200, 200, 409, 201, 409, 422, 200]
    assert answers[0].json == answers[1].json
    assert len(commits) == 1
    with sessions.read() as session:
        assert len(session.scalars(select(Order)).all()) == 1
        assert len(session.scalars(select(Allowance)).all()) == 2
        assert check_books(session) == []


def list_wishes(*, joint: bool) -> list[str]:
    """Return who wishes; one that does not fit would have postings called one by one."""
    return [name for name in WISHES if not (joint and name == "greedy")]


def hold_together(market: Market, acks: Path, *, joint: bool) -> None:
    """Let all wish at once, the broke one ahead; whoever is served says so, and who does not fit is refused."""
    with market.sessions.write() as session:
        owner = market.owner("factory")
        cash = open_account(session, organisation_id=owner, kind=AccountKind.FIRM_CASH, now=market.now)
        clearing = open_account(
            session, organisation_id=owner, kind=AccountKind.CLEARING, subject="together", now=market.now
        )
    names = list_wishes(joint=joint)
    first, *others = [_wish(market, name, (cash, clearing), joint=joint) for name in names]
    futures = run_together(market.sessions, others, first, done=lambda posted: _note(acks, posted[0].business_id))
    for name, future in zip(names, futures, strict=True):
        if name in FITTING:
            assert future.result()[0].business_id == name
        else:
            assert isinstance(future.exception(), AccountLimitError)


def list_held(sessions: Sessions) -> set[str]:
    """Return whose holds are in the books."""
    with sessions.read() as session:
        return set(session.scalars(select(Transfer.business_id).where(Transfer.code == "together")))


def _wish(market: Market, name: str, accounts: tuple[Account, Account], *, joint: bool) -> Work:
    movement = hold(f"tra_{name}", *accounts, amount_fen=WISHES[name], code="together", lease_s=60)
    posted = Posted("test", name, "usr_1", market.now)
    posting = Posting(Group(f"grp_{name}", [movement], posted))
    return posting if joint else lambda session: posting(session)


def _note(acks: Path, name: str) -> None:
    file = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{name}\n".encode())
    os.close(file)
