"""The same way of the money on PostgreSQL, and what many do there at once: one claim, one redemption, one invoice."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest

from hub.claims import service
from hub.claims.rules import NothingToClaimError
from hub.claims.tables import Claim
from hub.database import open_sessions
from hub.tables import import_tables, metadata
from hub.vouchers import service as vouchers
from hub.vouchers.papers import InvoiceUsedError
from hub.vouchers.rules import GrantEndedError
from registry.store import FolderStore
from tests.hub.money.conftest import _create_database, postgresql
from tests.hub.money.market import Market, build_market
from tests.hub.vouchers.steps import add_invoice, assert_books, balance_of, buy, draft, shanghai

__all__ = ["postgresql"]
WORKERS = 4


@pytest.fixture(scope="module")
def on_postgresql(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """A market on PostgreSQL; the tests below go through one year in it, in order."""
    import_tables()
    opened = open_sessions(_create_database(postgresql))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    yield build_market(opened, datetime(2026, 11, 21, 3, 0, tzinfo=UTC), tmp_path_factory.mktemp("postgresql"))
    opened.close()


def race(act: Callable[[], object], *losses: type[Exception]) -> int:
    """Let several do the same at once and return how many succeeded; every other must lose as expected."""
    barrier = Barrier(WORKERS)

    def run(_: int) -> bool:
        barrier.wait()
        try:
            act()
        except losses:
            return False
        return True

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(run, range(WORKERS)))


def test_money_is_used_claimed_once_reported_and_lapsed(on_postgresql: Market, tmp_path: Path) -> None:
    market = on_postgresql
    grant = market.award("compute", 30_000)
    market.fund("factory", 50_000, "bank-1")
    buy(market)
    assert race(lambda: add_invoice(market, grant.id), InvoiceUsedError) == 1
    assert race(lambda: draft(market, programme="compute"), NothingToClaimError) == 1
    with market.sessions.read() as session:
        [claim] = service.list_claims(session, market.actors["auditor"])
        assert claim.amount_fen == 600
        packs = [io.BytesIO(), io.BytesIO()]
        for target in packs:
            service.write_pack(session, FolderStore(tmp_path), session.get_one(Claim, claim.id), target)
        assert packs[0].getvalue() == packs[1].getvalue()
    market.now = shanghai(2026, 12, 1)

    def issue() -> None:
        with market.sessions.write() as session:
            service.issue_report(session, market.actors["operator"], "2026-11", now=market.now)

    assert race(issue) == WORKERS
    with market.sessions.read() as session:
        [report] = service.list_reports(session)
        assert service.check_report(session, report)
        assert "compute,fund,released_fen,5000000000" in report.csv_text
    assert grant.lapse_at is not None
    with market.sessions.write() as session:
        assert vouchers.lapse_grants(session, grant.lapse_at) == 1
    assert balance_of(market, "compute").returned_fen == 29_400
    assert_books(market)


def test_a_grant_is_revoked_once(on_postgresql: Market) -> None:
    market = on_postgresql
    grant = market.award("model", 5_000, contract_no="B")

    def revoke() -> None:
        with market.sessions.write() as session:
            vouchers.revoke_grant(session, market.actors["operator"], grant.id, reason="race", now=market.now)

    assert race(revoke, GrantEndedError) == 1
    assert balance_of(market).returned_fen == 5_000
    assert_books(market)
