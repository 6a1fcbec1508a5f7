"""Faults 6 and 7: sixteen processes on one grant and one purse overspend nothing; one winner among many ends."""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier

from sqlalchemy import select, text

from hub.errors import ConflictError
from hub.ledger.movements import hold, resolve
from hub.ledger.rules import AccountLimitError
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind, Transfer
from hub.orders import service as orders
from hub.orders.tables import Charge, Order
from hub.orders.usage_tables import Allowance
from hub.vouchers.tables import Grant
from serving.contract import AllowanceGrant
from tests.faults.ground import Ground
from tests.faults.story import HOUR_MS
from tests.faults.tally import take_tally
from tests.hub.money.market import Market

PROCESSES = 16
CAP_FEN = 2_000
TURNS = 6


Taken = dict[str, int]
"""How much each key took; 0 where it was refused."""


def run_crowd(ground: Ground, url: str, act: Callable[[Market, int], Taken]) -> Taken:
    """Run `act` in sixteen processes at once and return what all of them say they took."""
    ready, go = os.pipe(), os.pipe()
    results = os.pipe()
    children = []
    for number in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                with ground.market(url) as market:
                    with market.sessions.read() as session:
                        session.execute(text("SELECT 1"))
                    os.write(ready[1], b".")
                    os.read(go[0], 1)
                    os.write(results[1], f"{json.dumps(act(market, number))}\n".encode())
            finally:
                os._exit(0)
        children.append(child)
    for _ in children:
        os.read(ready[0], 1)
    os.write(go[1], b"." * PROCESSES)
    for child in children:
        os.waitpid(child, 0)
    os.close(results[1])
    with os.fdopen(results[0]) as pipe:
        answers = [json.loads(line) for line in pipe]
    for end in (*ready, *go):
        os.close(end)
    assert len(answers) == PROCESSES
    return {key: taken for answer in answers for key, taken in answer.items()}


def prepare(ground: Ground) -> str:
    url = ground.copy()
    with ground.market(url) as market:
        market.award("model", CAP_FEN)
        market.fund("factory", CAP_FEN, "bank-1")
    return url


def test_sixteen_processes_on_one_grant(ground: Ground) -> None:
    def spend(market: Market, number: int) -> Taken:
        rng, taken = Random(number), Taken()
        for turn in range(TURNS):
            amount, key = rng.randrange(1, 97), f"h-{number}-{turn}"
            taken[key] = 0
            try:
                with market.sessions.write() as session:
                    grant = session.get_one(Account, session.scalars(select(Grant.account_id)).one())
                    clearing = open_account(
                        session,
                        organisation_id=market.owner("factory"),
                        kind=AccountKind.CLEARING,
                        subject="crowd",
                        now=market.now,
                    )
                    wanted = [hold(key, grant, clearing, amount_fen=amount, code="hold")]
                    post_group(session, f"g-{key}", wanted, Posted("crowd", key, "usr_1", market.now))
                taken[key] = amount
            except AccountLimitError:
                continue
        return taken

    url = prepare(ground)
    keys = run_crowd(ground, url, spend)
    taken = sum(keys.values())
    with ground.market(url) as market:
        with market.sessions.read() as session:
            account = session.get_one(Account, session.scalars(select(Grant.account_id)).one())
            assert account.debits_pending == taken <= CAP_FEN
            assert CAP_FEN - taken < 97  # somebody was refused
        with market.sessions.write() as session:
            held = session.scalars(select(Transfer).where(Transfer.code == "hold").order_by(Transfer.seq)).all()
            ends = [resolve(f"e-{row.id}", row, amount_fen=0, code="void") for row in held]
            post_group(session, "g-ends", ends, Posted("crowd", "ends", "usr_1", market.now))
        tally = take_tally(
            market.sessions,
            f"6 {PROCESSES} processes took {taken} of {CAP_FEN} fen",
            sent=keys,
            acked=[key for key, amount in keys.items() if amount],
        )
    ground.drop(url)
    assert tally.sound, tally


