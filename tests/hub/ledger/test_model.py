"""The ledger against a plain dictionary: 10,000 operations and more in any order, refusals by the same name.

`LEDGER_SEED=n` runs a seed again; `LEDGER_EXAMPLES=n` runs more (100 operations each).
"""

import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace
from sqlalchemy import create_engine, event
from sqlalchemy.pool import StaticPool

import hub.database
from hub.errors import GuanmoError
from hub.ledger.invariants import BOOKS, check_invariants
from hub.ledger.leases import expire_hold, list_expired, renew_holds
from hub.ledger.movements import hold, move, resolve, reverse
from hub.ledger.rules import HoldResolvedError, Movement
from hub.ledger.service import Group, Posted, find_transfer, open_account, post_groups
from hub.ledger.tables import PLATFORM, Account, AccountKind, Transfer
from tests.hub.ledger.plain import PlainAccount, PlainLedger
from tests.hub.money.conftest import _create_database

START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
TABLES = [table for table in hub.database.Base.metadata.sorted_tables if table.name.startswith("ledger_")]
KINDS = (
    (PLATFORM, AccountKind.BANK, ""),
    ("org_0", AccountKind.FIRM_CASH, "debit"),
    ("org_1", AccountKind.FIRM_CASH, "debit"),
    ("org_0", AccountKind.GRANT, "debit"),
    ("org_0", AccountKind.FIRM_RECEIVABLE, "credit"),
    (PLATFORM, AccountKind.PLATFORM_INCOME, ""),
)
SIDES = "SELECT id, debits_pending, debits_posted, credits_pending, credits_posted, version FROM ledger_accounts"
STEPS = 100
EXAMPLES = int(os.environ.get("LEDGER_EXAMPLES", "160"))
FEW = 5
COUNTS = {"operations": 0, "refused": 0}
PLACES = st.tuples(st.integers(0, len(KINDS) - 1), st.integers(1, len(KINDS) - 1))
AMOUNTS = st.integers(1, 400)
CODES = ("same", "amount", "code", "group")


