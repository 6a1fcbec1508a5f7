"""What firms do in a month: apply, fine-tune, call, rent; with refunds, repeats, lies and corrections in between.

It leaves the clock to `clockwork` and the worker's steps to `chores`.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from examples.city_year.city import HOUR_MS, SECRET, City, Firm, add_adapter
from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.compute.meter_rules import Report, sign_report
from hub.compute.metering import report_meter
from hub.compute.tables import Offer, Rental
from hub.filings.service import standing_of
from hub.metering.service import accept_usage
from hub.metering.tables import Usage
from hub.orders import service as orders
from hub.orders.call_corrections import CallsWanted, propose_call_correction
from hub.orders.call_figures import CallFigures
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.rentals import end_rental, rent_offer
from hub.orders.tables import Order, RatedUsage
from hub.vouchers import service as vouchers
from serving import contract

PAPER = {"kind": "contract", "name": "contract.pdf", "digest": "c" * 64}
ENDS = ("settle",) * 34 + ("platform", "provider", "cancel", "user", "early", "early")
VOUCHERS = {"model": 400_000, "compute": 300_000}
AWARDS = {
    "edge_node": None,
    "data_asset": None,
    "data_standard": "joining",
    "typical_case": None,
    "scenario_model": None,
}


def fund(session: Session, city: City, firm: Firm, amount_fen: int, reference: str) -> None:
    """Book a deposit."""
    orders.deposit(
        session,
        city.operator,
        firm.actor.organisation_id,
        amount_fen=amount_fen,
        reference=reference,
        now=city.clock.now,
    )


def apply_for_voucher(session: Session, city: City, firm: Firm, programme: str, contract_no: str) -> None:
    """Apply, then check and approve by two officers; edge nodes are refused, the hub holds none."""
    now = city.clock.now
    application = vouchers.apply_for_voucher(
        session,
        firm.actor,
        programme=programme,
        asked_fen=VOUCHERS.get(programme, 1_000_000),
        contract_no=contract_no,
        tier=AWARDS.get(programme),
        evidence=[PAPER],
        now=now,
    )
    for officer, decision in ((city.checker, "check"), (city.approver, "approve")):
        vouchers.review_application(session, officer, application.id, decision=decision, reason="", now=now)


def plan_month(city: City, start: datetime, end: datetime) -> None:
    """Draw what every firm does in a month and when."""
    for firm in city.firms:
        plans = ((_plan_tuning, 0.35), (_plan_rental, 0.2), (_plan_correction, 0.06), (_plan_call_correction, 0.06))
        for kind, chance in plans:
            if city.rng.random() < chance:
                kind(city, firm, _moment(city, start, end))
        for _ in range(city.rng.choice((0, 1, 1, 2))):
            _plan_calls(city, firm, _moment(city, start, end))
        if city.rng.random() < 0.02:
            programme = city.rng.choice(tuple(AWARDS))
            city.clock.at(_moment(city, start, end), "application", _applying(city, firm, programme))


def plan_tuning_at(city: City, firm: Firm, ordered_at: datetime, settled_at: datetime) -> None:
    """Let a firm order a fine-tune at one instant and have it settled at another."""

    def order(session: Session) -> None:
        made = _order_tuning(session, city, firm, city.bases[0], city.offers[0])
        city.clock.at(settled_at, "ended: settle", _ending(city, firm, made, "settle"))

    city.clock.at(ordered_at, "ordered", order)


def _moment(city: City, start: datetime, end: datetime) -> datetime:
    return start + city.rng.random() * (end - start - timedelta(hours=8))


def _applying(city: City, firm: Firm, programme: str) -> Callable[[Session], None]:
    number = f"HT-{firm.serial}-{programme}-{city.rng.random()}"
    return lambda session: apply_for_voucher(session, city, firm, programme, number)


def _plan_tuning(city: City, firm: Firm, moment: datetime) -> None:
    base, offer, ending = city.rng.choice(city.bases), city.rng.choice(city.offers), city.rng.choice(ENDS)

    def order(session: Session) -> None:
        made = _order_tuning(session, city, firm, base, offer)
        city.clock.at(city.clock.now + timedelta(hours=3), f"ended: {ending}", _ending(city, firm, made, ending))
        if len(firm.adapters) < 3:
            add_adapter(session, city, firm, base, f"tuned-{len(firm.adapters)}")

    city.clock.at(moment, "ordered", order)


def _order_tuning(session: Session, city: City, firm: Firm, base: str, offer: Offer) -> Order:
    now = city.clock.now
    weights = session.get_one(ModelVersion, base).weights_digest
    quote = orders.quote_tuning(
        session,
        firm.actor,
        base_version_id=base,
        base_public_name="operator/base",
        filed=standing_of(session, weights, now).valid,
        offer=offer,
        dataset_version_id="dsv_city",
        device_ms=city.rng.randrange(HOUR_MS // 4, 6 * HOUR_MS),
        trained_tokens=city.rng.randrange(100_000, 3_000_000),
        plan_digest="p" * 64,
        subject=f"run_{firm.serial}_{to_us(now)}",
        now=now,
    )
    return orders.accept_quote(session, firm.actor, quote.id, idempotency_key=quote.id, now=now)


def _ending(city: City, firm: Firm, order: Order, ending: str) -> Callable[[Session], None]:
    part = 1 if ending == "settle" else city.rng.uniform(0.1, 0.9)
    elapsed = 1 if city.rng.random() < 0.8 else 1.2

    def end(session: Session) -> None:
        quote = orders.find_quote(session, city.operator, order.quote_id)
        metered = {"device_ms": int(quote.device_ms * part), "trained_tokens": int(quote.trained_tokens * part)}
        metered["elapsed_device_ms"] = int(metered["device_ms"] * elapsed)
        now = city.clock.now
        if ending in ("settle", "early"):
            orders.settle_order(session, order.id, metered=metered, now=now)
            firm.closed.append(order.id)
        else:
            orders.refund_order(session, order.id, fault=ending, reason_code="city", metered=metered, now=now)

    return end


def _plan_correction(city: City, firm: Firm, moment: datetime) -> None:
    part = city.rng.uniform(0.2, 0.95)

    def correct(session: Session) -> None:
        if not firm.closed:
            return
        order = orders.find_order(session, firm.closed.pop())
        metered = {name: int((order.metered or {})[name] * part) for name in ("device_ms", "trained_tokens")}
        wanted = Wanted(reason="meter read again", metered=metered)
        propose_correction(session, city.operator, order.id, wanted, now=city.clock.now)

    city.clock.at(moment, "corrected", correct)


def _plan_call_correction(city: City, firm: Firm, moment: datetime) -> None:
    part, fault = city.rng.uniform(0.0, 1.4), city.rng.choice((None, None, "platform", "provider"))

    def correct(session: Session) -> None:
        if not firm.called:
            return
        usage = session.get_one(Usage, (firm.called.pop(), 0))
        rated = session.get_one(RatedUsage, (usage.request_id, 0))
        right = CallFigures(usage.request_id, 0, usage.prompt_tokens, 0, int(usage.completion_tokens * part))
        wanted = CallsWanted("calls counted again", [right], fault)
        propose_call_correction(session, city.operator, rated.bill_line_id, wanted, now=city.clock.now)

    city.clock.at(moment, "calls corrected", correct)


def _plan_rental(city: City, firm: Firm, moment: datetime) -> None:
    offer, hours = city.rng.choice(city.offers), city.rng.randrange(1, 30)
    used, lie = city.rng.uniform(0.05, 1.0), city.rng.random() < 0.1

    def rent(session: Session) -> None:
        rental = rent_offer(
            session,
            firm.actor,
            offer.id,
            device_ms=hours * HOUR_MS,
            idempotency_key=f"rent-{to_us(city.clock.now)}",
            now=city.clock.now,
        )
        seconds = int(hours * 3600 * used)
        for seq, share in enumerate((1 / 3, 2 / 3, 1), start=1):
            at = city.clock.now + timedelta(seconds=int(seconds * share))
            claimed = int((at - city.clock.now).total_seconds()) * 1000
            forged = lie and seq == 2
            city.clock.at(at, "metered", _reporting(city, rental, seq, claimed * (9 if forged else 1)))
        city.clock.at(
            city.clock.now + timedelta(seconds=seconds + 5),
            "rental ended",
            lambda session: end_rental(session, firm.actor, rental.id, now=city.clock.now),
        )

    city.clock.at(moment, "rented", rent)


def _reporting(city: City, rental: Rental, seq: int, device_ms: int) -> Callable[[Session], None]:
    provider = next(actor for actor in city.providers if actor.organisation_id == rental.provider_organisation_id)

    def report(session: Session) -> None:
        plain = Report(rental.id, seq, f"gpu-{rental.id}", device_ms, city.clock.now, "")
        signed = replace(plain, signature=sign_report(city.provider_keys[provider.organisation_id], plain))
        report_meter(session, provider, signed, secret=SECRET, now=city.clock.now)

    return report


def _plan_calls(city: City, firm: Firm, moment: datetime) -> None:
    """One gateway window: a slice drawn, calls sent (sometimes twice), the slice closed."""
    listed = [pair for pair in city.listed if pair[0] not in firm.adapters]
    version, price = city.rng.choice(listed) if listed and city.rng.random() < 0.5 else ("", city.call_price)
    name = f"{firm.serial}-{to_us(moment)}"
    counts = [
        (city.rng.randrange(50, 60_000), city.rng.randrange(0, 50), city.rng.randrange(1, 9_000))
        for _ in range(city.rng.randrange(1, 5))
    ]
    closes_after = timedelta(seconds=city.rng.randrange(2, 40))

    def draw(session: Session) -> None:
        chosen = version or (city.rng.choice(firm.adapters) if firm.adapters else "")
        if not chosen:
            return
        request = contract.AllowanceRequest(f"gw-{name}", 1, name, firm.actor.organisation_id, None, price, 300_000_000)
        answer = orders.grant_allowance(session, request, city.clock.now)
        if isinstance(answer, contract.AllowanceRefusal):
            city.clock.refused[answer.code] += 1
            return
        at = to_us(city.clock.now)
        records = tuple(
            _record(name, number, answer.allowance_id, (firm, chosen, price), (*count, at))
            for number, count in enumerate(counts)
        )
        closing = _closing(city, firm, f"gw-{name}", answer.allowance_id, records)
        city.clock.at(city.clock.now + closes_after, "window", closing)

    city.clock.at(moment, "drawn", draw)


def _record(
    name: str, number: int, allowance_id: str, what: tuple[Firm, str, str], counts: tuple[int, int, int, int]
) -> contract.UsageRecord:
    firm, version, price = what
    prompt, cached, completion, at = counts
    return contract.UsageRecord(
        request_id=f"req-{name}-{number}",
        attempt=0,
        allowance_id=allowance_id,
        organisation_id=firm.actor.organisation_id,
        key_id="key_city",
        cost_centre=None,
        version_id=version,
        digest="d" * 64,
        price_version_id=price,
        replica_id="rep_city",
        replica_epoch=1,
        prompt_tokens=prompt,
        cached_tokens=min(cached, prompt),
        completion_tokens=completion,
        started_at=at,
        ended_at=at + 1_000_000,
        end_reason=contract.EndReason.STOP,
        status=contract.UsageStatus.COMPLETE,
        disputed=False,
    )


def _closing(
    city: City, firm: Firm, gateway: str, allowance_id: str, records: tuple[contract.UsageRecord, ...]
) -> Callable[[Session], None]:
    times = 2 if city.rng.random() < 0.05 else 1

    def close(session: Session) -> None:
        batch = contract.UsageBatch(gateway, 1, 1, records)
        for _ in range(times):  # a reply that was lost is sent again, and counts once
            accept_usage(session, batch, city.clock.now, check=lambda new: orders.check_records(session, new))
        city.clock.done["calls"] += len(records)
        firm.called.append(records[0].request_id)
        ended = contract.AllowanceClose(allowance_id, 0, len(records))
        orders.close_allowance(session, ended, city.clock.now)

    return close