def test_sixteen_processes_on_one_purse(ground: Ground) -> None:
    def draw(market: Market, number: int) -> Taken:
        keys = [f"{number}-{turn}" for turn in range(2)]
        answers = {key: market.draw(key, want_ufen=90_000_000) for key in keys}
        return {key: answer.amount_ufen if isinstance(answer, AllowanceGrant) else 0 for key, answer in answers.items()}

    url = prepare(ground)
    keys = run_crowd(ground, url, draw)
    taken_ufen = sum(keys.values())
    with ground.market(url) as market:
        with market.sessions.read() as session:
            found = list(session.scalars(select(Allowance.idempotency_key)))
        assert 0 < taken_ufen <= CAP_FEN * 1_000_000
        name = f"6 {PROCESSES} gateways took {taken_ufen // 1_000_000} of {CAP_FEN} fen"
        acked = [key for key, amount in keys.items() if amount]
        tally = take_tally(market.sessions, name, sent=keys, acked=acked, found=found)
    ground.drop(url)
    assert tally.sound, tally


def test_the_naive_way_overspends(ground: Ground) -> None:
    """Read, decide, write: what we must not do, kept to show that the crowd would catch it."""

    def spend(market: Market, number: int) -> Taken:
        rng, taken = Random(number), 0
        for _ in range(TURNS * 4):
            amount = rng.randrange(1, 97)
            with market.sessions.read() as session:
                spent = session.scalar(text("SELECT spent FROM naive")) or 0
            if spent + amount <= CAP_FEN:
                with market.sessions.write() as session:
                    session.execute(text("UPDATE naive SET spent = :spent"), {"spent": spent + amount})
                taken += amount
        return {str(number): taken}

    url = prepare(ground)
    with ground.market(url) as market, market.sessions.write() as session:
        session.execute(text("CREATE TABLE naive (spent INTEGER)"))
        session.execute(text("INSERT INTO naive VALUES (0)"))
    taken = sum(run_crowd(ground, url, spend).values())
    ground.drop(url)
    sys.stdout.write(f"\n6 naive [{ground.kind}]: overspent {taken - CAP_FEN} fen of {CAP_FEN}\n")
    assert taken > CAP_FEN


def test_one_winner_among_many_ends(ground: Ground) -> None:
    """Fault 7: settle and refund race on each of several orders; one end wins, and the charges say which."""
    url = prepare(ground)
    with ground.market(url) as market:
        market.fund("factory", 50_000, "bank-2")
        keys = [f"order-{turn}" for turn in range(2)]
        for key in keys:
            _race(market, key)
        with market.sessions.read() as session:
            found = list(session.scalars(select(Order.idempotency_key).where(Order.state != "held")))
        name = f"7 {PROCESSES} ends of each of {len(keys)} orders"
        tally = take_tally(market.sessions, name, sent=keys, acked=keys, found=found, exists=PROCESSES * len(keys) - 2)
    ground.drop(url)
    assert tally.sound, tally


def _race(market: Market, key: str) -> None:
    quote = market.quote()
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=market.now)
    barrier = Barrier(PROCESSES)

    def end(number: int) -> str:
        metered = {"device_ms": HOUR_MS - number, "trained_tokens": 1_000 * number}
        barrier.wait()
        try:
            with market.sessions.write() as session:
                if number % 2:
                    return str(orders.settle_order(session, order.id, metered=metered, now=market.now).state)
                closed = orders.refund_order(
                    session, order.id, fault="cancel", reason_code="race", metered=metered, now=market.now
                )
                return str(closed.state)
        except ConflictError:
            return "refused"

    with ThreadPoolExecutor(PROCESSES) as pool:
        ends = list(pool.map(end, range(PROCESSES)))
    with market.sessions.read() as session:
        closed = orders.find_order(session, order.id)
        assert set(ends) == {str(closed.state), "refused"}
        charges = session.scalars(select(Charge).where(Charge.order_id == order.id)).all()
        assert len(charges) == len({charge.meter for charge in charges})
        assert sum(charge.fee_fen for charge in charges) == closed.charged_fen
