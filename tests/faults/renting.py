"""The steps of a GPU rental and of an order whose job is gone.

Each is repeated after a crash as its maker does: look, then ask again. It leaves killing to `boundaries`.
"""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import select

from hub.compute import metering
from hub.compute.meter_rules import Report, derive_meter_key, sign_report
from hub.compute.tables import Offer, Provider, Rental
from hub.orders import rentals
from hub.orders.leases import HOLD_EXPIRED, LEASE_S, keep_alive
from hub.orders.placing import accept_quote
from hub.orders.tables import Order
from hub.tuning.keeping_holds import keep_holds
from tests.hub.money.market import Market
from tests.hub.orders.test_rentals import HOUR_MS, SECRET, Shop

LEASE = timedelta(seconds=LEASE_S)


def offer(market: Market) -> None:
    """Let the provider publish an offer and take its meter key."""
    with market.sessions.read() as session:
        known = session.scalar(select(Offer.id))
    if known is None:
        Shop(market)


def start(market: Market) -> None:
    """Rent: money held under a lease and a device allocated, together."""
    with market.sessions.write() as session:
        wanted = session.scalars(select(Offer.id)).one()
        rentals.rent_offer(
            session, market.actors["factory"], wanted, device_ms=HOUR_MS, idempotency_key="rent-1", now=market.now
        )


def heartbeat(market: Market) -> None:
    """Report the meter twice and renew the lease of the money."""
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
        keep_alive(session, rental.order_id or "", now=market.now + LEASE / 2)


def finish(market: Market) -> None:
    """End the rental, settled on what was counted."""
    with market.sessions.write() as session:
        rental = session.scalars(select(Rental).where(Rental.order_id.is_not(None))).one()
        rentals.end_rental(session, market.actors["factory"], rental.id, now=market.now + timedelta(minutes=30))


def abandon(market: Market) -> None:
    """Order what no job will ever run for."""
    with market.sessions.read() as session:
        known = session.scalar(select(Order.quote_id).where(Order.idempotency_key == "dead"))
    quote_id = known or market.quote(offer="private").id
    with market.sessions.write() as session:
        accept_quote(session, market.actors["factory"], quote_id, idempotency_key="dead", now=market.now)


def sweep(market: Market) -> None:
    """Let the sweeper end the holds of the order whose lease nobody renewed."""
    with market.sessions.write() as session:
        keep_holds(session, market.now + LEASE)
    with market.sessions.read() as session:
        dead = session.scalars(select(Order).where(Order.idempotency_key == "dead")).one()
    assert dead.reason_code == HOLD_EXPIRED
