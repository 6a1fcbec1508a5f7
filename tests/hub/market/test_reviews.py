"""From private to sold: submit, review with four eyes, ruling, price and split, access, quarantine, end."""

from datetime import timedelta

import pytest

from hub.catalogue.tables import Review
from hub.events.tables import Event
from hub.organisations.tables import Organisation, OrganisationState
from hub.prices.service import find_price_version
from tests.hub.market.world import World, count

APPROVE = {"decision": "approve", "reason": "checked on the pilot line", "ruling": "not_applicable"}
PRICES = {
    "prompt": {"amount_fen": 100, "per_units": 1_000_000},
    "completion": {"amount_fen": 300, "per_units": 1_000_000},
}


def test_an_approved_version_is_everybodys_to_see_and_call(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    version = world.add_adapter(base)
    assert world.call("GET", "/models/integrator-co/orders", "factory").status_code == 404
    assert world.call("POST", f"/versions/{version.id}/submit", "integrator").json["state"] == "in_review"
    [waiting] = world.call("GET", "/versions?state=in_review", "operator").json["versions"]
    assert waiting["name"] == "integrator-co/orders@1"
    review = world.call("POST", f"/versions/{version.id}/reviews", "operator", json=APPROVE)
    assert (review.status_code, review.json["version"]["state"]) == (201, "listed")
    page = world.call("GET", "/models/integrator-co/orders", "factory").json
    assert page["may_call"] == {"ok": True, "code": "ok", "text": "May be called."}
    assert (page["filing"]["number"], page["derivative"]["ruling"]) == ("DEMO-备案-0001", "not_applicable")
    assert world.call("GET", f"/versions/{version.id}").json["reviews"] == []
    assert len(world.call("GET", f"/versions/{version.id}", "integrator").json["reviews"]) == 1
    with world.sessions.read() as session:
        topics = [event.topic for event in session.query(Event).filter(Event.subject == version.id)]
    assert topics == ["version.registered", "version.submitted", "derivative.decided", "version.reviewed"]


def test_a_rejected_version_goes_back_to_its_owner(world: World) -> None:
    version = world.add_adapter(world.add_base())
    world.call("POST", f"/versions/{version.id}/submit", "integrator")
    body = {"decision": "reject", "reason": "the card says nothing about its data"}
    answer = world.call("POST", f"/versions/{version.id}/reviews", "operator", json=body)
    assert answer.json["version"]["state"] == "private"
    assert world.call("POST", f"/versions/{version.id}/reviews", "operator", json=body).status_code == 409
    assert world.call("POST", f"/versions/{version.id}/submit", "integrator").status_code == 200


def test_nobody_reviews_what_the_own_firm_made(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    version = world.add_adapter(base, who="operator")
    world.call("POST", f"/versions/{version.id}/submit", "operator")
    answer = world.call("POST", f"/versions/{version.id}/reviews", "operator", json=APPROVE)
    assert (answer.status_code, answer.json["code"]) == (403, "four_eyes")
    assert count(world, Review) == 0


@pytest.mark.parametrize("who", ["integrator", "factory", "rival", "auditor"])
def test_only_an_operator_reviews(world: World, who: str) -> None:
    version = world.add_adapter(world.add_base())
    world.call("POST", f"/versions/{version.id}/submit", "integrator")
    assert world.call("POST", f"/versions/{version.id}/reviews", who, json=APPROVE).status_code == 403


def test_approval_needs_a_filed_base_a_ruling_and_a_reason(world: World) -> None:
    base = world.add_base()
    version = world.add_adapter(base)
    path = f"/versions/{version.id}/reviews"
    world.call("POST", f"/versions/{version.id}/submit", "integrator")
    unfiled = world.call("POST", path, "operator", json=APPROVE)
    assert (unfiled.status_code, unfiled.json["code"], unfiled.json["standing"]) == (409, "not_listable", "never")
    assert "no model voucher, no public listing" in unfiled.json["detail"]
    world.add_filing(base)
    unruled = world.call("POST", path, "operator", json={"decision": "approve", "reason": "fine"})
    assert (unruled.status_code, unruled.json["field"]) == (409, "ruling")
    numberless = world.call("POST", path, "operator", json={**APPROVE, "ruling": "filed"})
    assert (numberless.status_code, numberless.json["field"]) == (422, "number")
    assert world.call("POST", path, "operator", json={**APPROVE, "reason": "  "}).status_code == 422
    assert world.call("GET", f"/versions/{version.id}", "integrator").json["state"] == "in_review"
    ruling = {"ruling": "registered", "reason": "an app on a filed model", "number": "DEMO-登记-0001"}
    assert world.call("POST", f"/versions/{version.id}/derivative", "operator", json=ruling).status_code == 201
    assert world.call("POST", path, "operator", json={"decision": "approve", "reason": "fine"}).status_code == 201


def test_a_pending_firm_neither_submits_nor_sells(world: World) -> None:
    version = world.add_adapter(world.add_base())
    with world.sessions.write() as session:
        organisation = session.get_one(Organisation, version.organisation_id)
        organisation.state, organisation.verified_at = OrganisationState.PENDING, None
    for path, body in (("submit", None), ("listing", {"prices": PRICES})):
        answer = world.call("POST", f"/versions/{version.id}/{path}", "integrator", json=body)
        assert (answer.status_code, answer.json["code"]) == (403, "organisation_not_verified")


def test_the_owner_prices_a_version_and_splits_the_revenue(world: World) -> None:
    base = world.add_base()
    version = world.add_adapter(base)
    seller, owner = version.organisation_id, base.organisation_id
    split = [
        {"party": "integrator", "organisation_id": seller, "num": 7, "den": 10},
        {"party": "base_owner", "organisation_id": owner, "num": 1, "den": 10},
    ]
    body = {"prices": PRICES, "split": split}
    priced = world.call("POST", f"/versions/{version.id}/listing", "integrator", json=body)
    assert priced.status_code == 200
    page = world.call("GET", "/models/integrator-co/orders", "integrator").json
    assert page["price"]["lines"] == PRICES
    with world.sessions.read() as session:
        row = find_price_version(session, priced.json["price_version_id"])
        assert (row.subject, row.split_terms_id) == (version.id, priced.json["split_terms_id"])
    again = world.call("POST", f"/versions/{version.id}/listing", "integrator", json=body).json
    assert again["price_version_id"] != priced.json["price_version_id"]


def test_revenue_goes_to_nobody_a_seller_might_name(world: World) -> None:
    version = world.add_adapter(world.add_base())
    rival = world.actors["rival"].organisation_id
    path = f"/versions/{version.id}/listing"
    cases: list[dict[str, object]] = [
        {"prices": PRICES, "split": [{"party": "base_owner", "organisation_id": rival, "num": 1, "den": 2}]},
        {"prices": PRICES, "split": [{"party": "provider", "organisation_id": rival, "num": 1, "den": 2}]},
        {"prices": {"prompt": PRICES["prompt"]}},
        {"prices": PRICES | {"device_ms": PRICES["prompt"]}},
        {"prices": PRICES | {"prompt": {"amount_fen": -1, "per_units": 1}}},
        {"prices": PRICES | {"prompt": {"amount_fen": 1, "per_units": 0}}},
        {"prices": PRICES | {"prompt": {"amount_fen": 1.5, "per_units": 1}}},
        {"prices": {}},
    ]
    for body in cases:
        assert world.call("POST", path, "integrator", json=body).status_code == 422, body
    assert world.call("GET", f"/versions/{version.id}", "integrator").json["price_version_id"] is None


def test_access_by_list_lets_the_named_firms_in_only(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    version = world.add_adapter(base)
    factory = world.actors["factory"].organisation_id
    path = f"/versions/{version.id}/access"
    assert world.call("PUT", path, "integrator", json={"visibility": "acl", "acl": [factory]}).status_code == 200
    assert world.call("GET", "/models/integrator-co/orders", "factory").status_code == 404  # not reviewed yet
    world.list_adapter(version)
    assert world.call("GET", "/models/integrator-co/orders", "factory").json["may_call"]["ok"] is True
    for stranger in (None, "rival", "developer"):
        assert world.call("GET", "/models/integrator-co/orders", stranger).status_code == 404
    assert world.call("PUT", path, "integrator", json={"visibility": "acl", "acl": []}).status_code == 422
    assert world.call("PUT", path, "integrator", json={"visibility": "acl", "acl": ["org_x"]}).status_code == 404
    assert world.call("PUT", path, "integrator", json={"visibility": "private"}).status_code == 200
    assert world.call("GET", "/models/integrator-co/orders", "factory").status_code == 404


def test_quarantine_stops_the_owner_too_and_release_restores(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    version = world.add_adapter(base)
    world.list_adapter(version)
    path, stop = f"/versions/{version.id}/quarantine", {"reason_en": "bytes changed", "reason_zh": "文件被改动"}
    assert world.call("POST", path, "integrator", json=stop).status_code == 403
    assert world.call("POST", path, "operator", json=stop).json["state"] == "quarantined"
    assert world.call("POST", path, "operator", json=stop).status_code == 409
    page = world.call("GET", "/models/integrator-co/orders", "integrator").json
    assert (page["may_call"]["ok"], page["may_call"]["code"]) == (False, "quarantined")
    assert world.call("GET", "/models/integrator-co/orders", "factory").status_code == 404
    assert world.call("POST", f"/versions/{version.id}/submit", "integrator").status_code == 409
    assert (
        world.call("POST", f"/versions/{version.id}/listing", "integrator", json={"prices": PRICES}).status_code == 409
    )
    released = world.call("POST", f"/versions/{version.id}/release", "operator", json={"reason": "restored"})
    assert released.json["state"] == "listed"
    assert world.call("GET", "/models/integrator-co/orders", "factory").json["may_call"]["ok"] is True


def test_quarantine_of_a_base_stops_everything_made_from_it(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    world.list_adapter(world.add_adapter(base))
    stop = {"reason_en": "weights leaked a secret", "reason_zh": "权重泄密"}
    assert world.call("POST", f"/versions/{base.id}/quarantine", "operator", json=stop).status_code == 200
    for who in ("integrator", "factory"):
        may_call = world.call("GET", "/models/integrator-co/orders", who).json["may_call"]
        assert may_call == {"ok": False, "code": "quarantined", "text": "weights leaked a secret"}
    world.call("POST", f"/versions/{base.id}/release", "operator", json={"reason": "false alarm"})
    assert world.call("GET", "/models/integrator-co/orders", "factory").json["may_call"]["ok"] is True


def test_retirement_ends_a_version_at_its_time_and_its_derivatives(world: World) -> None:
    base = world.add_base()
    world.add_filing(base)
    world.list_adapter(world.add_adapter(base))
    later = (world.now + timedelta(days=30)).isoformat()
    assert world.call("POST", f"/versions/{base.id}/retire", "integrator", json={}).status_code == 404
    retiring = world.call("POST", f"/versions/{base.id}/retire", "operator", json={"retires_at": later})
    assert retiring.json["state"] == "listed"
    assert world.call("GET", "/models/integrator-co/orders", "factory").json["may_call"]["ok"] is True
    world.pass_time(timedelta(days=30))
    world.tokens.clear()
    may_call = world.call("GET", "/models/integrator-co/orders", "factory").json["may_call"]
    assert (may_call["ok"], may_call["code"]) == (False, "retired")
    assert world.call("POST", f"/versions/{base.id}/retire", "operator", json={}).json["state"] == "retired"
    assert world.call("GET", "/models/operator-co/base", "factory").json["version"]["state"] == "retired"
    assert world.call("POST", f"/versions/{base.id}/retire", "operator", json={}).status_code == 409


def test_flags_need_evidence_and_an_operator(world: World) -> None:
    version = world.add_adapter(world.add_base())
    body = {"two_high_evidence": "0.02 % missed on line 3", "manufacturing_base_evidence": None}
    assert world.call("PUT", f"/versions/{version.id}/flags", "integrator", json=body).status_code == 403
    flagged = world.call("PUT", f"/versions/{version.id}/flags", "operator", json=body).json
    assert (flagged["two_high"], flagged["manufacturing_base"]) == (True, False)
