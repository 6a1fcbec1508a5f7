"""The chain takes every event and transfer once, in order, under races; whoever changes a row is found out."""

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DatabaseError

from hub.audit.annexes import read_annex
from hub.audit.chain import GENESIS, chain_all, chain_outboxes, count_missing, leaf_of, link
from hub.audit.checking import check_audit
from hub.audit.checkpoints import (
    FILE,
    AuditBrokenError,
    list_leaves,
    make_checkpoint,
    make_due_checkpoint,
    read_last,
    read_notes,
)
from hub.audit.signing import AuditKey, CheckpointRefusedError, read_note
from hub.audit.tables import AuditHead, AuditRecord, Outbox
from hub.audit.tree import root_of_leaves
from hub.database import Sessions
from hub.events.service import record_event
from hub.events.tables import Event
from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from tests.hub.money.market import Market

UNPROTECT = {
    "sqlite": "DROP TRIGGER {table}_refuse_{verb}",
    "postgresql": "ALTER TABLE {table} DISABLE TRIGGER {table}_refuse_{verb}",
}


def pay(sessions: Sessions, key: str, now: datetime, *, amount_fen: int = 7) -> None:
    with sessions.write() as session:
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=now)
        cash = open_account(session, organisation_id="org_1", kind=AccountKind.FIRM_CASH, now=now)
        moved = [move(key, bank, cash, amount_fen=amount_fen, code="deposit")]
        post_group(session, key, moved, Posted("deposit", key, "usr_1", now))
        record_event(session, "deposit.booked", key, organisation_id="org_1", actor_id="usr_1", now=now, amount_fen=7)


def missing(sessions: Sessions) -> tuple[int, int]:
    with sessions.read() as session:
        found = count_missing(session)
    return found.events, found.transfers


def problems(sessions: Sessions, notes: list[str], key: AuditKey) -> list[str]:
    with sessions.read() as session:
        return check_audit(session, notes, key.public)


def tamper(sessions: Sessions, table: str, verb: str, statement: str) -> None:
    """What a database administrator can do: take the trigger away and change the row."""
    with sessions.engine.begin() as connection:
        connection.execute(text(UNPROTECT[sessions.engine.dialect.name].format(table=table, verb=verb)))
        connection.execute(text(statement))


def test_everything_is_chained_once(both: Sessions, now: datetime) -> None:
    for number in range(7):
        pay(both, f"d{number}", now)
    assert missing(both) == (7, 7)
    assert chain_all(both, limit=5) == 14
    assert chain_all(both) == 0
    assert missing(both) == (0, 0)
    with both.read() as session:
        records = list(session.scalars(select(AuditRecord).order_by(AuditRecord.seq)))
        assert [record.seq for record in records] == list(range(14))
        before = GENESIS
        for record in records:
            before = link(before, leaf_of(record))
            assert record.chain_hash == before
        head = session.scalars(select(AuditHead)).one()
        assert (head.size, head.chain_hash) == (14, before)


def test_two_chainers_make_one_chain(both: Sessions, now: datetime) -> None:
    for number in range(30):
        pay(both, f"d{number}", now)
    barrier = Barrier(4)

    def chain(_: int) -> int:
        barrier.wait()
        return chain_all(both, limit=3) + chain_all(both, limit=3)

    with ThreadPoolExecutor(4) as pool:
        made = sum(pool.map(chain, range(4)))
    assert made + chain_all(both) == 60
    with both.read() as session:
        assert session.scalar(select(func.max(AuditRecord.seq))) == 59
    assert problems(both, [], AuditKey("k")) == []


def test_a_number_taken_early_and_committed_late_is_not_missed(both: Sessions, now: datetime) -> None:
    if both.engine.dialect.name == "sqlite":
        pay(both, "only", now)  # one writer: numbers are committed in the order they are taken
        assert chain_all(both) == 2
        return
    with both.write() as late:
        record_event(late, "a.b", "late", organisation_id="org_1", actor_id="usr_1", now=now)
        late.flush()
        pay(both, "soon", now)
        assert chain_all(both) == 0  # younger than a running transaction
    pay(both, "after", now)
    assert chain_all(both) == 5
    assert missing(both) == (0, 0)


def test_links_cannot_be_changed(both: Sessions, now: datetime) -> None:
    pay(both, "d", now)
    chain_all(both)
    for statement in ("UPDATE audit_records SET digest = ''", "DELETE FROM audit_records"):
        with pytest.raises(DatabaseError, match="append-only"), both.write() as session:
            session.execute(text(statement))


def test_checkpoints_grow_with_the_chain_and_lie_outside(
    both: Sessions, now: datetime, key: AuditKey, tmp_path: Path
) -> None:
    assert make_checkpoint(both, key, tmp_path, now=now) is None
    pay(both, "d1", now)
    chain_all(both)
    first = make_due_checkpoint(both, key, tmp_path, now=now)
    assert first is not None
    pay(both, "d2", now)
    chain_all(both)
    assert make_due_checkpoint(both, key, tmp_path, now=now + timedelta(seconds=59)) is None
    second = make_due_checkpoint(both, key, tmp_path, now=now + timedelta(seconds=60))
    assert second is not None
    assert make_checkpoint(both, key, tmp_path, now=now) is None
    with both.read() as session:
        leaves = list_leaves(session, 4)
    assert (first.root, second.root) == (root_of_leaves(leaves[:2]).hex(), root_of_leaves(leaves).hex())
    assert read_notes(tmp_path) == [first.note, second.note]
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert problems(both, read_notes(tmp_path), key) == []


