"""Offers by filter, who may publish them, and holding devices with rising epochs."""

import pytest

from hub.compute.allocation import NoCapacityError, allocate, grant_slot, meter_rental, release, release_slot
from hub.compute.rules import estimate_device_ms, hour_fen
from hub.compute.tables import HoldState, RentalPurpose
from tests.hub.runs.scene import Scene


def names(scene: Scene, query: str = "") -> list[str]:
    found = scene.call("GET", f"/api/v1/offers{query}").json
    return [offer["title"]["en"] for offer in found["offers"]]  # type: ignore[index]


def test_offers_are_public_filtered_and_cheapest_first(scene: Scene) -> None:
    assert names(scene) == ["bay", "city"]
    assert names(scene, "?via_city_platform=true") == ["city"]
    assert names(scene, "?region=dongguan") == ["city"]
    assert names(scene, "?region=东莞&accelerator=cpu") == ["bay", "city"]
    assert names(scene, "?accelerator=h200") == []
    assert names(scene, "?max_hour_fen=1800") == ["bay"]
    assert scene.call("GET", "/api/v1/offers?colour=red").status_code == 422
    one = scene.call("GET", f"/api/v1/offers/{scene.offers['city']}").json
    assert one["price"]["hour_fen"] == 3600  # type: ignore[index]
    assert one["free"] == 1  # type: ignore[index]


def test_price_of_an_hour_and_time_of_tokens_round_up() -> None:
    assert hour_fen(1, 7_200_000) == 1
    assert hour_fen(3600, 3_600_000) == 3600
    assert estimate_device_ms(1_000_001, 1000) == 1_000_001
    assert estimate_device_ms(1, 1000) == 1000


def test_a_provider_publishes_for_itself_only(scene: Scene) -> None:
    provider = scene.call("GET", "/api/v1/providers").json["providers"][0]  # type: ignore[index]
    body = {
        "provider_id": provider["id"],
        "title_zh": "一卡",
        "title_en": "one card",
        "accelerator": "Ascend 910B",
        "region_zh": "东莞",
        "region_en": "Dongguan",
        "via_city_platform": True,
        "amount_fen": 900,
        "tokens_per_s": 5000,
        "device": "cpu",
    }
    made = scene.call("POST", "/api/v1/offers", "provider", json=body)
    assert made.status_code == 201, made.json
    assert made.json["price"]["hour_fen"] == 900  # type: ignore[index]
    assert scene.call("POST", "/api/v1/offers", "factory", json=body).status_code == 403
    wrong = scene.call("POST", "/api/v1/offers", "provider", json=body | {"count": 0})
    assert (wrong.status_code, wrong.json["field"]) == (422, "count")  # type: ignore[index]
    unknown = scene.call("POST", "/api/v1/offers", "provider", json=body | {"provider_id": "prv_0"})
    assert unknown.status_code == 404
    offer_id = made.json["id"]  # type: ignore[index]
    assert scene.call("DELETE", f"/api/v1/offers/{offer_id}", "factory").status_code == 403
    assert scene.call("DELETE", f"/api/v1/offers/{offer_id}", "provider").json["state"] == "withdrawn"  # type: ignore[index]
    assert "one card" not in names(scene)


def test_a_rental_is_held_once_and_the_next_one_has_a_higher_epoch(scene: Scene) -> None:
    now, owner, offer_id = scene.work.clock(), scene.actors["factory"].organisation_id, scene.offers["city"]

    def rent(session, run_id):  # type: ignore[no-untyped-def]
        return allocate(
            session,
            organisation_id=owner,
            offer_id=offer_id,
            purpose=RentalPurpose.TRAIN,
            run_id=run_id,
            now=now,
        )

    with scene.sessions.write() as session:
        first = rent(session, "run_1")
        assert rent(session, "run_1").id == first.id
        with pytest.raises(NoCapacityError) as caught:
            rent(session, "run_2")
        assert caught.value.extra == {"limit": 1, "used": 1}
        assert meter_rental(session, first.id, device_ms=500, seq=2).device_ms == 500
        assert meter_rental(session, first.id, device_ms=900, seq=1).device_ms == 500
        assert meter_rental(session, first.id, device_ms=400, seq=3).device_ms == 500
        assert release(session, first.id, device_ms=450, now=now).device_ms == 500
        release(session, first.id, device_ms=9999, now=now)
        second = rent(session, "run_2")
    assert (first.state, first.device_ms) == (HoldState.RELEASED, 500)
    assert second.allocation_epoch == first.allocation_epoch + 1
    rows = scene.call("GET", "/api/v1/rentals", "factory").json["rentals"]  # type: ignore[index]
    assert [row["run_id"] for row in rows] == ["run_2", "run_1"]
    assert scene.call("GET", "/api/v1/rentals", "rival").json == {"rentals": []}


def test_slots_are_bounded_by_the_machine_and_have_rising_epochs(scene: Scene) -> None:
    now = scene.work.clock()
    with scene.sessions.write() as session:
        first, second = grant_slot(session, "set_1", now=now), grant_slot(session, "set_2", now=now)
        assert grant_slot(session, "set_1", now=now).id == first.id
        with pytest.raises(NoCapacityError):
            grant_slot(session, "set_3", now=now)
        release_slot(session, "set_1", now=now)
        third = grant_slot(session, "set_3", now=now)
    assert [first.allocation_epoch, second.allocation_epoch, third.allocation_epoch] == [1, 2, 3]
