"""Faults 13, 14, 16, 17: the chainer crashed and doubled, a chain rewritten, a backup restored, tables migrated."""

import sqlite3
import subprocess
import threading
from pathlib import Path

from sqlalchemy import insert, make_url, select
from sqlalchemy.exc import DBAPIError

from hub.audit.chain import chain_all
from hub.audit.checking import check_audit
from hub.audit.checkpoints import make_checkpoint, read_notes
from hub.audit.signing import AuditKey
from hub.cli.home import migrate_database
from hub.database import Sessions, open_sessions
from hub.tables import metadata
from tests.faults import story
from tests.faults.ground import NOW, Ground
from tests.faults.paying import count_double, pay
from tests.faults.tally import take_tally
from tests.faults.test_crashes import durable
from tests.hub.audit.test_chain import tamper
from tests.hub.money.market import Market
from tests.hub.money.postgres import _choose_user, find_binaries

__all__ = ["durable"]
KEY = AuditKey("faults")


def problems(sessions: Sessions, notes: list[str]) -> list[str]:
    with sessions.read() as session:
        return check_audit(session, notes, KEY.public)


def test_the_chainer_survives_the_database(durable: Ground, tmp_path: Path) -> None:
    """Fault 13: two chainers at once on a database that is crashed twice under them: no fork, no gap."""
    cluster, made = durable.cluster, [0, 0]
    assert cluster is not None
    with durable.market(durable.copy()) as market:
        for number in range(60):
            pay(market.sessions, f"pay-{number}", market.owner("factory"))
        stopping = threading.Event()

        def chain(place: int) -> None:
            while not stopping.is_set():
                try:
                    made[place] += chain_all(market.sessions, limit=3)
                except DBAPIError:
                    stopping.wait(0.05)

        threads = [threading.Thread(target=chain, args=(place,)) for place in (0, 1)]
        for thread in threads:
            thread.start()
        for kill in (True, False):
            stopping.wait(0.3)
            cluster.crash(kill=kill)
            cluster.start()
        for number in range(60, 80):
            _insist(market, f"pay-{number}")
        stopping.set()
        for thread in threads:
            thread.join()
        tally = take_tally(market.sessions, "13 two chainers, two crashes")
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        assert problems(market.sessions, read_notes(tmp_path)) == []
    assert tally.sound, tally


def test_a_rewritten_chain_is_found_outside(market: Market, tmp_path: Path) -> None:
    """Fault 14: an administrator edits a row and chains everything anew; the signed checkpoint outside tells."""
    story.deposit(market)
    chain_all(market.sessions)
    make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
    tamper(market.sessions, "ledger_transfers", "update", "UPDATE ledger_transfers SET actor_id = 'usr_x'")
    tamper(market.sessions, "audit_records", "delete", "DELETE FROM audit_records")
    with market.sessions.engine.begin() as connection:
        for statement in ("DELETE FROM audit_heads", "DELETE FROM audit_positions"):
            connection.exec_driver_sql(statement)
    chain_all(market.sessions)
    assert problems(market.sessions, []) == []
    found = problems(market.sessions, read_notes(tmp_path))
    assert found
    assert "was signed over root" in found[0]


def test_a_restored_backup_holds_and_goes_on(ground: Ground, place: str, tmp_path: Path) -> None:
    """Fault 16: restored to a point, the trail holds; what came later is sent again and is applied once."""
    with ground.market(place) as market:
        story.deposit(market)
        chain_all(market.sessions)
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        notes = read_notes(tmp_path)
        backup = _back_up(ground, place, tmp_path)
        for key in ("later-1", "later-2"):
            pay(market.sessions, key, market.owner("factory"))
        chain_all(market.sessions)
    with ground.market(backup) as market:
        assert problems(market.sessions, notes) == []
        for key in ("later-1", "later-2", "later-1"):
            pay(market.sessions, key, market.owner("factory"))
        story.deposit(market)
        keys = ["later-1", "later-2"]
        tally = take_tally(
            market.sessions, "16 restored", sent=keys, acked=keys, double=0 if count_double(market.sessions) else 1
        )
        assert problems(market.sessions, notes) == []
    assert tally.sound, tally


def test_a_migrated_database_holds_the_same_books(ground: Ground, place: str, tmp_path: Path) -> None:
    """Fault 17 and I22: rows carried into a database that the migrations made: same balances, same trail."""
    target = f"sqlite:///{tmp_path / 'migrated.sqlite3'}"
    if ground.cluster is not None:
        target = ground.cluster.create()
    with ground.market(place) as market:
        for step in story.STEPS[:9]:
            step(market)
        chain_all(market.sessions)
        before = story.read_balances(market)
        migrate_database(target)
        _carry_over(market.sessions, target)
        migrate_database(target)
    with ground.market(target) as market:
        assert story.read_balances(market) == before
        assert problems(market.sessions, []) == []
        tally = take_tally(market.sessions, "17 migrated")
    assert tally.sound, tally


def _insist(market: Market, key: str) -> None:
    while True:
        try:
            pay(market.sessions, key, market.owner("factory"))
        except DBAPIError:
            continue
        return


def _back_up(ground: Ground, url: str, folder: Path) -> str:
    """Return the URL of a restored backup: SQLite's own backup, pg_dump read into a new database."""
    if ground.cluster is None:
        target = folder / "restored.sqlite3"
        with sqlite3.connect(url.removeprefix("sqlite:///")) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return f"sqlite:///{target}"
    restored = ground.cluster.create()
    names = [str(make_url(place).database) for place in (url, restored)]
    binaries, socket = find_binaries(), str(ground.cluster.home)
    dump = subprocess.run(
        [str(binaries / "pg_dump"), "-h", socket, "-U", "guanmo", names[0]],
        check=True,
        capture_output=True,
        user=_choose_user(),
        cwd="/",
        timeout=60,
    )
    subprocess.run(
        [str(binaries / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-h", socket, "-U", "guanmo", names[1]],
        check=True,
        input=dump.stdout,
        stdout=subprocess.DEVNULL,
        user=_choose_user(),
        cwd="/",
        timeout=60,
    )
    return restored


def _carry_over(sessions: Sessions, target: str) -> None:
    opened = open_sessions(target)
    with sessions.engine.connect() as source, opened.engine.begin() as sink:
        if sessions.engine.dialect.name == "postgresql":
            sink.exec_driver_sql("SET session_replication_role = replica")
        else:
            sink.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        for table in metadata.sorted_tables:
            rows = [dict(row) for row in source.execute(select(table)).mappings()]
            if rows:
                sink.execute(insert(table), rows)
    opened.close()
