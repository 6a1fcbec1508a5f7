"""The ledger at work: single transfers, batches, a hot account and holds on one grant, through the hub's own sessions.

It leaves the clock and the processes to `crowd`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from hub.clock import to_us
from hub.database import Sessions
from hub.ids import new_id
from hub.ledger.invariants import check_invariants
from hub.ledger.joint import Posting
from hub.ledger.movements import hold, move
from hub.ledger.periods import month_key
from hub.ledger.rules import AccountLimitError
from hub.ledger.service import Group, Posted, open_account, post_group, post_groups
from hub.ledger.tables import PLATFORM, Account, AccountKind

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
ACCOUNTS = 1000
EACH_FEN = 10**12
BATCH = 50
HOT_BATCH = 100
REPEATS = 20
"""One posting in so many is sent again, as a client does that lost the answer."""
BY = Posted("bench", "bench", "bench", NOW)
MakeWork = Callable[[Group], Callable[[Session], object]]
Step = Callable[[], int]
"""Does one unit of work and returns how many transfers it posted."""


@dataclass(frozen=True)
class Fixture:
    """The accounts of a measurement: many firms' cash, and the bank that funded them."""

    bank: Account
    firms: list[Account]


def prepare(sessions: Sessions) -> Fixture:
    """Open and fund the accounts."""
    firms = []
    with sessions.write() as session:
        bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=NOW)
        for number in range(ACCOUNTS):
            firms.append(open_account(session, organisation_id=f"org_{number}", kind=AccountKind.FIRM_CASH, now=NOW))
        deposits = [move(new_id("tra"), bank, firm, amount_fen=EACH_FEN, code="deposit") for firm in firms]
        post_groups(session, [Group(new_id("grp"), [deposit], BY) for deposit in deposits])
    return Fixture(bank, firms)


def open_grant(sessions: Sessions, amount_fen: int) -> tuple[Account, Account]:
    """Return a fresh grant account with that much in it, and where its holds go."""
    key = new_id("gra")
    with sessions.write() as session:
        fund = open_account(session, organisation_id=PLATFORM, kind=AccountKind.APPROPRIATION, now=NOW)
        grant = open_account(session, organisation_id="org_0", kind=AccountKind.GRANT, subject=key, now=NOW)
        clearing = open_account(session, organisation_id="org_0", kind=AccountKind.CLEARING, subject=key, now=NOW)
        award = move(new_id("tra"), fund, grant, amount_fen=amount_fen, code="award")
        post_group(session, new_id("grp"), [award], BY)
    return grant, clearing


def single_transfers(sessions: Sessions, fixture: Fixture, seed: int) -> Step:
    """Post one transfer between two of many firms in each transaction."""
    dice = random.Random(seed)
    turn = 0

    def step() -> int:
        nonlocal turn
        turn += 1
        group = _pick(dice, fixture.firms)
        for _ in range(2 if turn % REPEATS == 0 else 1):
            with sessions.write() as session:
                post_group(session, group.id, group.movements, group.posted)
        return 1

    return step


def batched_transfers(sessions: Sessions, fixture: Fixture, seed: int) -> Step:
    """Post 50 such transfers in each transaction."""
    dice = random.Random(seed)

    def step() -> int:
        with sessions.write() as session:
            post_groups(session, [_pick(dice, fixture.firms) for _ in range(BATCH)])
        return BATCH

    return step


def hot_transfers(sessions: Sessions, fixture: Fixture, seed: int) -> Step:
    """Post 100 transfers in each transaction, all of them out of one account that every process uses."""
    dice = random.Random(seed)
    hot, others = fixture.firms[0], fixture.firms[1:]

    def step() -> int:
        groups = []
        for _ in range(HOT_BATCH):
            movement = move(new_id("tra"), hot, dice.choice(others), amount_fen=1, code="bench")
            groups.append(Group(new_id("grp"), [movement], BY))
        with sessions.write() as session:
            post_groups(session, groups)
        return HOT_BATCH

    return step


def capped_holds(sessions: Sessions, grant: Account, clearing: Account, make: MakeWork = Posting) -> Step:
    """Place one hold on one grant, in the line of that grant; 0 where the cap is reached. Threads may share a step."""

    def step() -> int:
        wanted = hold(new_id("tra"), grant, clearing, amount_fen=random.randint(1, 50), code="hold")
        try:
            sessions.combine(grant.id, make(Group(new_id("grp"), [wanted], BY)))
        except AccountLimitError:
            return 0
        return 1

    return step


def make_closed_work(group: Group) -> Callable[[Session], object]:
    """Return the same posting as work that the line cannot look into, so that each that waits is a call of its own."""
    return lambda session: post_group(session, group.id, group.movements, group.posted)


def write_capped_script(grant: Account, clearing: Account) -> str:
    """Return the same hold for pgbench: the hub's own routine, called by the client that the yardstick has."""
    moment = to_us(NOW)
    return f"""\\set amount random(1, 50)
SELECT ledger_post_one('tra_' || gen_random_uuid(), 'grp_' || gen_random_uuid(), 0, 'pending', '{grant.id}',
  '{clearing.id}', :amount, 'hold', 'bench', 'bench', NULL, NULL, 'bench', {moment}, {moment}, repeat('f', 64),
  '{month_key(NOW)}', NULL);
"""


def write_statement_script(sessions: Sessions) -> str:
    """Return a bare cap check for pgbench: one conditional UPDATE of one row, without transfer and entries."""
    with sessions.write() as session:
        session.execute(text("CREATE TABLE IF NOT EXISTS bench_cap (id integer PRIMARY KEY, taken bigint, cap bigint)"))
        session.execute(text("INSERT INTO bench_cap VALUES (1, 0, 1000000000000000) ON CONFLICT DO NOTHING"))
    return """\\set amount random(1, 50)
UPDATE bench_cap SET taken = taken + :amount WHERE id = 1 AND taken + :amount <= cap;
"""


def count_overspend(sessions: Sessions, grant: Account) -> int:
    """Return by how many fen holds pass what the grant was awarded, recomputed from the transfers."""
    query = text(
        "SELECT coalesce(sum(CASE WHEN credit_id = :id THEN -amount_fen ELSE amount_fen END), 0) "
        "FROM ledger_transfers WHERE debit_id = :id OR credit_id = :id"
    )
    with sessions.read() as session:
        return max(0, int(session.execute(query, {"id": grant.id}).scalar_one()))


def verify(sessions: Sessions) -> None:
    """Refuse the figures of a run that broke the books."""
    with sessions.read() as session:
        broken = [found for found in check_invariants(session, ["I1", "I2", "I3", "I4", "I8"]) if found.broken]
    if broken:
        raise RuntimeError(f"the books are broken: {broken}")


def _pick(dice: random.Random, firms: list[Account]) -> Group:
    debit, credit = dice.sample(firms, 2)
    movement = move(new_id("tra"), debit, credit, amount_fen=dice.randint(1, 500), code="bench")
    return Group(new_id("grp"), [movement], BY)
