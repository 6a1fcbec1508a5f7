"""Faults 13, 14, 16, 17: the chainer crashed and doubled, a chain rewritten, a backup restored, tables migrated."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

import hub.migrations
from hub.audit.chain import chain_all
from hub.audit.checking import check_audit
from hub.audit.checkpoints import make_checkpoint, read_notes
from hub.audit.export import read_period, write_export
from hub.audit.signing import AuditKey
from hub.audit.verifier.report import verify
from hub.cli.home import migrate_database
from hub.database import Sessions
from hub.ledger.tables import Transfer
from tests.faults import story
from tests.faults.copying import back_up, carry_over
from tests.faults.ground import NOW, Ground
from tests.faults.paying import count_double, pay
from tests.faults.tally import take_tally
from tests.faults.test_crashes import Writers, durable
from tests.hub.audit.test_chain import tamper
from tests.hub.money.market import Market

__all__ = ["durable"]
KEY = AuditKey("faults")


def problems(sessions: Sessions, notes: list[str]) -> list[str]:
    with sessions.read() as session:
        return check_audit(session, notes, KEY.public)


def test_the_chainer_survives_the_database(durable: Ground, tmp_path: Path) -> None:
    """Fault 13: two chainers at once on a database that is crashed twice under them: no fork, no gap."""
    cluster, made, worst_s = durable.cluster, [0, 0], 0.0
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
            began = time.monotonic()
            cluster.crash(kill=kill)
            cluster.start()
            worst_s = max(worst_s, time.monotonic() - began)
        for number in range(60, 80):
            _insist(market, f"pay-{number}")
        stopping.set()
        for thread in threads:
            thread.join()
        keys = [f"pay-{number}" for number in range(80)]
        tally = take_tally(market.sessions, "13 two chainers, two crashes", sent=keys, acked=keys, recovery_s=worst_s)
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        assert problems(market.sessions, read_notes(tmp_path)) == []
    assert tally.sound, tally


def test_chainers_that_are_killed_make_one_chain(ground: Ground, place: str, tmp_path: Path, long: bool) -> None:
    """Fault 13: two chainers in processes of their own, each killed again and again in the middle of a link."""
    rng, keys = Random(13), [f"pay-{number}" for number in range(40)]
    with ground.market(place) as market:
        for key in keys:
            pay(market.sessions, key, market.owner("factory"))
    for _ in range(25 if long else 4):
        children = [_start_chainer(ground, place) for _ in range(2)]
        time.sleep(rng.uniform(0.02, 0.3))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    with ground.market(place) as market:
        began = time.monotonic()
        chain_all(market.sessions)
        recovery_s = time.monotonic() - began
        tally = take_tally(market.sessions, "13 chainers killed", sent=keys, acked=keys, recovery_s=recovery_s)
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        assert problems(market.sessions, read_notes(tmp_path)) == []
    assert tally.sound, tally


REWRITES = {
    "who did it": [("ledger_transfers", "UPDATE ledger_transfers SET actor_id = 'usr_x' WHERE code = 'deposit'")],
    "an amount wherever it stands": [
        ("ledger_transfers", "UPDATE ledger_transfers SET amount_fen = 60000 WHERE code = 'deposit'"),
        (
            "ledger_entries",
            "UPDATE ledger_entries SET amount_fen = 60000, debits_posted = debits_posted * 6 / 5, "
            "credits_posted = credits_posted * 6 / 5 "
            "WHERE transfer_id IN (SELECT id FROM ledger_transfers WHERE code = 'deposit')",
        ),
        (
            "",
            "UPDATE ledger_accounts SET debits_posted = debits_posted * 6 / 5, "
            "credits_posted = credits_posted * 6 / 5 WHERE id IN (SELECT account_id FROM ledger_entries "
            "WHERE transfer_id IN (SELECT id FROM ledger_transfers WHERE code = 'deposit'))",
        ),
    ],
    "that it ever was": [("events", "DELETE FROM events WHERE topic = 'deposit.booked'")],
}
"""What the administrator rewrites: the table whose protection goes first, and the statement."""


@pytest.mark.parametrize("what", REWRITES)
def test_a_rewritten_chain_is_found_outside(market: Market, tmp_path: Path, what: str) -> None:
    """Fault 14: an administrator edits rows and chains everything anew; the signed checkpoint outside tells."""
    story.deposit(market)
    chain_all(market.sessions)
    make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
    for table, statement in REWRITES[what]:
        rewrite(market.sessions, table, statement)
    tally = take_tally(market.sessions, f"14 rewritten: {what}", sent=["1"], acked=["1"], found=["1"])
    # I5 sees that a protection is gone; whoever puts it back is only found by the checkpoint outside.
    assert replace(tally, broken_invariants=0).sound, tally
    tamper(market.sessions, "audit_records", "delete", "DELETE FROM audit_records")
    with market.sessions.engine.begin() as connection:
        for statement in ("DELETE FROM audit_heads", "DELETE FROM audit_positions"):
            connection.exec_driver_sql(statement)
    chain_all(market.sessions)
    assert problems(market.sessions, []) == []
    assert any("was signed" in line for line in problems(market.sessions, read_notes(tmp_path)))
    # A note that the administrator signs himself, over the new chain, is no better.
    tamper(market.sessions, "audit_checkpoints", "delete", "DELETE FROM audit_checkpoints")
    forged = tmp_path / "forged"
    make_checkpoint(market.sessions, AuditKey("another"), forged, now=NOW)
    assert problems(market.sessions, read_notes(forged)) != []


def test_a_backup_made_under_load_holds_and_goes_on(ground: Ground, place: str, tmp_path: Path) -> None:
    """Fault 16: backed up while four writers pay, restored, verified; what is sent again exists or is applied once."""
    with ground.market(place) as market:
        story.deposit(market)
        chain_all(market.sessions)
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        notes, writers = read_notes(tmp_path), Writers(market.sessions, market.owner("factory"))
        while len(writers.acked) < 20:
            time.sleep(0.02)
        backup = back_up(ground, place, tmp_path)
        writers.stop()
    with ground.market(backup) as market:
        assert problems_before_chaining(market.sessions, notes) == []
        began = time.monotonic()
        exists = sum(not pay(market.sessions, key, market.owner("factory")) for key in writers.sent)
        recovery_s = time.monotonic() - began
        story.deposit(market)
        tally = take_tally(
            market.sessions,
            "16 restored from a backup under load",
            sent=writers.sent,
            acked=writers.acked,
            exists=exists,
            double=count_double(market.sessions),
            recovery_s=recovery_s,
        )
        assert problems(market.sessions, notes) == []
        make_checkpoint(market.sessions, KEY, tmp_path / "later", now=NOW)
        with market.sessions.read() as session:
            write_export(session, tmp_path / "export", read_period(None, "2026-12"), public=KEY.public)
    assert tally.sound, tally
    assert 20 <= exists <= len(writers.sent)
    holds, lines = verify(tmp_path / "export")
    assert holds, lines


def test_down_and_up_again_with_the_rows_kept(ground: Ground, place: str, tmp_path: Path) -> None:
    """Fault 17 and I22: the only migration, both ways under a populated database: same balances, same trail, goes on.

    Down drops the tables, so the rows are carried out before and back in after; a second migration will have more.
    """
    away = f"sqlite:///{tmp_path / 'away.sqlite3'}" if ground.cluster is None else ground.cluster.create()
    with ground.market(place) as market:
        for step in story.STEPS[:13]:
            step(market)
        chain_all(market.sessions)
        make_checkpoint(market.sessions, KEY, tmp_path, now=NOW)
        before = story.read_outcome(market)
        assert take_tally(market.sessions, "17 before").sound
        migrate_database(away)
        carry_over(market.sessions, away)
    _migrate_down(away)
    migrate_database(away)
    with ground.market(away) as market, market.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Transfer)) == 0
    with ground.market(place) as market:
        carry_over(market.sessions, away)
    migrate_database(away)  # nothing is left to do
    with ground.market(away) as market:
        assert story.read_outcome(market) == before
        assert problems(market.sessions, read_notes(tmp_path)) == []
        for step in story.STEPS:
            step(market)
        tally = take_tally(market.sessions, "17 down, up, and on to the end of the story")
    assert tally.sound, tally


def rewrite(sessions: Sessions, table: str, statement: str) -> None:
    """Do as a database administrator can, with a table's protection taken away where it has one."""
    if table:
        tamper(sessions, table, statement.partition(" ")[0].lower(), statement)
        return
    with sessions.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def problems_before_chaining(sessions: Sessions, notes: list[str]) -> list[str]:
    """Return what is wrong with a trail whose newest rows the chainer had not reached yet."""
    return [line for line in problems(sessions, notes) if "are on no link" not in line]


def _migrate_down(url: str) -> None:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(hub.migrations.__file__).parent))
    configuration.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.downgrade(configuration, "base")


def _start_chainer(ground: Ground, url: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            with ground.market(url) as market:
                while True:
                    chain_all(market.sessions, limit=3)
        finally:
            os._exit(70)
    return child


def _insist(market: Market, key: str) -> None:
    while True:
        try:
            pay(market.sessions, key, market.owner("factory"))
        except DBAPIError:
            continue
        return
