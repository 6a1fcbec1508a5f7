"""From renting an offer to its payout as browsers walk it: firm, provider, operators; each page in both languages."""

import re
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from hub.compute.meter_rules import Report, sign_report
from hub.compute.rules import OfferSort
from hub.compute.tables import HoldState, MeterRecord, MeterState, Offer, OfferState, Rental, RentalPurpose
from hub.orders.elapsed import ELAPSED
from hub.orders.rentals import list_rental_orders
from hub.orders.service import refund_order
from hub.orders.tables import BillVersion, BillVersionState
from hub.payouts.tables import Payout, PayoutState
from marketplace_ui.format import show_fen
from marketplace_ui.words import WORDS
from tests.ui.pages import CHINESE, read_page
from tests.ui.world import World

HOUR_MS = 3_600_000


def find_offer(world: World) -> str:
    """The provider's own offer in the demonstration."""
    with world.sessions.read() as session:
        owner = world.actors["provider"].organisation_id
        return session.scalars(select(Offer.id).where(Offer.organisation_id == owner).order_by(Offer.id)).first() or ""


def rent(world: World, client: FlaskClient, hours: str = "2") -> str:
    page = client.get(f"/offers/{find_offer(world)}?hours={hours}").text
    found = re.search(r'name="idempotency_key" value="([^"]+)"', page)
    assert found
    form = {"hours": hours, "idempotency_key": found[1]}
    answers = [client.post(f"/offers/{find_offer(world)}/rent", data=form) for _ in range(2)]
    assert {answer.status_code for answer in answers} == {302}
    assert len({answer.headers["Location"] for answer in answers}) == 1
    return answers[0].headers["Location"].split("?")[0].removeprefix("/rentals/")


def get_key(world: World) -> str:
    page = world.visit("provider").post("/provider/meter-key").text
    found = re.search(r">([0-9a-f]{64})<", page)
    assert found
    return found[1]


def send(world: World, key: str, report: Report) -> None:
    signed = replace(report, signature=report.signature or sign_report(key, report))
    body = {
        "seq": signed.seq,
        "device_id": signed.device_id,
        "device_ms": signed.device_ms,
        "observed_at": signed.observed_at.isoformat(),
        "signature": signed.signature,
    }
    answer = world.visit("provider").post(f"/api/v1/rentals/{report.rental_id}/meters", json=body)
    assert answer.status_code in (201, 202), answer.text


@pytest.fixture
def later(market: World) -> object:
    """Put the clock back after a test that moved it."""
    before = market.now
    yield
    market.now = before


@pytest.mark.usefixtures("later")
def test_from_renting_to_the_bank(market: World) -> None:
    firm, provider = market.visit("factory"), market.visit("provider")
    rental, key, start = rent(market, firm), get_key(market), market.now
    market.now = start + timedelta(minutes=40)
    at = start + timedelta(minutes=30)
    send(market, key, Report(rental, 1, "gpu-0", 1_800_000, at, ""))
    send(market, key, Report(rental, 2, "gpu-0", 9_000_000, at + timedelta(minutes=5), ""))
    send(market, key, Report(rental, 3, "gpu-0", 1_900_000, at + timedelta(minutes=6), "forged"))
    page = firm.get(f"/rentals/{rental}").text
    for text in ("Raw meter records", "Set apart", "of device time in", "Counted", "Extend"):
        assert text in page, text
    assert "Doubtful reports" in provider.get("/provider").text
    judge_all(market)
    assert firm.post(f"/rentals/{rental}/end").status_code == 302
    with market.sessions.read() as session:
        ended = session.get_one(Rental, rental)
        assert (ended.state, ended.device_ms) == (HoldState.RELEASED, 1_800_000)
        order = list_rental_orders(session, rental)[0]
    charged = order.charged_fen
    assert charged > 0
    check_statement(firm, charged)
    correct(market, order.id)
    pay_out(market, provider)


def test_the_desk_shows_the_time_that_a_correction_takes_back(market: World) -> None:
    rental = rent(market, market.visit("factory"), "1")
    with market.sessions.read() as session:
        order = list_rental_orders(session, rental)[0]
    with market.sessions.write() as session:
        refund_order(session, order.id, fault="platform", reason_code="x", metered={ELAPSED: HOUR_MS}, now=market.now)
    operator = market.visit("operator")
    form = {"order_id": order.id, "fault": "provider", "reason": "it was the provider after all"}
    assert operator.post("/operator/settlement/corrections", data=form).status_code == 302
    with market.sessions.read() as session:
        version = session.scalars(select(BillVersion).where(BillVersion.order_id == order.id)).one()
    assert (version.fee_fen, version.elapsed_fen < 0) == (0, True)
    assert f"time the platform pays {show_fen(version.elapsed_fen)}" in operator.get("/operator/settlement").text


def judge_all(market: World) -> None:
    operator = market.visit("operator")
    page = operator.get("/operator/settlement").text
    with market.sessions.read() as session:
        doubtful = session.scalars(select(MeterRecord.id).where(MeterRecord.state == "quarantined")).all()
    assert len(doubtful) == 2
    for record in doubtful:
        address = f"/operator/settlement/meters/{record}"
        assert address in page
        assert operator.post(address, data={"decision": "reject"}).status_code == 422
        assert operator.post(address, data={"decision": "reject", "reason": "no"}).status_code == 302
    assert market.visit("auditor").get("/operator/settlement").status_code == 200
    assert market.visit("auditor").post(address, data={"decision": "accept", "reason": "x"}).status_code == 403


