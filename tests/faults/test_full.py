"""Fault 15: the disk is full, everybody wants to write, the server is away: refused by code, nothing half there."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from hub.app import create_api
from hub.database import Sessions, open_sessions
from hub.ledger.movements import move
from hub.ledger.service import Group, Posted, open_account, post_groups
from hub.ledger.tables import PLATFORM, AccountKind
from hub.outages import explain_outage
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from tests.faults.cluster import Cluster
from tests.faults.ground import NOW, Ground
from tests.faults.paying import AMOUNT_FEN, count_double, pay
from tests.faults.tally import take_tally
from tests.hub.money.market import Market

FILE_LIMIT_BYTES = 2 * 2**20 + 4096
"""Not a multiple of PostgreSQL's page: the write at the limit is cut short, which it reports as a full disk."""


def pay_until_refused(sessions: Sessions, keys: Sequence[str], owner: str) -> tuple[list[str], list[str]]:
    """Pay under each key and return the acknowledged keys and the refusals' codes."""
    acked, codes = [], []
    for key in keys:
        try:
            pay(sessions, key, owner)
            acked.append(key)
        except DBAPIError as error:
            codes.append(name_outage(error))
    return acked, codes


def name_outage(error: DBAPIError) -> str:
    """Return the code by which a client would hear of a failure; the failure's own words where it has none."""
    outage = explain_outage(error)
    return outage.code if outage else str(error)


def prove(sessions: Sessions, name: str, keys: Sequence[str], acked: Sequence[str], owner: str) -> None:
    """Show that exactly what was acknowledged is there, then send all again and show that each is there once."""
    before = take_tally(sessions, f"15 {name}", sent=keys, acked=acked, double=count_double(sessions))
    assert before.sound, before
    assert before.in_db == len(acked)
    exists = sum(not pay(sessions, key, owner) for key in keys)
    after = take_tally(
        sessions, f"15 {name}, room again", sent=keys, acked=keys, exists=exists, double=count_double(sessions)
    )
    assert after.sound, after
    assert (after.in_db, exists) == (len(keys), len(acked))


def test_a_full_disk_refuses_cleanly_on_sqlite(sqlite_ground: Ground) -> None:
    """SQLITE_FULL in the middle; with room again the same ids go through."""
    url, keys, owner = sqlite_ground.copy(), [f"pay-{n}" for n in range(120)], sqlite_ground.pattern.owner("factory")
    opened = open_sessions(url)
    event.listen(opened.engine, "connect", _allow_few_pages)
    acked, codes = pay_until_refused(opened, keys, owner)
    opened.close()
    assert len(acked) > 5
    assert len(codes) > 5
    assert set(codes) == {"storage_full"}
    with sqlite_ground.market(url) as market:
        prove(market.sessions, "disk full", keys, acked, owner)
    sqlite_ground.drop(url)


def test_a_full_disk_refuses_cleanly_on_postgresql(tmp_path: Path) -> None:
    """The server's files may grow no further; restarted with room, the same ids go through."""
    cluster = Cluster(durable=False)
    try:
        ground = Ground("postgresql", tmp_path / "ground", cluster)
        owner = ground.pattern.owner("factory")
        with ground.market(ground.copy()) as market:
            cluster.crash(kill=False)
            cluster.start(file_limit_bytes=FILE_LIMIT_BYTES)
            market.sessions.close()
            _fill(market.sessions, owner)
            keys = [f"pay-{number}" for number in range(12)]
            acked, codes = pay_until_refused(market.sessions, keys, owner)
            assert set(codes) == {"storage_full"}
            cluster.crash(kill=False)
            cluster.start()
            market.sessions.close()
            prove(market.sessions, "disk full", keys, acked, owner)
    finally:
        cluster.close()


