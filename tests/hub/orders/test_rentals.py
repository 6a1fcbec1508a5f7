"""Rentals: money held and devices allocated together, time counted from signed reports, settled on what counted."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from hub.compute import metering
from hub.compute.allocation import NoCapacityError
from hub.compute.market import read_reliability
from hub.compute.meter_review import DoubtRemainsError
from hub.compute.meter_rules import MeterRefusedError, Report, derive_meter_key, sign_report
from hub.compute.service import ensure_provider, withdraw_offer
from hub.compute.tables import HoldState, MeterRecord, Offer, Rental
from hub.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyConflictError,
    InvalidValueError,
    NotFoundError,
    ReasonMissingError,
)
from hub.ledger.invariants import check_invariants
from hub.ledger.service import find_account
from hub.ledger.tables import PLATFORM, AccountKind, Transfer
from hub.orders import rentals, service
from hub.orders.rental_quotes import RentalTimeError, estimate_rental
from hub.orders.rentals import OfferClosedError, RentalOverError
from hub.orders.rules import InsufficientFundsError
from hub.orders.tables import BillVersion, Order
from hub.tuning.offers import publish_offer
from hub.vouchers.service import LineToCover, find_cover, list_grants
from tests.hub.money.market import Market

SECRET = "pepper of the tests"
HOUR_MS = 3_600_000


@pytest.fixture
def shop(rich: Market) -> "Shop":
    return Shop(rich)


class Shop:
    """A provider with an offer of two places at 12.01 yuan an hour, and its meter key."""

    def __init__(self, market: Market) -> None:
        self.market, self.now = market, market.now
        with market.sessions.write() as session:
            provider = ensure_provider(
                session,
                market.actors["provider"],
                organisation_id=market.owner("provider"),
                name_zh="供应商",
                name_en="Provider",
                now=market.now,
            )
            self.offer = self._publish(session, provider.id)
            number, self.key = metering.issue_meter_key(
                session, market.actors["provider"], provider.id, secret=SECRET, now=market.now
            )
        self.provider_id = provider.id
        assert self.key == derive_meter_key(SECRET, provider.id, number)

    def _publish(self, session: object, provider_id: str) -> Offer:
        return publish_offer(
            session,  # type: ignore[arg-type]
            self.market.actors["provider"],
            provider_id=provider_id,
            title_zh="单卡",
            title_en="One card",
            accelerator="A800",
            region_zh="东莞",
            region_en="Dongguan",
            via_city_platform=True,
            amount_fen=1201,
            per_device_ms=HOUR_MS,
            tokens_per_s=1000,
            available=2,
            now=self.now,
        )

    def later(self, seconds: int) -> datetime:
        return self.now + timedelta(seconds=seconds)

    def rent(self, key: str = "rent-1", *, who: str = "factory", device_ms: int = HOUR_MS) -> Rental:
        with self.market.sessions.write() as session:
            return rentals.rent_offer(
                session,
                self.market.actors[who],
                self.offer.id,
                device_ms=device_ms,
                idempotency_key=key,
                now=self.now,
            )

    def report(self, rental: Rental, seq: int, device_ms: int, *, at: int, device: str = "gpu-0") -> Report:
        plain = Report(rental.id, seq, device, device_ms, self.later(at), "")
        return replace(plain, signature=sign_report(self.key, plain))

    def send(self, report: Report, *, received: int | None = None, who: str = "provider") -> MeterRecord:
        now = report.observed_at if received is None else self.later(received)
        with self.market.sessions.write() as session:
            return metering.report_meter(session, self.market.actors[who], report, secret=SECRET, now=now)

    def end(self, rental: Rental, *, at: int, who: str = "factory") -> Rental:
        with self.market.sessions.write() as session:
            return rentals.end_rental(session, self.market.actors[who], rental.id, now=self.later(at))

    def decide(self, record: MeterRecord, *, accept: bool, at: int = 4000, device_ms: int | None = None) -> MeterRecord:
        with self.market.sessions.write() as session:
            return rentals.decide_meter(
                session,
                self.market.actors["operator"],
                record.id,
                accept=accept,
                reason="looked at the machine",
                device_ms=device_ms,
                now=self.later(at),
            )

    def cash(self) -> tuple[int, int]:
        """Held and available."""
        with self.market.sessions.read() as session:
            money = service.wallet(session, self.market.owner("factory"))
            assert [(found.invariant.id, found.examples) for found in check_invariants(session) if found.broken] == []
            return money.held_fen, money.available_fen

    def compute_voucher(self) -> tuple[int, int, int]:
        """Held, settled, left."""
        with self.market.sessions.read() as session:
            grants = list_grants(session, self.market.owner("factory"))
            return next(
                (row.held_fen, row.settled_fen, row.left_fen) for row in grants if row.programme.code == "compute"
            )

    def payable(self) -> int:
        with self.market.sessions.read() as session:
            account = find_account(session, organisation_id=self.market.owner("provider"), kind=AccountKind.PAYABLE)
            return account.balance_fen if account else 0


def test_renting_holds_voucher_and_cash_and_allocates(shop: Shop) -> None:
    rental = shop.rent()
    assert (rental.state, rental.limit_ms, rental.purpose) == (HoldState.ACTIVE, HOUR_MS, "customer")
    assert shop.cash() == (601, 9399)
    assert shop.compute_voucher() == (600, 0, 19_400)
    assert shop.rent().id == rental.id  # the same key
    with pytest.raises(IdempotencyConflictError):
        shop.rent(device_ms=HOUR_MS * 2)


def test_an_estimate_says_what_the_voucher_pays_and_keeps_nothing(shop: Shop) -> None:
    with shop.market.sessions.read() as session:
        quote = estimate_rental(session, shop.market.actors["factory"], shop.offer, device_ms=HOUR_MS, now=shop.now)
        assert (quote.list_fen, quote.voucher_fen, quote.self_paid_fen) == (1201, 600, 601)
        other = estimate_rental(session, shop.market.actors["rival"], shop.offer, device_ms=HOUR_MS, now=shop.now)
        assert (other.voucher_fen, other.self_paid_fen) == (0, 1201)
        assert service.list_quotes(session, shop.market.owner("factory")) == []


def test_a_rental_without_compute_voucher_is_told_why_the_model_voucher_does_not_pay(shop: Shop) -> None:
    market = shop.market
    market.award("model", 30_000, who="rival", contract_no="R")
    with market.sessions.read() as session:
        [line] = estimate_rental(session, market.actors["rival"], shop.offer, device_ms=HOUR_MS, now=shop.now).lines
    assert (line.covers, [(note["programme"], note["code"]) for note in line.notes]) == (
        [],
        [("compute", "no_grant"), ("model", "no_base_model")],
    )
    note = line.notes[1]
    assert ("device time rented by itself" in note["en"], "单独租用算力" in note["zh"]) == (True, True)
    assert "no valid filing" not in note["en"]
    with market.sessions.read() as session:
        asked = replace(describe_hour(market), filed_base=False)
        assert [refusal.code for refusal in find_cover(session, asked, shop.now).refusals][-1] == "base_not_filed"


def describe_hour(market: Market) -> LineToCover:
    return LineToCover(market.owner("rival"), "device_ms", 1201, filed_base=None, via_city_platform=True)


def test_settles_on_the_last_believed_counter(shop: Shop) -> None:
    rental = shop.rent()
    shop.send(shop.report(rental, 1, 600_000, at=600))
    shop.send(shop.report(rental, 2, 1_800_000, at=1900))
    ended = shop.end(rental, at=2000)
    assert (ended.state, ended.device_ms) == (HoldState.RELEASED, 1_800_000)
    # Half an hour: floor(600.5) = 600, voucher 300, cash 300.
    assert shop.cash() == (0, 9700)
    assert shop.compute_voucher() == (0, 300, 19_700)
    assert shop.payable() == 600
    assert shop.end(rental, at=2100).released_at == ended.released_at
    assert shop.cash() == (0, 9700)


def test_more_time_is_a_supplementary_hold_used_after_the_first(shop: Shop) -> None:
    rental = shop.rent()
    with shop.market.sessions.write() as session:
        for _ in range(2):  # the same key counts once
            rentals.extend_rental(
                session,
                shop.market.actors["factory"],
                rental.id,
                device_ms=HOUR_MS,
                idempotency_key="more",
                now=shop.later(60),
            )
    assert shop.cash() == (1202, 10_000 - 1202)
    shop.send(shop.report(rental, 1, HOUR_MS + HOUR_MS // 2, at=5400))
    shop.end(rental, at=5400)
    with shop.market.sessions.read() as session:
        charged = [order.charged_fen for order in rentals.list_rental_orders(session, rental.id)]
    assert charged == [1201, 600]
    assert shop.payable() == 1801


def test_duplicates_late_and_lost_reports_do_no_harm(shop: Shop) -> None:
    rental = shop.rent()
    first, second, third = (shop.report(rental, seq, seq * 100_000, at=seq * 100) for seq in (1, 2, 3))
    shop.send(first)
    shop.send(third)
    assert shop.send(second, received=900).state == "accepted"  # late, between its neighbours
    assert shop.send(third, received=1000).id == shop.send(third, received=1001).id
    with shop.market.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(MeterRecord)) == 3
        assert session.get_one(Rental, rental.id).device_ms == 300_000


@pytest.mark.parametrize(
    ("seq", "device_ms", "at", "received", "rule"),
    [
        (3, 100_000, 700, 700, "counter_backwards"),
        (3, 700_000, 601, 650, "more_than_elapsed"),
        (3, 650_000, 800, 605, "clock_ahead"),
        (3, 650_000, 500, 700, "time_backwards"),
        (2, 500_000, 620, 620, "conflicting_repeat"),
        (1, 600_001, 300, 700, "counter_backwards"),
    ],
)
def test_reports_that_cannot_be_are_quarantined_and_not_billed(
    shop: Shop, seq: int, device_ms: int, at: int, received: int, rule: str
) -> None:
    rental = shop.rent()
    shop.send(shop.report(rental, 2, 600_000, at=600))
    record = shop.send(shop.report(rental, seq, device_ms, at=at), received=received)
    assert (record.state, record.code, record.counted_ms) == ("quarantined", rule, None)
    assert record.reason_zh
    assert record.reason_en
    assert shop.end(rental, at=3000).device_ms == 600_000
    assert shop.payable() == 200


def test_forged_and_unsigned_reports_are_quarantined(shop: Shop) -> None:
    rental = shop.rent()
    good = shop.report(rental, 1, 1000, at=10)
    for signature, rule in (("", "unsigned"), ("0" * 64, "bad_signature"), (good.signature.upper(), "bad_signature")):
        assert shop.send(replace(good, signature=signature)).code == rule
    swapped = replace(good, device_ms=9000)  # another figure under a true signature
    assert shop.send(swapped).code == "bad_signature"
    with shop.market.sessions.write() as session:
        metering.issue_meter_key(session, shop.market.actors["provider"], shop.provider_id, secret=SECRET, now=shop.now)
    assert shop.send(good).code == "bad_signature"  # the key before no longer counts
    assert shop.end(rental, at=60).device_ms == 0
    assert shop.cash() == (0, 10_000)


def test_one_device_is_never_counted_for_two_rentals_at_once(shop: Shop) -> None:
    shop.market.fund("rival", 10_000, "bank-2")
    one, two = shop.rent(), shop.rent("rent-2", who="rival")
    shop.send(shop.report(one, 1, 600_000, at=600))
    assert shop.send(shop.report(two, 1, 300_000, at=700)).code == "device_overlap"
    assert shop.send(shop.report(two, 2, 300_000, at=700, device="gpu-1")).state == "accepted"
    assert shop.send(shop.report(one, 2, 700_000, at=1200)).state == "accepted"  # busy from 1100 s on
    assert shop.send(shop.report(two, 3, 390_000, at=1095)).state == "accepted"  # busy until 1095 s
    assert shop.send(shop.report(two, 4, 400_000, at=1105)).code == "device_overlap"
    assert shop.send(shop.report(two, 5, 390_000, at=1150)).state == "accepted"  # no time added, so none overlaps
    shop.cash()
    with pytest.raises(NoCapacityError):
        shop.rent("rent-3")


def test_an_operator_accepts_for_less_or_rejects_with_a_reason(shop: Shop) -> None:
    rental = shop.rent()
    record = shop.send(shop.report(rental, 1, 900_000, at=600), received=600)
    assert record.code == "more_than_elapsed"
    with pytest.raises(DoubtRemainsError, match="Accept it for less"):
        shop.decide(record, accept=True)
    with pytest.raises(MeterRefusedError):
        shop.decide(record, accept=True, device_ms=900_001)
    counted = shop.decide(record, accept=True, device_ms=600_000)
    assert (counted.state, counted.counted_ms, counted.device_ms) == ("accepted", 600_000, 900_000)
    assert shop.decide(record, accept=True).counted_ms == 600_000
    with pytest.raises(ConflictError):
        shop.decide(record, accept=False)
    other = shop.send(replace(shop.report(rental, 2, 650_000, at=700), signature="no"), received=700)
    assert shop.decide(other, accept=False).state == "rejected"
    assert shop.end(rental, at=800).device_ms == 600_000
    with pytest.raises(ReasonMissingError), shop.market.sessions.write() as session:
        rentals.decide_meter(session, shop.market.actors["operator"], other.id, accept=False, reason=" ", now=shop.now)
    with pytest.raises(ForbiddenError), shop.market.sessions.write() as session:
        rentals.decide_meter(session, shop.market.actors["provider"], other.id, accept=True, reason="me", now=shop.now)


def test_a_report_accepted_after_the_end_corrects_the_bill(shop: Shop) -> None:
    rental = shop.rent()
    shop.send(shop.report(rental, 1, 600_000, at=600))
    shop.end(rental, at=1300)
    late = shop.send(shop.report(rental, 2, 1_200_000, at=1250), received=1400)
    assert late.code == "rental_over"
    shop.decide(late, accept=True)
    with shop.market.sessions.read() as session:
        version = session.scalars(select(BillVersion)).one()
        order = session.scalars(select(Order)).one()
    # 1200 s cost 400 fen, 600 s 200.
    assert (version.number, version.fee_fen, order.charged_fen) == (2, 200, 400)
    assert shop.payable() == 400


def test_fault_gives_everything_back_and_stands_in_the_record(shop: Shop) -> None:
    rental = shop.rent()
    shop.send(shop.report(rental, 1, 600_000, at=600))
    for who, fault, reason, error in (
        ("provider", "platform", "x", InvalidValueError),
        ("provider", "provider", " ", InvalidValueError),
        ("factory", "provider", "x", ForbiddenError),
    ):
        with pytest.raises(error), shop.market.sessions.write() as session:
            rentals.fail_rental(
                session, shop.market.actors[who], rental.id, fault=fault, reason=reason, now=shop.later(700)
            )
    with shop.market.sessions.write() as session:
        rentals.fail_rental(
            session, shop.market.actors["provider"], rental.id, fault="provider", reason="power", now=shop.later(700)
        )
    assert shop.cash() == (0, 10_000)
    assert shop.payable() == 0
    with shop.market.sessions.read() as session:
        record = read_reliability(session, [shop.market.owner("provider")])[shop.market.owner("provider")]
    assert (record.ended, record.faulted, record.share) == (1, 1, 0)


def test_platform_fault_pays_the_provider_from_the_platform(shop: Shop) -> None:
    rental = shop.rent()
    shop.send(shop.report(rental, 1, 600_000, at=600))
    with shop.market.sessions.write() as session:
        rentals.fail_rental(
            session,
            shop.market.actors["operator"],
            rental.id,
            fault="platform",
            reason="our network",
            now=shop.later(700),
        )
    assert shop.cash() == (0, 10_000)
    assert shop.payable() == 200
    with shop.market.sessions.read() as session:
        cost = find_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_COST)
        assert cost is not None
        assert cost.balance_fen == -200


def test_a_rental_ends_when_its_time_is_over_and_pays_at_most_its_holds(shop: Shop) -> None:
    rental = shop.rent()
    assert sweep(shop, 3600) == 0  # the last report may still come
    shop.send(shop.report(rental, 1, HOUR_MS + 30_000, at=3640))
    assert sweep(shop, 3641) == 1
    assert shop.payable() == 1201
    with pytest.raises(RentalOverError), shop.market.sessions.write() as session:
        rentals.extend_rental(
            session, shop.market.actors["factory"], rental.id, device_ms=HOUR_MS, idempotency_key="x", now=shop.now
        )
    silent = shop.rent("rent-2")
    assert sweep(shop, 3600 + 121) == 1
    with shop.market.sessions.read() as session:
        assert session.get_one(Rental, silent.id).device_ms == 0


def sweep(shop: Shop, at: int) -> int:
    with shop.market.sessions.write() as session:
        return rentals.end_due_rentals(session, shop.later(at))


@pytest.mark.parametrize(
    ("device_ms", "error"),
    [
        (59_999, RentalTimeError),
        (0, RentalTimeError),
        (-1, InvalidValueError),
        (2**63, InvalidValueError),
        (32 * 24 * HOUR_MS, RentalTimeError),
        (60_000.5, InvalidValueError),
        (20 * HOUR_MS, InsufficientFundsError),
    ],
)
def test_what_cannot_be_rented_moves_nothing(shop: Shop, device_ms: int, error: type[Exception]) -> None:
    before = count_transfers(shop)
    with pytest.raises(error):
        shop.rent(device_ms=device_ms)
    assert count_transfers(shop) == before
    with shop.market.sessions.read() as session:
        assert session.scalars(select(Rental)).all() == []


def count_transfers(shop: Shop) -> int:
    with shop.market.sessions.read() as session:
        return session.scalar(select(func.count()).select_from(Transfer)) or 0


def test_strangers_neither_end_nor_meter_nor_rent_what_is_closed(shop: Shop) -> None:
    rental = shop.rent()
    with pytest.raises(NotFoundError):
        shop.end(rental, at=1, who="rival")
    with pytest.raises(NotFoundError):
        shop.send(shop.report(rental, 1, 0, at=1), who="integrator")
    with pytest.raises(ForbiddenError):
        shop.rent("x", who="provider")
    for seq, device_ms in ((0, 1), (1, -1), (1, 2**63), (2**63, 1)):
        with pytest.raises(MeterRefusedError):
            shop.send(shop.report(rental, seq, device_ms, at=1))
    with shop.market.sessions.write() as session:
        withdraw_offer(session, shop.market.actors["provider"], shop.offer.id, now=shop.now)
    with pytest.raises(OfferClosedError):
        shop.rent("late")
