"""A marketplace whose factory has used its vouchers, with a claim drafted and an application returned.

Also run by hand: `python -m tests.ui_vouchers.scene FOLDER PORT` serves it for a look.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from werkzeug.serving import run_simple

from hub.claims import service as claims
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.ids import new_id
from hub.ledger.periods import month_key
from hub.orders import service as orders
from hub.organisations.ownership import declare_owner
from hub.organisations.rules import make_demo_uscc
from hub.organisations.tables import OwnerKind
from hub.vouchers import service as vouchers
from hub.vouchers.papers import add_paper
from hub.vouchers.tables import PaperKind
from tests.ui.world import World, build_world

PAPER = {"kind": "contract", "name": "合同.pdf", "digest": "c" * 64}


@dataclass
class Scene:
    """The marketplace and the ids of what stands in it, by name."""

    world: World
    ids: dict[str, str] = field(default_factory=dict)


def fill(world: World) -> Scene:
    """Use the vouchers, hand in an invoice, draft a claim and a rule, return an application."""
    scene = Scene(world, {"month": month_key(world.now)})
    buy(world, 1_000_000)
    with world.sessions.write() as session:
        factory, operator = world.actors["factory"], world.actors["operator"]
        for row in vouchers.list_grants(session, factory.organisation_id):
            scene.ids[f"grant_{row.programme.code}"] = row.grant.id
        add_paper(
            session, factory, scene.ids["grant_model"], month=scene.ids["month"], kind=PaperKind.INVOICE,
            name="发票.pdf", digest="f" * 64, number="F-1", issuer_uscc=make_demo_uscc(40), amount_fen=4201,
            now=world.now,
        )  # fmt: skip
        declare_owner(
            session, factory, factory.organisation_id, kind=OwnerKind.LEGAL_PERSON, name="王建国", code="",
            share_bp=None, now=world.now,
        )  # fmt: skip
        claim = claims.draft_claim(session, operator, programme="model", period=scene.ids["month"], now=world.now)
        scene.ids["claim"] = claim.id
        scene.ids["application"] = vouchers.apply_for_voucher(
            session, world.actors["integrator"], programme="model", asked_fen=100_000, contract_no="C-1",
            evidence=[PAPER], now=world.now,
        ).id  # fmt: skip
        rule = vouchers.rule_of_day(session, vouchers.find_programme(session, "model").id, world.now)
        assert rule is not None
        scene.ids["rule"] = vouchers.draft_rule(
            session, operator, programme="model", body={**rule.body, "share": {"num": 2, "den": 5}},
            effective_from_at=world.now, effective_to_at=None, source="通知 7", now=world.now,
        ).id  # fmt: skip
    return scene


def buy(world: World, trained_tokens: int) -> str:
    """Let the factory order and settle a fine-tune of an hour and so many tokens; returns the order."""
    factory, base = world.actors["factory"], world.versions["demo-zh"]
    with world.sessions.write() as session:
        offer, _ = list_offers(session, OfferFilter(via_city_platform=True), now=world.now)[0]
        quote = orders.quote_tuning(
            session,
            factory,
            base_version_id=base.id,
            base_public_name="guanmo/demo-zh",
            filed=True,
            offer=offer,
            dataset_version_id="dsv_1",
            device_ms=3_600_000,
            trained_tokens=trained_tokens,
            plan_digest="p" * 64,
            subject=new_id("run"),
            now=world.now,
        )
        key = f"vouchers-{trained_tokens}"
        order = orders.accept_quote(session, factory, quote.id, idempotency_key=key, now=world.now)
        metered = {"device_ms": 3_600_000, "trained_tokens": trained_tokens}
        orders.settle_order(session, order.id, metered=metered, now=world.now)
        return order.id


if __name__ == "__main__":
    served = fill(build_world(Path(sys.argv[1])))
    for person in ("factory", "operator", "reviewer", "auditor"):
        served.world.visit(person)
    sys.stdout.write(f"{json.dumps({'ids': served.ids, 'tokens': served.world.tokens})}\n")
    sys.stdout.flush()
    run_simple("127.0.0.1", int(sys.argv[2]), served.world.app, threaded=True)