class LedgerMachine(RuleBasedStateMachine):
    """Does everything twice, in the ledger and in a dictionary, and compares after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = self.open_empty()
        self.raw: Any = self.sessions.engine.raw_connection()
        with self.sessions.write() as session:
            self.accounts = [
                open_account(session, organisation_id=owner, kind=kind, now=START) for owner, kind, _ in KINDS
            ]
        limits = {account.id: PlainAccount(limit) for account, (_, _, limit) in zip(self.accounts, KINDS, strict=True)}
        self.model = PlainLedger(limits)
        self.now = START
        self.serial = 0

    def open_empty(self) -> hub.database.Sessions:
        """Return sessions on an empty ledger."""
        engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(engine, "connect", hub.database._prepare_sqlite)
        event.listen(engine, "begin", hub.database._begin_sqlite)
        with engine.begin() as connection:
            hub.database.Base.metadata.create_all(connection, tables=TABLES)
        return hub.database.Sessions(engine)

    def read_sides(self) -> dict[str, tuple[int, ...]]:
        """Return what the database holds; past SQLAlchemy, because this runs after every step."""
        rows = self.raw.driver_connection.execute(SIDES).fetchall()
        self.raw.driver_connection.rollback()
        return {row[0]: tuple(row[1:]) for row in rows}

    def teardown(self) -> None:
        self.raw.close()
        with self.sessions.read() as session:
            assert [found for found in check_invariants(session, BOOKS) if found.broken] == []
        self.sessions.close()

    def key(self) -> str:
        self.serial += 1
        return f"tra_{self.serial}"

    def post(self, groups: Sequence[tuple[str, Sequence[Movement]]]) -> str:
        """Post in both and compare the answer; a batch is refused as its first refused group would be."""
        COUNTS["operations"] += 1
        by = Posted("test", "tst_1", "usr_1", self.now)
        before, expected = self.model._copy(), ""
        known = dict(self.model.groups)
        for name, movements in groups:
            expected = expected or self.model.post(name, movements, self.now)
        if expected:
            COUNTS["refused"] += 1
            self.model._restore(before)
            self.model.groups = known
        try:
            with self.sessions.write() as session:
                posted = post_groups(session, [Group(name, movements, by) for name, movements in groups])
            found = ""
            assert posted == [name not in known for name, _ in groups]
        except GuanmoError as error:
            found = error.code
        assert found == expected
        return found

    def stored(self, key: str) -> Transfer:
        with self.sessions.read() as session:
            row = find_transfer(session, key)
        assert row is not None
        return row

    def pick(self, places: tuple[int, int]) -> tuple[Account, Account]:
        first, offset = places
        return self.accounts[first], self.accounts[(first + offset) % len(self.accounts)]

    @rule(places=PLACES, amount=AMOUNTS)
    def move(self, places: tuple[int, int], amount: int) -> None:
        debit, credit = self.pick(places)
        self.post([(self.key(), [move(self.key(), debit, credit, amount_fen=amount, code="move")])])

    @rule(firm=st.integers(1, 3), amount=AMOUNTS)
    def pay_in(self, firm: int, amount: int) -> None:
        wanted = move(self.key(), self.accounts[0], self.accounts[firm], amount_fen=amount, code="deposit")
        self.post([(self.key(), [wanted])])

    @rule(places=PLACES, amount=AMOUNTS, lease_s=st.sampled_from([None, 30, 90]))
    def hold(self, places: tuple[int, int], amount: int, lease_s: int | None) -> None:
        debit, credit = self.pick(places)
        wanted = hold(self.key(), debit, credit, amount_fen=amount, code="hold", lease_s=lease_s)
        self.post([(self.key(), [wanted])])

    @precondition(lambda self: self.model.open_holds())
    @rule(pick=st.integers(0, 999), part=st.integers(-1, 450), twice=st.booleans())
    def end(self, pick: int, part: int, twice: bool) -> None:
        """Post a part, the whole, or too much; void; or try it twice in one batch."""
        found = self.model.open_holds()
        held = self.stored(found[pick % len(found)])
        amount = held.amount_fen if part < 0 else part
        groups = [(self.key(), [resolve(self.key(), held, amount_fen=amount, code="end")]) for _ in range(1 + twice)]
        self.post(groups)

    @precondition(lambda self: self.model.ended)
    @rule(pick=st.integers(0, 999))
    def end_again(self, pick: int) -> None:
        ended = sorted(self.model.ended)
        held = self.stored(ended[pick % len(ended)])
        self.post([(self.key(), [resolve(self.key(), held, amount_fen=0, code="end")])])

    @rule(seconds=st.integers(1, 60))
    def let_time_pass(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.model.lease_ends)
    @rule(pick=st.integers(0, 999))
    def renew(self, pick: int) -> None:
        COUNTS["operations"] += 1
        keys = sorted(self.model.lease_ends)
        key = keys[pick % len(keys)]
        ended = key in self.model.ended
        with self.sessions.write() as session, pytest.raises(HoldResolvedError) if ended else nullcontext():
            renew_holds(session, [key], lease_s=60, now=self.now)
        if not ended:
            self.model.lease_ends[key] = self.now + timedelta(seconds=60)

    @rule()
    def sweep(self) -> None:
        COUNTS["operations"] += 1
        with self.sessions.write() as session:
            expired = list_expired(session, self.now, limit=1000)
            for held in expired:
                expire_hold(session, held, self.now)
        lapsed = {
            key
            for key in self.model.open_holds()
            if self.model.lease_ends.get(key, datetime.max.replace(tzinfo=UTC)) <= self.now
        }
        assert {held.id for held in expired} == lapsed
        for held in expired:
            end = resolve(f"exp_{held.id}", held, amount_fen=0, code="expired")
            assert self.model.post(f"exp_{held.id}", [end], self.now) == ""
            self.model.taken.pop(end.id)
            self.model.groups.pop(f"exp_{held.id}")

    @precondition(lambda self: self.model.moved())
    @rule(pick=st.integers(0, 999), change=st.sampled_from([0, 0, 1]))
    def reverse(self, pick: int, change: int) -> None:
        keys = self.model.moved()
        wanted = reverse(self.key(), self.stored(keys[pick % len(keys)]), code="undo")
        if change:
            wanted = replace(wanted, amount_fen=wanted.amount_fen + change)
        self.post([(self.key(), [wanted])])

    @precondition(lambda self: self.model.groups)
    @rule(pick=st.integers(0, 999), change=st.sampled_from(CODES))
    def repeat(self, pick: int, change: str) -> None:
        names = list(self.model.groups)
        name = names[pick % len(names)]
        first, *rest = self.model.groups[name]
        if change == "amount":
            first = replace(first, amount_fen=first.amount_fen + 1)
        if change == "code":
            first = replace(first, code=f"{first.code}!")
        self.post([(name if change != "group" else self.key(), [first, *rest])])

    @rule(wanted=st.lists(st.tuples(PLACES, AMOUNTS, st.booleans()), min_size=2, max_size=6))
    def batch(self, wanted: list[tuple[tuple[int, int], int, bool]]) -> None:
        groups = []
        for places, amount, held in wanted:
            debit, credit = self.pick(places)
            make = hold if held else move
            groups.append((self.key(), [make(self.key(), debit, credit, amount_fen=amount, code="batch")]))
        self.post(groups)

    @rule(places=PLACES, amounts=st.lists(AMOUNTS, min_size=2, max_size=4))
    def one_group_of_many(self, places: tuple[int, int], amounts: list[int]) -> None:
        debit, credit = self.pick(places)
        movements = [move(self.key(), debit, credit, amount_fen=amount, code="many") for amount in amounts]
        self.post([(self.key(), movements)])

    @invariant()
    def agrees_with_the_model(self) -> None:
        found = self.read_sides()
        plain = self.model.accounts.items()
        assert found == {key: (one.dp, one.d, one.cp, one.c, one.version) for key, one in plain}


def run_machine(machine: type[LedgerMachine], examples: int, capfd: pytest.CaptureFixture[str]) -> int:
    """Run that many examples of 100 steps with a fresh or given seed, print it, and return how much was done."""
    COUNTS.update(operations=0, refused=0)
    chosen = int(os.environ.get("LEDGER_SEED", secrets.randbelow(2**32)))
    wanted = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(chosen)(machine), settings=wanted)
    finally:
        with capfd.disabled():
            sys.stderr.write(f"\n{machine.__name__}: LEDGER_SEED={chosen} {COUNTS}\n")
    return COUNTS["operations"]


@pytest.mark.timeout(900)
def test_ledger_does_what_the_dictionary_does(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_machine(LedgerMachine, EXAMPLES, capfd) >= min(10_000, EXAMPLES * STEPS * 3 // 4)


@pytest.mark.timeout(900)
def test_so_does_the_one_statement_of_postgresql(postgresql: str, capfd: pytest.CaptureFixture[str]) -> None:
    class OnPostgreSQL(LedgerMachine):
        """The same on a database of its own for each example."""

        def open_empty(self) -> hub.database.Sessions:
            opened = hub.database.open_sessions(_create_database(postgresql))
            with opened.engine.begin() as connection:
                hub.database.Base.metadata.create_all(connection, tables=TABLES)
            return opened

    assert run_machine(OnPostgreSQL, FEW, capfd) >= FEW * STEPS // 2
