"""Short steps on the market that the tests of vouchers and claims share; each is one transaction."""

from datetime import UTC, datetime

from hub.claims import service as claims
from hub.claims.tables import Claim
from hub.ledger.audit import check_books
from hub.ledger.periods import SHANGHAI
from hub.orders import service as orders
from hub.orders.tables import Order
from hub.organisations.rules import make_demo_uscc
from hub.vouchers import service as vouchers
from hub.vouchers.papers import add_paper
from hub.vouchers.service import GrantBalance
from hub.vouchers.tables import Application, Grant, PaperKind
from tests.hub.money.market import PAPER, Market

HOUR_MS = 3_600_000


def apply(market: Market, who: str = "factory", contract_no: str = "HT", **more: object) -> Application:
    wanted = {"programme": "model", "asked_fen": 30_000, "evidence": [PAPER], **more}
    with market.sessions.write() as session:
        return vouchers.apply_for_voucher(
            session,
            market.actors[who],
            contract_no=contract_no,
            now=market.now,
            **wanted,  # type: ignore[arg-type]  # the test's own words
        )


def review(market: Market, application: Application, who: str, decision: str, reason: str = "") -> None:
    with market.sessions.write() as session:
        market.review(session, application.id, who, decision, reason)


def state_of(market: Market, application: Application) -> str:
    with market.sessions.read() as session:
        return str(session.get_one(Application, application.id).state)


def buy(market: Market, key: str = "key-1", *, offer: str = "city", settle_at: datetime | None = None) -> Order:
    """Order one hour and a million tokens and settle in full: 4201 fen, of which vouchers pay 600 and 1500."""
    quote = market.quote(offer=offer)
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=market.now)
    with market.sessions.write() as session:
        return orders.settle_order(
            session,
            order.id,
            metered={"device_ms": HOUR_MS, "trained_tokens": 1_000_000},
            now=settle_at or market.now,
        )


def add_invoice(market: Market, grant_id: str, number: str = "F-1", month: str = "2026-11") -> str:
    with market.sessions.write() as session:
        return add_paper(
            session,
            market.actors["factory"],
            grant_id,
            month=month,
            kind=PaperKind.INVOICE,
            name="发票.pdf",
            digest="f" * 64,
            number=number,
            issuer_uscc=make_demo_uscc(2),
            amount_fen=4201,
            now=market.now,
        ).id


def draft(market: Market, who: str = "checker", programme: str = "model", period: str = "2026-11") -> Claim:
    actor = market.actors[who]
    with market.sessions.read() as session:
        plan = claims.plan_claim(session, actor, programme=programme, period=period, now=market.now)
    with market.sessions.write() as session:
        return claims.place_claim(session, actor, plan, now=market.now)


def balance_of(market: Market, programme: str = "model") -> GrantBalance:
    with market.sessions.read() as session:
        return next(
            row for row in vouchers.list_grants(session, market.owner("factory")) if row.programme.code == programme
        )


def assert_books(market: Market) -> None:
    with market.sessions.read() as session:
        assert check_books(session) == []


def shanghai(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return an instant of Shanghai's clock in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=SHANGHAI).astimezone(UTC)


def put_in_force(market: Market, programme: str, basis_date: str = "charge", **changes: object) -> None:
    with market.sessions.write() as session:
        found = vouchers.find_programme(session, programme)
        rule = vouchers.rule_of_day(session, found.id, market.now)
        assert rule is not None
        drafted = vouchers.draft_rule(
            session,
            market.actors["checker"],
            programme=programme,
            body={**rule.body, **changes},
            effective_from_at=market.now,
            effective_to_at=None,
            source="test",
            basis_date=basis_date,
            now=market.now,
        )
        vouchers.approve_rule(session, market.actors["approver"], drafted.id, now=market.now)


def add_proof(market: Market, grant_id: str) -> None:
    """Hand in the proof that the invoice was paid."""
    with market.sessions.write() as session:
        add_paper(
            session, market.actors["factory"], grant_id, month="2026-11", kind=PaperKind.PAYMENT,
            name="回单.pdf", digest="b" * 64, now=market.now,
        )  # fmt: skip


def pay_in_full(market: Market) -> Grant:
    """The model voucher reimburses a third; the factory pays 4201 fen in full and hands in invoice and proof."""
    put_in_force(market, "model", mode="reimburse", share={"num": 1, "den": 3})
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    add_invoice(market, grant.id)
    add_proof(market, grant.id)
    return grant
