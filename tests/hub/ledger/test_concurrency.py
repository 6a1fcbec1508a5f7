"""Many at once on one account: no overspend, one winner per id, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from threading import Barrier

import pytest
from sqlalchemy import select

from hub.database import Sessions
from hub.ledger.audit import check_books
from hub.ledger.movements import hold, move, resolve
from hub.ledger.rules import AccountLimitError, HoldResolvedError
from hub.ledger.service import Group, Posted, find_transfer, open_account, post_group, post_groups
from hub.ledger.tables import PLATFORM, Account, AccountKind, Transfer, TransferKind

WORKERS = 8
CAP_FEN = 1_000
LARGEST_FEN = 23


def prepare(sessions: Sessions, now: datetime) -> tuple[Account, Account]:
    with sessions.write() as session:
        fund = open_account(session, organisation_id=PLATFORM, kind=AccountKind.APPROPRIATION, now=now)
        grant = open_account(session, organisation_id="org_1", kind=AccountKind.GRANT, subject="gra_1", now=now)
        clearing = open_account(session, organisation_id="org_1", kind=AccountKind.CLEARING, now=now)
        posted = Posted("t", "t", "u", now)
        post_group(session, "g0", [move("m0", fund, grant, amount_fen=CAP_FEN, code="award")], posted)
    return grant, clearing


def test_one_grant_is_never_overspent(both: Sessions, now: datetime) -> None:
    grant, clearing = prepare(both, now)
    barrier = Barrier(WORKERS)

    def spend(worker: int) -> int:
        barrier.wait()
        taken = 0
        for turn in range(12):
            key, amount = f"h_{worker}_{turn}", LARGEST_FEN - worker
            try:
                with both.write() as session:
                    wanted = [hold(key, grant, clearing, amount_fen=amount, code="hold")]
                    post_group(session, f"g_{key}", wanted, Posted("t", key, "u", now))
                taken += amount
            except AccountLimitError:
                continue
        return taken

    with ThreadPoolExecutor(WORKERS) as pool:
        taken = sum(pool.map(spend, range(WORKERS)))
    with both.read() as session:
        account = session.get_one(Account, grant.id)
        assert account.debits_pending == taken <= CAP_FEN
        assert CAP_FEN - taken < LARGEST_FEN  # somebody was refused, so less than the largest wish is left
        assert check_books(session) == []


def test_racing_ends_of_one_hold_have_one_winner(both: Sessions, now: datetime) -> None:
    grant, clearing = prepare(both, now)
    with both.write() as session:
        post_group(session, "g1", [hold("h", grant, clearing, amount_fen=100, code="hold")], Posted("t", "t", "u", now))
    with both.read() as session:
        held = find_transfer(session, "h")
    assert held is not None
    barrier = Barrier(WORKERS)

    def end(worker: int) -> bool:
        barrier.wait()
        try:
            with both.write() as session:
                wanted = [resolve(f"e_{worker}", held, amount_fen=worker, code="end")]
                post_group(session, f"ge_{worker}", wanted, Posted("t", "t", "u", now))
        except HoldResolvedError:
            return False
        return True

    with ThreadPoolExecutor(WORKERS) as pool:
        assert sum(pool.map(end, range(WORKERS))) == 1
    with both.read() as session:
        assert check_books(session) == []


def test_the_same_group_from_many_is_stored_once(both: Sessions, now: datetime) -> None:
    grant, clearing = prepare(both, now)
    barrier = Barrier(WORKERS)

    def send(_: int) -> str:
        barrier.wait()
        with both.write() as session:
            wanted = [hold("same", grant, clearing, amount_fen=10, code="hold")]
            return post_group(session, "g_same", wanted, Posted("t", "t", "u", now))[0].id

    with ThreadPoolExecutor(WORKERS) as pool:
        assert set(pool.map(send, range(WORKERS))) == {"same"}
    with both.read() as session:
        stored = session.scalars(select(Transfer).where(Transfer.kind == TransferKind.PENDING)).all()
        assert len(stored) == 1
        assert session.get_one(Account, grant.id).debits_pending == 10


def test_an_end_waits_for_the_one_under_way(both: Sessions, now: datetime) -> None:
    """The second reads the balances only after the first has committed; else it would write over them."""
    grant, clearing = prepare(both, now)
    posted = Posted("t", "t", "u", now)
    with both.write() as session:
        wanted = [hold(key, grant, clearing, amount_fen=100, code="hold") for key in ("h1", "h2")]
        first, second = post_group(session, "g1", wanted, posted)

    def end_second() -> None:
        with both.write() as session:
            post_group(session, "g3", [resolve("e2", second, amount_fen=30, code="end")], posted)

    with ThreadPoolExecutor(1) as pool:
        with both.write() as session:
            post_group(session, "g2", [resolve("e1", first, amount_fen=50, code="end")], posted)
            waiting = pool.submit(end_second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
        waiting.result(timeout=30)
    with both.read() as session:
        account = session.get_one(Account, grant.id)
        assert (account.debits_pending, account.debits_posted) == (0, 80)
        assert check_books(session) == []


def test_a_batch_waits_for_the_one_under_way(both: Sessions, now: datetime) -> None:
    grant, clearing = prepare(both, now)
    posted = Posted("t", "t", "u", now)

    def post(name: str) -> list[bool]:
        groups = [
            Group(f"{name}{turn}", [hold(f"{name}_{turn}", grant, clearing, amount_fen=300, code="hold")], posted)
            for turn in range(2)
        ]
        with both.write() as session:
            return post_groups(session, groups)

    with ThreadPoolExecutor(1) as pool:
        with both.write() as session:
            wanted = [hold(f"a_{turn}", grant, clearing, amount_fen=100, code="hold") for turn in range(2)]
            post_group(session, "a", wanted, posted)
            waiting = pool.submit(post, "b")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1)
        assert waiting.result(timeout=30) == [True, True]
    with both.read() as session:
        assert session.get_one(Account, grant.id).debits_pending == 800
        assert check_books(session) == []
