"""Two months of a small market with everything that a bill can be made of; it leaves judging it to the tests."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from hub.audit.chain import chain_all
from hub.audit.checkpoints import make_checkpoint
from hub.audit.export import read_period, write_export
from hub.audit.signing import AuditKey
from hub.database import Sessions
from hub.orders import service as orders
from hub.orders.call_corrections import CallsWanted, bill_late_calls, propose_call_correction
from hub.orders.call_figures import CallFigures
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import RatedUsage
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market

HOUR_MS = 3_600_000


def run_two_months(market: Market) -> None:
    """Trade in two months: orders settled, refunded and corrected, calls filed and unfiled, a late tranche."""
    market.fund("factory", 200_000, "bank-1")
    market.fund("rival", 5_000, "bank-2")
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 20_000, contract_no="B")
    settled = _order(market, "one", device_ms=HOUR_MS // 2, trained_tokens=900_000, elapsed_device_ms=HOUR_MS)
    _order(market, "two", filed=False, offer="private", device_ms=HOUR_MS, trained_tokens=1_000)
    _refund(market, "three", "platform", elapsed_device_ms=HOUR_MS)
    _refund(market, "four", "cancel", device_ms=HOUR_MS // 3, trained_tokens=77)
    for number in range(4):
        _call(market, f"nov-{number}", filed=number % 2 == 0)
    late = market.draw("late")
    assert isinstance(late, AllowanceGrant)
    market.send(market.record(late.allowance_id, "req-late", (50_000, 0, 9_000)), first_seq=90)
    market.now += timedelta(days=12)
    market.close(late.allowance_id, through_seq=90)
    market.settle()
    wanted = Wanted(reason="counted twice", metered={"device_ms": HOUR_MS // 4, "trained_tokens": 900_000})
    with market.sessions.write() as session:
        propose_correction(session, market.actors["operator"], settled, wanted, now=market.now)
        orders.close_months(session, market.now)
    _correct_calls(market)
    for number in range(3):
        _call(market, f"dec-{number}", filed=True)
    _order(market, "five", device_ms=HOUR_MS, trained_tokens=1_000_000)


def sign(sessions: Sessions, key: AuditKey, home: Path, market: Market) -> None:
    """Chain and sign as the worker does."""
    chain_all(sessions)
    make_checkpoint(sessions, key, home, now=market.now)


def export(sessions: Sessions, key: AuditKey, target: Path, months: tuple[str | None, str]) -> Path:
    """Write an export and return where it is."""
    with sessions.read() as session:
        write_export(session, target, read_period(*months), public=key.public)
    return target


def _correct_calls(market: Market) -> None:
    """Correct a call down, refund one by the platform's fault, and bill a record that came too late."""
    piece = market.draw("lost")
    assert isinstance(piece, AllowanceGrant)
    market.close(piece.allowance_id)
    market.settle()
    market.send(market.record(piece.allowance_id, "req-too-late", (9_000, 0, 77_000)), first_seq=91)
    with market.sessions.read() as session:
        lines = {rated.request_id: rated.bill_line_id for rated in session.scalars(select(RatedUsage))}
    right = [CallFigures("nov-0", 0, 31_007, 1_003, 0), CallFigures("nov-2", 0, 1_000, 0, 0)]
    with market.sessions.write() as session:
        operator, now = market.actors["operator"], market.now
        propose_call_correction(session, operator, lines["nov-0"], CallsWanted("counted twice", right), now=now)
        wanted = CallsWanted("the engine failed", [CallFigures("nov-1", 0, 0, 0, 0)], "platform")
        propose_call_correction(session, operator, lines["nov-1"], wanted, now=now)
        bill_late_calls(session, operator, [("gw", 1, 91)], reason="gateway came back", now=now)
        wanted = CallsWanted("not so", [CallFigures("nov-0", 0, 31_007, 1_003, 100)])
        propose_call_correction(session, operator, lines["nov-0"], wanted, now=now)


def _order(market: Market, name: str, *, filed: bool = True, offer: str = "city", **metered: int) -> str:
    quote = market.quote(filed=filed, offer=offer)
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=name, now=market.now)
        orders.settle_order(session, order.id, metered=metered, now=market.now)
    return order.id


def _refund(market: Market, name: str, fault: str, **metered: int) -> None:
    quote = market.quote()
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=name, now=market.now)
        orders.refund_order(session, order.id, fault=fault, reason_code="test", metered=metered, now=market.now)


def _call(market: Market, name: str, *, filed: bool) -> None:
    piece = market.draw(name)
    assert isinstance(piece, AllowanceGrant)
    market.send(market.record(piece.allowance_id, name, (31_007, 1_003, 4_441), filed=filed), first_seq=1)
    market.close(piece.allowance_id, through_seq=1)
    market.settle()
