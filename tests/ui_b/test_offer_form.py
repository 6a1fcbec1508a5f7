"""A provider publishes, changes, pauses and resumes its offers on its pages; a firm compares them side by side."""

from flask.testing import FlaskClient
from sqlalchemy import select

from hub.compute.tables import Offer, OfferState
from tests.ui.pages import CHINESE, read_page
from tests.ui.world import World

OFFER = {
    "title_zh": "八卡",
    "title_en": "Eight cards",
    "accelerator": "910B",
    "region_zh": "东莞",
    "region_en": "Dongguan",
    "device": "cuda",
    "count": "8",
    "memory_gib": "512",
    "cpu_threads": "64",
    "tokens_per_s": "9000",
    "available": "3",
    "hour_fen": "96.50",
    "via_city_platform": "yes",
}


def publish(client: FlaskClient, **changes: str) -> tuple[int, str]:
    answer = client.post("/provider/offers", data=OFFER | changes)
    return answer.status_code, answer.text


def find(market: World, title_en: str) -> list[Offer]:
    with market.sessions.read() as session:
        return list(session.scalars(select(Offer).where(Offer.title_en == title_en).order_by(Offer.id)))


def test_an_offer_is_published_changed_paused_and_resumed(market: World) -> None:
    provider = market.visit("provider")
    assert publish(provider)[0] == 302
    (offer,) = find(market, "Eight cards")
    assert (offer.amount_fen, offer.per_units, offer.count, offer.via_city_platform) == (9650, 3_600_000, 8, True)
    form = provider.get(f"/provider/offers/{offer.id}/change").text
    assert 'value="96.50"' in form
    changed = OFFER | {"hour_fen": "88.00"}
    assert provider.post(f"/provider/offers/{offer.id}/change", data=changed).status_code == 302
    old, new = find(market, "Eight cards")
    assert (old.state, new.state, new.amount_fen) == (OfferState.WITHDRAWN, OfferState.OPEN, 8800)
    assert old.amount_fen == 9650
    for step, state in (("pause", OfferState.PAUSED), ("resume", OfferState.OPEN), ("pause", OfferState.PAUSED)):
        assert provider.post(f"/provider/offers/{new.id}/{step}").status_code == 302
        assert find(market, "Eight cards")[1].state is state
    assert new.id not in market.visit("factory").get("/offers").text
    refused = market.visit("factory").post(f"/offers/{new.id}/rent", data={"hours": "1", "idempotency_key": "paused-1"})
    assert refused.status_code in (409, 422)
    assert provider.post(f"/provider/offers/{old.id}/resume").status_code == 409


def test_what_is_wrong_is_said_beside_the_field(market: World) -> None:
    provider, before = market.visit("provider"), len(find(market, "Broken"))
    for field, value in (("hour_fen", "-1"), ("hour_fen", "0"), ("count", "1.5"), ("available", ""), ("device", "tpu")):
        status, text = publish(provider, title_en="Broken", **{field: value})
        assert (status, "field-error" in text) == (422, True), field
        assert "八卡" in text
    assert len(find(market, "Broken")) == before


def test_only_the_own_provider_changes_an_offer(market: World) -> None:
    provider = market.visit("provider")
    publish(provider, title_en="Mine")
    (offer,) = find(market, "Mine")
    for who in ("factory", "operator", "auditor"):
        assert market.visit(who).get("/provider/offers/new").status_code == 403
        assert market.visit(who).post(f"/provider/offers/{offer.id}/pause").status_code == 403


def test_offers_stand_side_by_side_in_both_languages(market: World) -> None:
    provider = market.visit("provider")
    for title in ("First", "Second"):
        publish(provider, title_en=title)
    chosen = [find(market, title)[0].id for title in ("First", "Second")]
    path = "/offers/compare?" + "&".join(f"offer={key}" for key in chosen)
    english = market.visit("factory", "en").get(path).text
    assert all(f"/offers/{key}" in english for key in chosen)
    assert "You pay per hour" in english
    assert [text for text in read_page(english).texts if CHINESE.search(text)] == []
    assert "并排对比" in market.visit("factory", "zh").get(path).text
    assert market.visit(None).get("/offers/compare").status_code == 200
    form = market.visit("provider", "en").get("/provider/offers/new").text
    assert [text for text in read_page(form).texts if CHINESE.search(text)] == []
