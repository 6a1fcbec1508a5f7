"""A marketplace with money in every state: calls, rentals, corrections, redemptions, payouts, claims, reports.

Also run by hand: `python -m tests.ui_money.scene FOLDER PORT` serves it for a look.
"""

import json
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from werkzeug.serving import run_simple

from hub.claims import service as claims
from hub.clock import to_us
from hub.compute import metering
from hub.compute.meter_rules import Report, sign_report
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.compute.tables import Offer, Provider
from hub.ledger.periods import month_key
from hub.metering.service import accept_usage
from hub.orders import rentals
from hub.orders import service as orders
from hub.orders.call_corrections import CallsWanted, propose_call_correction
from hub.orders.call_figures import CallFigures
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import BillLine
from hub.organisations.rules import make_demo_uscc
from hub.payouts import service as payouts
from hub.vouchers import service as vouchers
from hub.vouchers.papers import add_paper
from hub.vouchers.tables import PaperKind
from serving import contract
from tests.ui.world import World, build_world
from tests.ui_b.scene import lose_gateway
from tests.ui_vouchers.scene import PAPER, Scene, buy, fill

HOUR_MS = 3_600_000
SECRET = "key of the scene"


def fill_money(world: World) -> Scene:
    """Fill the marketplace of the vouchers with what the pages of money show, and move on to the next month."""
    later = world.now + timedelta(hours=3)
    if month_key(later) != month_key(world.now):
        world.now = later  # the steps below take an hour and are to be of one month
    scene = fill(world)
    _call(scene, "chat-1", 1, 900_000)
    _call(scene, "chat-2", 2, 400_000)
    _late_call(scene)
    _rent(scene)
    _correct(scene)
    _redeem(scene)
    _pay_out(scene)
    _claim(scene)
    scene.ids["offer"] = _city_offer(scene).id
    world.now += timedelta(days=32)
    _report(scene)
    lose_gateway(world)  # only now: a report waits for money that calls still hold
    return scene


def _city_offer(scene: Scene) -> Offer:
    with scene.world.sessions.read() as session:
        return list_offers(session, OfferFilter(via_city_platform=True), now=scene.world.now)[0][0]


def _draw(scene: Scene, key: str) -> contract.AllowanceGrant:
    world = scene.world
    price = world.versions["orders"].price_version_id or ""
    wanted = contract.AllowanceRequest(
        "gw_scene", 1, key, world.actors["factory"].organisation_id, None, price, 400_000_000
    )
    with world.sessions.write() as session:
        piece = orders.grant_allowance(session, wanted, world.now)
    assert isinstance(piece, contract.AllowanceGrant)
    return piece


def _send(scene: Scene, piece: contract.AllowanceGrant, name: str, seq: int, tokens: int) -> None:
    world, at = scene.world, to_us(scene.world.now)
    version = world.versions["orders"]
    record = contract.UsageRecord(
        request_id=name, attempt=0, allowance_id=piece.allowance_id,
        organisation_id=world.actors["factory"].organisation_id, key_id="key_scene", cost_centre="line-3",
        version_id=version.id, digest="a" * 64, price_version_id=version.price_version_id or "", replica_id="rep_1",
        replica_epoch=1, prompt_tokens=1200, cached_tokens=0, completion_tokens=tokens, started_at=at, ended_at=at,
        end_reason=contract.EndReason.STOP, status=contract.UsageStatus.COMPLETE, disputed=False,
    )  # fmt: skip
    with world.sessions.write() as session:
        batch = contract.UsageBatch("gw_scene", 1, seq, (record,))
        accept_usage(session, batch, world.now, check=lambda fresh: orders.check_records(session, fresh))


def _close(scene: Scene, piece: contract.AllowanceGrant, through_seq: int) -> None:
    with scene.world.sessions.write() as session:
        orders.close_allowance(session, contract.AllowanceClose(piece.allowance_id, 0, through_seq), scene.world.now)
    with scene.world.sessions.write() as session:
        orders.settle_tranches(session, scene.world.now)


def _call(scene: Scene, name: str, seq: int, tokens: int) -> None:
    piece = _draw(scene, name)
    _send(scene, piece, name, seq, tokens)
    _close(scene, piece, seq)
    with scene.world.sessions.read() as session:
        scene.ids["line"] = session.scalars(select(BillLine.id).order_by(BillLine.created_at.desc())).first() or ""


def _late_call(scene: Scene) -> None:
    piece = _draw(scene, "late")
    _close(scene, piece, 0)
    _send(scene, piece, "chat-late", 3, 50_000)


