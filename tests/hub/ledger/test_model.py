"""The ledger against a plain model: any order of deposits, holds, posts, voids, repeats and conflicts."""

from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy.pool import StaticPool

import hub.database
from hub.ledger.audit import check_books, trial_balance
from hub.ledger.movements import hold, move, resolve
from hub.ledger.rules import AccountLimitError, HoldResolvedError, Movement, TransferConflictError
from hub.ledger.service import Posted, find_transfer, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
BY = Posted("test", "tst_1", "usr_1", NOW)
TABLES = [table for table in hub.database.Base.metadata.sorted_tables if table.name.startswith("ledger_")]


class LedgerMachine(RuleBasedStateMachine):
    """Keeps what each firm has free and held in dictionaries and compares after every step."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        engine = hub.database.create_engine("sqlite://", poolclass=StaticPool)
        hub.database.event.listen(engine, "connect", hub.database._prepare_sqlite)
        hub.database.event.listen(engine, "begin", hub.database._begin_sqlite)
        self.sessions = hub.database.Sessions(engine)
        with engine.begin() as connection:
            hub.database.Base.metadata.create_all(connection, tables=TABLES)
        self.free = {"org_0": 0, "org_1": 0}
        self.held = {"org_0": 0, "org_1": 0}
        self.spent = 0
        self.serial = 0
        self.posted: list[tuple[str, list[Movement]]] = []

    def teardown(self) -> None:
        self.sessions.close()

    def post(self, movement: Movement) -> None:
        group = f"grp_{movement.id}"
        with self.sessions.write() as session:
            post_group(session, group, [movement], BY)
        self.posted.append((group, [movement]))

    def key(self) -> str:
        self.serial += 1
        return f"tra_{self.serial}"

    def account(self, owner: str, kind: AccountKind) -> Account:
        with self.sessions.write() as session:
            return open_account(session, organisation_id=owner, kind=kind, now=NOW)

    @rule(owner=st.sampled_from(["org_0", "org_1"]), amount=st.integers(1, 500))
    def deposit(self, owner: str, amount: int) -> None:
        bank, cash = self.account(PLATFORM, AccountKind.BANK), self.account(owner, AccountKind.FIRM_CASH)
        self.post(move(self.key(), bank, cash, amount_fen=amount, code="deposit"))
        self.free[owner] += amount

    @rule(target=holds, owner=st.sampled_from(["org_0", "org_1"]), amount=st.integers(1, 500))
    def place_hold(self, owner: str, amount: int) -> tuple[str, str, int]:
        cash, income = self.account(owner, AccountKind.FIRM_CASH), self.account(PLATFORM, AccountKind.PLATFORM_INCOME)
        key = self.key()
        try:
            self.post(hold(key, cash, income, amount_fen=amount, code="hold"))
        except AccountLimitError:
            assert amount > self.free[owner]
            return ("", owner, 0)
        assert amount <= self.free[owner]
        self.free[owner] -= amount
        self.held[owner] += amount
        return (key, owner, amount)

    @rule(item=consumes(holds), part=st.integers(0, 500))
    def end_hold(self, item: tuple[str, str, int], part: int) -> None:
        key, owner, amount = item
        if not key:
            return
        taken = min(part, amount)
        with self.sessions.read() as session:
            held = find_transfer(session, key)
        assert held is not None
        self.post(resolve(self.key(), held, amount_fen=taken, code="end"))
        self.held[owner] -= amount
        self.free[owner] += amount - taken
        self.spent += taken
        try:
            self.post(resolve(self.key(), held, amount_fen=0, code="again"))
        except HoldResolvedError:
            return
        raise AssertionError("a hold ended twice")

    @rule(pick=st.integers(0, 10_000), change=st.booleans())
    def repeat(self, pick: int, change: bool) -> None:
        if not self.posted:
            return
        group, movements = self.posted[pick % len(self.posted)]
        if change:
            first = movements[0]
            movements = [Movement(**{**vars(first), "code": f"{first.code}!"})]
        try:
            with self.sessions.write() as session:
                post_group(session, group, movements, BY)
        except TransferConflictError:
            assert change
            return
        assert not change

    @invariant()
    def agrees_with_the_model(self) -> None:
        with self.sessions.read() as session:
            assert check_books(session) == []
            balance = trial_balance(session)
        assert (balance.posted_sum_fen, balance.pending_sum_fen) == (0, 0)
        for owner in self.free:
            cash = self.account(owner, AccountKind.FIRM_CASH)
            assert (cash.available_fen, cash.debits_pending) == (self.free[owner], self.held[owner])
        assert self.account(PLATFORM, AccountKind.PLATFORM_INCOME).balance_fen == self.spent


LedgerMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
test_ledger_machine = LedgerMachine.TestCase