def check_statement(firm: FlaskClient, charged: int) -> None:
    page = firm.get("/statement").text
    assert f"¥{charged // 100}.{charged % 100:02d}" in page
    records = [firm.get(address).text for address in sorted(set(re.findall(r"/statement/lines/[\w:]+", page)))]
    assert any("gpu-0" in record for record in records)
    for ending in ("pdf", "xlsx", "csv"):
        found = re.search(rf'href="(/api/v1/statement\.{ending}[^"]*)"', page)
        assert found
        assert firm.get(found[1].replace("&amp;", "&")).status_code == 200


def correct(market: World, order_id: str) -> None:
    operator = market.visit("operator")
    form = {"order_id": order_id, "device_ms": "1000000", "trained_tokens": "0", "reason": "the device stood still"}
    assert operator.post("/operator/settlement/corrections", data={**form, "reason": ""}).status_code == 422
    answer = operator.post("/operator/settlement/corrections", data=form)
    assert answer.headers["Location"].endswith("done=posted"), answer.text
    assert "the device stood still" in operator.get("/operator/settlement").text
    assert "version 2" in market.visit("factory").get("/statement").text


def pay_out(market: World, provider: FlaskClient) -> None:
    page = provider.get("/earnings").text
    found = re.search(r'name="idempotency_key" value="([^"]+)"', page)
    assert found
    assert "How it was split" in page
    form = {"amount_fen": "0.02", "idempotency_key": found[1]}
    assert provider.post("/earnings/payouts", data={**form, "amount_fen": "x"}).status_code == 422
    assert provider.post("/earnings/payouts", data=form).status_code == 302
    back = re.search(r'action="(/earnings/payouts/\w+/withdraw)"', provider.get("/earnings").text)
    assert back
    assert market.visit("integrator").post(back[1]).status_code == 422
    assert provider.post(back[1]).status_code == 302
    assert "Taken back" in provider.get("/earnings").text
    assert provider.post("/earnings/payouts", data=form | {"idempotency_key": "again"}).status_code == 302
    with market.sessions.read() as session:
        payout = session.scalars(select(Payout.id).where(Payout.state == PayoutState.REQUESTED)).one()
    operator, other = market.visit("operator"), market.visit("reviewer")
    address = f"/operator/settlement/payouts/{payout}"
    assert operator.post(f"{address}/send").status_code == 302
    assert operator.post(f"{address}/result", data={"result": "unknown", "reason": "silent"}).status_code == 302
    paid = {"result": "paid", "bank_reference": "B-1", "reason": "found"}
    assert operator.post(f"{address}/send").status_code == 422
    assert operator.post(f"{address}/result", data=paid).status_code == 422
    assert other.post(f"{address}/result", data=paid).status_code == 302
    assert "Paid" in provider.get("/earnings").text


PAGES = (
    ("/offers", "factory"),
    ("/offers?sort=reliability&memory=1&free=yes", "factory"),
    ("/offers/compare", "factory"),
    ("/offers/{offer}", "factory"),
    ("/offers/{offer}", None),
    ("/rentals", "factory"),
    ("/rentals", "developer"),
    ("/provider", "provider"),
    ("/provider/offers/new", "provider"),
    ("/earnings", "provider"),
    ("/earnings", "integrator"),
    ("/operator/settlement", "operator"),
    ("/operator/settlement", "auditor"),
)


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_pages_are_whole_in_both_languages(market: World, path: str, who: str | None) -> None:
    address = path.format(offer=find_offer(market))
    seen = {}
    for language in ("en", "zh"):
        answer = market.visit(who, language).get(address)
        assert answer.status_code == 200, answer.text
        page = read_page(answer.text)
        assert page.inline == []
        assert len(page.ids) == len(set(page.ids))
        assert len(answer.data) <= 60_000
        seen[language] = page.texts
    assert [text for text in seen["en"] if CHINESE.search(text)] == []
    same = {text for text in seen["zh"] if text in set(seen["en"]) and re.search(r"[a-z] [a-z]", text)}
    assert same == set()


@pytest.mark.parametrize(
    ("path", "who"), [("/provider", "factory"), ("/earnings", "operator"), ("/operator/settlement", "provider")]
)
def test_others_may_not_open_them(market: World, path: str, who: str) -> None:
    assert market.visit(who).get(path).status_code == 403
    assert market.visit().get(path).status_code == 302


def test_a_rental_is_its_firms_and_its_providers(market: World) -> None:
    with market.sessions.read() as session:
        rental = session.scalars(select(Rental.id).where(Rental.purpose == RentalPurpose.CUSTOMER)).first()
    if rental is None:
        rental = rent(market, market.visit("factory"), "1")
    for who, status in (("factory", 200), ("provider", 200), ("auditor", 200), ("developer", 404)):
        assert market.visit(who).get(f"/rentals/{rental}").status_code == status
    assert market.visit("developer").post(f"/rentals/{rental}/end").status_code == 404


@pytest.mark.parametrize(
    ("members", "family"),
    [
        (HoldState, "rental"),
        (MeterState, "meter_state"),
        (BillVersionState, "correction"),
        (PayoutState, "payout"),
        (OfferSort, "offer_sort"),
        (OfferState, "offer_state"),
    ],
)
def test_every_state_has_a_word(members: type[StrEnum], family: str) -> None:
    assert {str(member) for member in members} == set(WORDS[family])
