"""Each invariant holds over a filled market on both databases, and turns red on a violation made for it."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from hub.cli.ledger import ledger
from hub.database import Sessions, open_sessions
from hub.errors import NotFoundError
from hub.ledger.invariants import BOOKS, HISTORY, INVARIANTS, check_invariants
from hub.tables import import_tables, metadata
from tests.hub.ledger.books import open_books
from tests.hub.ledger.seeding import fill_market, insert_row, open_unguarded
from tests.hub.money.conftest import _create_database
from tests.hub.money.market import Market, build_market

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
LATE_US = 4_000_000_000_000_000
Break = Callable[[Session], None]


def run(statement: str) -> Break:
    return lambda session: session.execute(text(statement)) and None


def add(table: str, **values: object) -> Break:
    return lambda session: insert_row(session, table, **values)


def both_of(*steps: Break) -> Break:
    def do(session: Session) -> None:
        for step in steps:
            step(session)

    return do


def unprotect(session: Session) -> None:
    on = " ON charges" if session.get_bind().dialect.name == "postgresql" else ""
    session.execute(text(f"DROP TRIGGER charges_refuse_update{on}"))


def add_inexact_column(session: Session) -> None:
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("CREATE TABLE loose (amount REAL)"))
    else:
        session.execute(text("ALTER TABLE charges ADD COLUMN loose double precision"))


BREAKS: dict[str, list[Break]] = {
    "I1": [
        run("UPDATE ledger_entries SET amount_fen = amount_fen + 1 WHERE leg = 'debit'"),
        run("DELETE FROM ledger_entries WHERE leg = 'credit'"),
        run(
            "INSERT INTO ledger_entries SELECT account_id, account_version + 1000, 'nobody', leg, amount_fen, "
            "debits_pending, debits_posted, credits_pending, credits_posted, recorded_at FROM ledger_entries LIMIT 1"
        ),
    ],
    "I2": [run("UPDATE ledger_accounts SET credits_posted = credits_posted + 1 WHERE kind = 'bank'")],
    "I3": [
        run("UPDATE ledger_accounts SET debits_posted = debits_posted + 1, credits_posted = credits_posted + 1"),
        run("UPDATE ledger_accounts SET debits_pending = debits_pending + 1 WHERE kind = 'grant'"),
    ],
    "I4": [
        run("DELETE FROM ledger_entries WHERE account_version = 1"),
        run("UPDATE ledger_accounts SET version = version + 1"),
    ],
    "I5": [unprotect],
    "I6": [
        run("UPDATE ledger_transfers SET fingerprint = ''"),
        run("UPDATE ledger_transfers SET position = position + 1000"),
    ],
    "I7": [
        run("UPDATE ledger_transfers SET amount_fen = 9000000 WHERE kind = 'post'"),
        run("UPDATE ledger_transfers SET amount_fen = 1 WHERE kind = 'void'"),
        both_of(
            add("ledger_transfers", id="twice", kind="void", seq=9000),
            run("UPDATE ledger_transfers SET pending_id = 'twice' WHERE seq <> 9000 AND kind = 'void'"),
        ),
    ],
    "I8": [
        run("UPDATE ledger_accounts SET debits_pending = 90000000 WHERE kind = 'grant'"),
        run("UPDATE ledger_entries SET debits_posted = 90000000"),
        run("UPDATE ledger_accounts SET credit_limited = 1 WHERE kind = 'grant'"),
    ],
    "I9": [
        run("UPDATE charges SET voucher_fen = voucher_fen + 1"),
        run("UPDATE bill_lines SET subsidised_fen = posted_fen"),
    ],
    "I10": [
        run("UPDATE voucher_grants SET amount_fen = 100000001"),
        run("UPDATE ledger_accounts SET debits_pending = 100000001 WHERE kind = 'grant'"),
    ],
    "I11": [
        run("UPDATE fund_tranches SET released_at = NULL"),
        run("UPDATE programmes SET fund_fen = 1 WHERE fund_fen IS NOT NULL"),
    ],
    "I12": [
        run("UPDATE charge_parts SET amount_fen = amount_fen + 1"),
        run("UPDATE charges SET cash_fen = cash_fen + 1"),
        run("UPDATE orders SET charged_fen = charged_fen + 1"),
        run("UPDATE bill_lines SET posted_fen = posted_fen + 1"),
    ],
    "I13": [
        run("UPDATE orders SET state = 'settled'"),
        add("ledger_transfers", id="stray", kind="pending", business_id="nobody", seq=9000),
        add("usage_tranches", id="empty", state="open"),
        both_of(
            add("runs", id="run_x", state="failed", order_id="ord_x"),
            add("orders", id="ord_x", state="held"),
        ),
    ],
    "I14": [
        both_of(
            add("offers", id="ofr_x", count=2),
            add("rentals", id="ren_x", offer_id="ofr_x", device_ms=5000, allocated_at=0, released_at=1_000_000),
        ),
        both_of(
            add("rental_meters", id="m1", rental_id="a", state="accepted", device_id="g", seq=1, observed_at=9),
            add("rental_meters", id="m2", rental_id="b", state="accepted", device_id="g", seq=1, observed_at=9),
        ),
        both_of(
            add(
                "rental_meters",
                id="m1",
                rental_id="a",
                state="accepted",
                device_id="g",
                seq=1,
                fingerprint="1",
                counted_ms=9,
            ),
            add("rental_meters", id="m2", rental_id="a", state="accepted", device_id="g", seq=2, counted_ms=8),
        ),
    ],
    "I15": [
        run("DELETE FROM rated_usage WHERE request_id = 'req_1'"),
        run("DELETE FROM usage_records WHERE request_id = 'req_1'"),
        run("UPDATE bill_lines SET exact_ufen = exact_ufen + 1"),
    ],
    "I16": [
        run("UPDATE charges SET price_version_id = 'other'"),
        run("UPDATE charges SET rule_version_id = 'other' WHERE rule_version_id IS NOT NULL"),
        run("UPDATE charges SET share_num = 1, share_den = 1 WHERE rule_version_id IS NOT NULL"),
    ],
    "I17": [
        run("UPDATE orders SET charged_fen = 1 WHERE state = 'refunded'"),
        run("UPDATE charges SET cash_fen = -1 WHERE order_id IS NOT NULL"),
        run("UPDATE ledger_transfers SET reverses_id = (SELECT min(id) FROM ledger_transfers) WHERE kind = 'single'"),
    ],
    "I18": [run("UPDATE ledger_accounts SET debits_posted = credits_posted + 1 WHERE kind = 'payable'")],
    "I19": [
        add("claims", id="clm_x", amount_fen=5),
        both_of(
            add("claim_lines", id="1", amount_fen=-99_999_999_999_999),
            run("UPDATE claim_lines SET transfer_id = (SELECT min(id) FROM ledger_transfers)"),
        ),
        both_of(
            add("voucher_papers", id="1", kind="invoice", number="7", issuer_uscc="9"),
            add("voucher_papers", id="2", kind="invoice", number="7", issuer_uscc="9"),
        ),
    ],
    "I20": [
        run("UPDATE rule_versions SET approved_by = drafted_by"),
        run("UPDATE voucher_applications SET applicant_id = (SELECT min(actor_id) FROM voucher_reviews)"),
        add("bill_versions", id="x", decided_by="u", proposed_by="u"),
        add("claims", id="x", submitted_by="u", drafted_by="u"),
    ],
    "I21": [
        add("audit_positions", outbox="transfer", done_seq=3),
        add("audit_positions", outbox="event", done_seq=3),
        add("audit_records", seq=5, outbox="event", source_seq=1),
        add("audit_heads", name="x", size=7),
    ],
    "I22": [
        run("UPDATE ledger_entries SET credits_pending = credits_pending + 1"),
        run("UPDATE ledger_entries SET debits_posted = 1 WHERE account_version = 1 AND leg = 'credit'"),
    ],
    "I23": [add_inexact_column],
    "I24": [
        add("ledger_closed_months", month="2026-11", closed_at=1),
        run("INSERT INTO ledger_closed_months (month, closed_by, closed_at) SELECT DISTINCT month, '', 1 FROM charges"),
    ],
}
BREAKS_OF_UNIQUE = {
    "I19": both_of(
        add("claim_lines", id="1", position=1, claimed_transfer_id="t"),
        add("claim_lines", id="2", position=2, claimed_transfer_id="t"),
    ),
    "I20": run("UPDATE voucher_reviews SET actor_id = 'usr_1'"),
}
CASES = [(key, turn) for key, breaks in BREAKS.items() for turn in range(len(breaks))]


@pytest.fixture(scope="module")
def filled(built_market: Market) -> Path:
    """The file of a market with money in it, which the tests copy and break."""
    fill_market(built_market, NOW)
    built_market.sessions.close()
    return Path(str(built_market.sessions.engine.url.database))


@pytest.fixture(scope="module")
def built_market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    home = tmp_path_factory.mktemp("filled")
    import_tables()
    opened = open_sessions(f"sqlite:///{home / 'hub.sqlite3'}")
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    return build_market(opened, NOW, home)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def unguarded(
    request: pytest.FixtureRequest, filled: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path_factory.mktemp('broken') / 'hub.sqlite3'}"
    if request.param == "postgresql":
        url = _create_database(request.getfixturevalue("postgresql"))
    with open_unguarded(filled, url) as engine:
        yield engine


def test_all_hold_over_a_filled_market(unguarded: Engine) -> None:
    with Session(unguarded) as session:
        findings = check_invariants(session)
    assert [found.invariant.id for found in findings] == [f"I{number}" for number in range(1, 25)]
    assert {found.invariant.id: found.examples for found in findings if found.broken} == {}


@pytest.mark.parametrize(("key", "turn"), CASES)
def test_each_turns_red(unguarded: Engine, key: str, turn: int) -> None:
    assert_turns_red(unguarded, key, BREAKS[key][turn])


@pytest.mark.parametrize("unguarded", ["postgresql"], indirect=True)
@pytest.mark.parametrize("key", BREAKS_OF_UNIQUE)
def test_each_turns_red_where_uniqueness_is_gone(unguarded: Engine, key: str) -> None:
    """SQLite cannot drop the UNIQUE of a table, PostgreSQL can."""
    assert_turns_red(unguarded, key, BREAKS_OF_UNIQUE[key])


def assert_turns_red(engine: Engine, key: str, make: Break) -> None:
    with Session(engine) as session:
        if engine.dialect.name == "postgresql":
            session.execute(text("SET LOCAL session_replication_role = replica"))
        assert check_invariants(session, [key])[0].broken == 0
        make(session)
        found = check_invariants(session, [key])[0]
        session.rollback()
    assert found.broken > 0
    assert found.examples


def test_the_list_is_whole() -> None:
    assert set(BREAKS) == {found.id for found in INVARIANTS}
    assert all(found.sentence.endswith(".") and found.sentence_zh for found in INVARIANTS)
    guarded = {table.name for table in metadata.sorted_tables if "append_only" in table.info}
    assert set(HISTORY) <= guarded


def test_the_books_alone_can_be_checked(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        open_books(session, now)
        assert [found.broken for found in check_invariants(session, BOOKS)] == [0] * len(BOOKS)
        with pytest.raises(NotFoundError):
            check_invariants(session, ["I99"])


def test_the_command_prints_each_and_fails_where_one_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'hub.sqlite3'}"
    opened = open_sessions(url)
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    monkeypatch.setattr("hub.cli.ledger.read_settings", lambda _: SimpleNamespace(database_url=url))
    sound = CliRunner().invoke(ledger, ["check", "--json"])
    assert (sound.exit_code, set(json.loads(sound.output).values())) == (0, {0})
    with opened.write() as session:
        books = open_books(session, NOW)
        session.execute(text("UPDATE ledger_accounts SET credits_posted = 9 WHERE id = :id"), {"id": books.cash.id})
    opened.close()
    broken = CliRunner().invoke(ledger, ["check", "I3", "I8"])
    assert broken.exit_code == 1
    assert books.cash.id[:20] in broken.output