def test_a_note_is_only_what_the_key_signed(both: Sessions, now: datetime, key: AuditKey, tmp_path: Path) -> None:
    pay(both, "d1", now)
    chain_all(both)
    made = make_checkpoint(both, key, tmp_path, now=now)
    assert made is not None
    assert read_note(made.note, key.public).root == made.root
    for other in (made.note.replace("\n2\n", "\n3\n"), made.note[:-9] + "AAAAAAA=\n", "nonsense", ""):
        with pytest.raises(CheckpointRefusedError):
            read_note(other, key.public)
    with pytest.raises(CheckpointRefusedError):
        read_note(made.note, AuditKey("another").public)


def test_each_kind_of_tampering_is_named(both: Sessions, now: datetime, key: AuditKey, tmp_path: Path) -> None:
    for number in range(3):
        pay(both, f"d{number}", now)
    chain_all(both)
    make_checkpoint(both, key, tmp_path, now=now)
    tamper(both, "ledger_transfers", "update", "UPDATE ledger_transfers SET amount_fen = 8 WHERE id = 'd1'")
    assert problems(both, read_notes(tmp_path), key) == ["link 4: transfer 'd1' is not what was chained"]
    tamper(both, "events", "delete", "DELETE FROM events WHERE subject = 'd2'")
    assert "link 2: event 3 is gone" in problems(both, read_notes(tmp_path), key)


def test_a_rewritten_chain_is_caught_by_the_checkpoint_outside(
    both: Sessions, now: datetime, key: AuditKey, tmp_path: Path
) -> None:
    for number in range(3):
        pay(both, f"d{number}", now)
    chain_all(both)
    made = make_checkpoint(both, key, tmp_path, now=now)
    assert made is not None
    tamper(both, "ledger_transfers", "update", "UPDATE ledger_transfers SET amount_fen = 8 WHERE id = 'd1'")
    _rewrite(both)
    assert problems(both, [], key) == []  # inside the database nothing shows
    found = problems(both, read_notes(tmp_path), key)
    assert len(found) == 1
    assert found[0].startswith("checkpoint 6 was signed over root")
    pay(both, "d3", now)
    chain_all(both)
    with pytest.raises(AuditBrokenError, match="size 6"):
        make_checkpoint(both, key, tmp_path, now=now)
    assert read_last(tmp_path, key.public) == read_note(made.note, key.public)


def test_a_forged_line_in_the_file_is_named(both: Sessions, now: datetime, key: AuditKey, tmp_path: Path) -> None:
    pay(both, "d1", now)
    chain_all(both)
    make_checkpoint(both, AuditKey("a thief"), tmp_path, now=now)
    assert "not signed by this installation" in problems(both, read_notes(tmp_path), key)[0]
    assert base64.b64decode((tmp_path / FILE).read_bytes()).startswith(b"guanmo/audit\n2\n")


def test_bills_are_covered_through_their_events(market: Market, key: AuditKey) -> None:
    market.fund("factory", 10_000, "bank-1")
    market.award("model", 5_000)
    piece = market.draw("a")
    market.send(market.record(piece.allowance_id, "req-1", (90_000, 0, 2_000)), first_seq=1)  # type: ignore[union-attr]
    market.close(piece.allowance_id, through_seq=1)  # type: ignore[union-attr]
    market.settle()
    chain_all(market.sessions)
    assert problems(market.sessions, [], key) == []
    with market.sessions.read() as session:
        event = session.scalars(select(Event).where(Event.topic == "tranche.resolved")).one()
        annex = read_annex(session, event)
        assert annex is not None
        assert [record["prompt_tokens"] for record in annex["usage"]] == [90_000]
    statement = "UPDATE usage_records SET prompt_tokens = 1 WHERE request_id = 'req-1'"
    tamper(market.sessions, "usage_records", "update", statement)
    assert [line.split("'")[0] for line in problems(market.sessions, [], key)] == [f"link {_place(market)}: event "]


def _place(market: Market) -> int:
    with market.sessions.read() as session:
        seq = session.scalars(select(Event.seq).where(Event.topic == "tranche.resolved")).one()
        query = select(AuditRecord.seq).where(AuditRecord.outbox == Outbox.EVENT, AuditRecord.source_seq == seq)
        return session.scalars(query).one()


def _rewrite(sessions: Sessions) -> None:
    with sessions.engine.begin() as connection:
        connection.execute(text(UNPROTECT[sessions.engine.dialect.name].format(table="audit_records", verb="delete")))
        connection.execute(text("DELETE FROM audit_records"))
        connection.execute(text("DELETE FROM audit_heads"))
        connection.execute(text("DELETE FROM audit_positions"))
    with sessions.write() as session:
        assert chain_outboxes(session) == 6
