"""The steps of a GPU rental and of a leased hold, each repeated after a crash as its maker does: look, then ask again.

It leaves killing to `boundaries`.
"""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select

from hub.compute import metering
from hub.compute.meter_rules import Report, derive_meter_key, sign_report
from hub.compute.tables import Offer, Provider, Rental
from hub.ledger.leases import expire_hold, list_expired, renew_holds
from hub.ledger.movements import hold
from hub.ledger.rules import HoldResolvedError
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import AccountKind
from hub.orders import rentals
from tests.hub.money.market import Market
from tests.hub.orders.test_rentals import HOUR_MS, SECRET, Shop

LEASED = "tra_leased"
LEASE_S = 60


def offer(market: Market) -> None:
    """Let the provider publish an offer and take its meter key."""
    with market.sessions.read() as session:
        known = session.scalar(select(Offer.id))
    if known is None:
        Shop(market)


def start(market: Market) -> None:
    """Rent: money held and a device allocated together; and set money aside under a lease."""
    with market.sessions.write() as session:
        wanted = session.scalars(select(Offer.id)).one()
        rentals.rent_offer(
            session, market.actors["factory"], wanted, device_ms=HOUR_MS, idempotency_key="rent-1", now=market.now
        )
    with market.sessions.write() as session:
        cash = open_account(
            session, organisation_id=market.owner("factory"), kind=AccountKind.FIRM_CASH, now=market.now
        )
        away = open_account(
            session, organisation_id=market.owner("factory"), kind=AccountKind.CLEARING, subject="x", now=market.now
        )
        wanted_hold = hold(LEASED, cash, away, amount_fen=77, code="leased", lease_s=LEASE_S)
        post_group(session, "grp_leased", [wanted_hold], Posted("lease", "lease-1", "usr_1", market.now))


def heartbeat(market: Market) -> None:
    """Report the meter twice and renew the lease."""
    with market.sessions.read() as session:
        rental = session.scalars(select(Rental).where(Rental.order_id.is_not(None))).one()
        provider = session.scalars(select(Provider)).one()
    key = derive_meter_key(SECRET, provider.id, provider.meter_key_number)
    for seq, device_ms in ((1, 600_000), (2, 1_200_000)):
        at = rental.allocated_at + timedelta(milliseconds=device_ms)
        plain = Report(rental.id, seq, "gpu-0", device_ms, at, "")
        report = replace(plain, signature=sign_report(key, plain))
        with market.sessions.write() as session:
            metering.report_meter(session, market.actors["provider"], report, secret=SECRET, now=at)
    with market.sessions.write() as session:
        renew_holds(session, [LEASED], lease_s=LEASE_S, now=market.now + timedelta(seconds=30))


def finish(market: Market) -> None:
    """End the rental, settled on what was counted."""
    with market.sessions.write() as session:
        rental = session.scalars(select(Rental).where(Rental.order_id.is_not(None))).one()
        rentals.end_rental(session, market.actors["factory"], rental.id, now=market.now + timedelta(minutes=30))


def sweep(market: Market) -> None:
    """Let the sweeper end the hold that nobody renewed; a late heartbeat is told so."""
    later = market.now + timedelta(seconds=30 + LEASE_S)
    with market.sessions.write() as session:
        for held in list_expired(session, later):
            expire_hold(session, held, later)
    with market.sessions.write() as session:
        try:
            renew_holds(session, [LEASED], lease_s=LEASE_S, now=later)
        except HoldResolvedError:
            return
    raise AssertionError("the hold lives on")