def test_a_storm_of_writers_is_refused_cleanly(sqlite_ground: Ground) -> None:
    """SQLITE_BUSY for as long as somebody holds the file; nobody's payment is half there or doubled."""
    url, keys, owner = sqlite_ground.copy(), [f"pay-{n}" for n in range(32)], sqlite_ground.pattern.owner("factory")
    with sqlite_ground.market(url) as market:
        impatient = open_sessions(url)
        event.listen(impatient.engine, "connect", _wait_briefly)
        with market.sessions.write() as holder, ThreadPoolExecutor(8) as pool:
            holder.execute(text("UPDATE audit_positions SET done_seq = done_seq"))
            storm = list(pool.map(lambda key: pay_until_refused(impatient, [key], owner), keys))
        assert storm == [([], ["database_busy"])] * len(keys)
        impatient.close()
        prove(market.sessions, "busy storm", keys, [], owner)
    sqlite_ground.drop(url)


def test_the_api_names_a_full_disk(sqlite_ground: Ground, tmp_path: Path) -> None:
    """Over HTTP the operator reads what to do, and the same deposit goes through once there is room."""
    with sqlite_ground.market(sqlite_ground.copy()) as market:
        pragmas = ["PRAGMA max_page_count=1"]
        event.listen(market.sessions.engine, "connect", lambda raw, _: raw.execute(pragmas[-1]))
        answers = [post_deposit(market, market.sessions, tmp_path, f"bank-{turn}") for turn in range(12)]
        status, told = answers[-1]
        assert (status, told["code"]) == (507, "storage_full"), answers
        assert "free disk space" in told["detail"]
        pragmas.append("PRAGMA max_page_count=1073741823")
        market.sessions.close()
        status, told = post_deposit(market, market.sessions, tmp_path, "bank-11")
        booked = sum(status == 201 for status, _ in answers)
        assert (status, told["wallet"]["balance_fen"]) == (201, AMOUNT_FEN * (booked + 1))
        assert take_tally(market.sessions, "15 disk full over HTTP").sound


def test_the_api_names_a_database_that_is_busy_or_away(
    sqlite_ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.database.BUSY_TIMEOUT_MS", 30)
    with sqlite_ground.market(sqlite_ground.copy()) as market:
        with market.sessions.write() as holder:
            holder.execute(text("UPDATE audit_positions SET done_seq = done_seq"))
            busy, told = post_deposit(market, market.sessions, tmp_path, "bank-1")
        assert (busy, told["code"]) == (503, "database_busy")
        nowhere = open_sessions(f"postgresql+psycopg://guanmo@/none?host={tmp_path}")
        away, told = post_deposit(market, nowhere, tmp_path, "bank-1")
        assert (away, told["code"]) == (503, "database_away")


def post_deposit(market: Market, sessions: Sessions, home: Path, reference: str) -> tuple[int, Any]:
    """Book a deposit over HTTP and return the status and the answer."""
    app = create_api(
        Settings(home=home, database_url=""),
        secrets=Secrets({name: f"{name} of the tests" for name in NAMES}),
        sessions=sessions,
        clock=lambda: market.now,
    )
    headers = {"Authorization": f"Bearer {market.tokens['operator']}", "Accept-Language": "en"}
    body = {"organisation_id": market.owner("factory"), "amount_fen": AMOUNT_FEN, "reference": reference}
    answer = app.test_client().post("/api/v1/deposits", headers=headers, json=body)
    return answer.status_code, answer.json


def _fill(sessions: Sessions, owner: str) -> None:
    """Post in large batches until a table's file has reached the limit."""
    for turn in range(400):
        try:
            with sessions.write() as session:
                bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=NOW)
                cash = open_account(session, organisation_id=owner, kind=AccountKind.FIRM_CASH, now=NOW)
                groups = [
                    Group(
                        f"g-{turn}-{number}",
                        [move(f"fill-{turn}-{number}", bank, cash, amount_fen=AMOUNT_FEN, code="fill")],
                        Posted("fill", f"fill-{turn}", "usr_1", NOW),
                    )
                    for number in range(200)
                ]
                post_groups(session, groups)
        except DBAPIError as error:
            if name_outage(error) == "storage_full":
                return
            raise
    raise AssertionError("the limit was never reached")


def _allow_few_pages(connection: Any, _record: object) -> None:
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 12}")


def _wait_briefly(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA busy_timeout=30")