def _rent(scene: Scene) -> None:
    """One rental over and billed, one running, one report that nobody can believe."""
    world, offer = scene.world, _city_offer(scene)
    provider = world.actors["provider"]
    with world.sessions.write() as session:
        found = session.scalars(select(Provider).where(Provider.organisation_id == provider.organisation_id)).one()
        key = metering.issue_meter_key(session, provider, found.id, secret=SECRET, now=world.now)[1]
    for name in ("rental_over", "rental"):
        with world.sessions.write() as session:
            rental = rentals.rent_offer(
                session, world.actors["factory"], offer.id, device_ms=2 * HOUR_MS, idempotency_key=name, now=world.now
            )
            scene.ids[name] = rental.id
        if name == "rental_over":
            world.now += timedelta(minutes=40)
            _report_time(scene, rental.id, 1, 30 * 60_000, key)
            with world.sessions.write() as session:
                ended = rentals.end_rental(session, world.actors["factory"], rental.id, now=world.now)
                scene.ids["order"] = ended.order_id or ""
    world.now += timedelta(minutes=20)
    _report_time(scene, scene.ids["rental"], 1, 15 * 60_000, key)
    _report_time(scene, scene.ids["rental"], 2, 9 * HOUR_MS, key)


def _report_time(scene: Scene, rental_id: str, seq: int, device_ms: int, key: str) -> None:
    plain = Report(rental_id, seq, "gpu-0", device_ms, scene.world.now, "")
    signed = replace(plain, signature=sign_report(key, plain))
    with scene.world.sessions.write() as session:
        metering.report_meter(session, scene.world.actors["provider"], signed, secret=SECRET, now=scene.world.now)


def _correct(scene: Scene) -> None:
    """A small correction of calls is posted; a large one of a fine-tune waits for the second operator."""
    world, operator = scene.world, scene.world.actors["operator"]
    with world.sessions.write() as session:
        wanted = CallsWanted("counted twice after a lost connection", [CallFigures("chat-2", 0, 1200, 0, 200_000)])
        propose_call_correction(session, operator, scene.ids["line"], wanted, now=world.now)
    with world.sessions.write() as session:
        wanted_order = Wanted("the machine stood still for the whole rental", None, "provider")
        propose_correction(session, operator, scene.ids["order"], wanted_order, now=world.now)
    order_id = buy(world, 50_000_000)
    with world.sessions.write() as session:
        large = Wanted("the base's checkpoint was damaged", None, "platform")
        propose_correction(session, operator, order_id, large, now=world.now)


def _redeem(scene: Scene) -> None:
    """An award without a share: one request checked, papers complete."""
    world = scene.world
    factory, operator, reviewer = (world.actors[who] for who in ("factory", "operator", "reviewer"))
    with world.sessions.write() as session:
        application = vouchers.apply_for_voucher(
            session, factory, programme="data_asset", asked_fen=5_000_000, contract_no="DA-1", evidence=[PAPER],
            now=world.now,
        )  # fmt: skip
        session.flush()
        vouchers.review_application(session, operator, application.id, decision="check", reason="ok", now=world.now)
        grant = vouchers.review_application(
            session, reviewer, application.id, decision="approve", reason="ok", now=world.now
        )
        assert grant is not None
        scene.ids["grant_data_asset"] = grant.id
        for kind in (PaperKind.INVOICE, PaperKind.PAYMENT):
            add_paper(
                session, factory, grant.id, month=month_key(world.now), kind=kind, name=f"{kind}.pdf", digest="b" * 64,
                number="F-9", issuer_uscc=make_demo_uscc(40), amount_fen=5_000_000, now=world.now,
            )  # fmt: skip
    with world.sessions.write() as session:
        redemption = claims.request_redemption(
            session, factory, scene.ids["grant_data_asset"], charge_ids=[], now=world.now
        )
        claims.review_redemption(session, operator, redemption.id, decision="check", reason="", now=world.now)


def _pay_out(scene: Scene) -> None:
    world, provider = scene.world, scene.world.actors["provider"]
    for number, amount in enumerate((900, 700), start=1):
        with world.sessions.write() as session:
            row = payouts.request_payout(
                session, provider, amount_fen=amount, idempotency_key=f"pay-{number}", now=world.now
            )
        if number == 1:
            with world.sessions.write() as session:
                payouts.send_payout(session, world.actors["operator"], row.id, now=world.now)


def _claim(scene: Scene) -> None:
    world = scene.world
    with world.sessions.write() as session:
        claims.submit_claim(session, world.actors["reviewer"], scene.ids["claim"], pack_sha256="0" * 64, now=world.now)


def _report(scene: Scene) -> None:
    """Reports of the month that had everything and of the empty one before, so that they differ."""
    year, month = map(int, scene.ids["month"].split("-"))
    before = f"{year - (month == 1)}-{(month - 2) % 12 + 1:02d}"
    with scene.world.sessions.write() as session:
        for period in (before, scene.ids["month"]):
            claims.issue_report(session, scene.world.actors["operator"], period, now=scene.world.now)


if __name__ == "__main__":
    served = fill_money(build_world(Path(sys.argv[1])))
    for person in ("factory", "integrator", "provider", "operator", "reviewer", "auditor"):
        served.world.visit(person)
    sys.stdout.write(f"{json.dumps({'ids': served.ids, 'tokens': served.world.tokens})}\n")
    sys.stdout.flush()
    run_simple("127.0.0.1", int(sys.argv[2]), served.world.app, threaded=True)
