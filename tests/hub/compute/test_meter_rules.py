"""The rules that believe or doubt a counter, and the order in which offers stand."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.compute.market import _rank
from hub.compute.meter_rules import (
    Reading,
    Report,
    derive_meter_key,
    doubt_reading,
    doubt_signature,
    fingerprint_report,
    sign_report,
)
from hub.compute.rules import OfferSort, Reliability, hour_fen, second_ufen

START = datetime(2026, 12, 31, 15, 50, tzinfo=UTC)
MS = timedelta(milliseconds=1)
REPORT = Report("rtl_1", 7, "gpu-0", 1000, START + timedelta(seconds=10), "")


@given(
    steps=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=30),
    late_ms=st.integers(0, 60_000),
)
def test_what_is_believed_never_passes_the_time_that_passed(steps: list[tuple[int, int]], late_ms: int) -> None:
    """Any chain of believed readings: the counter only grows and stays within the elapsed time."""
    before, at = Reading(0, START), START
    for passed, claimed in steps:
        at += passed * MS
        new = Reading(before.device_ms + claimed, at)
        doubt = doubt_reading(new, before=before, after=None, received_at=at + late_ms * MS)
        assert (doubt is None) == (claimed <= (at - before.observed_at) // MS)
        if doubt is None:
            before = new
    assert before.device_ms <= (at - START) // MS


def test_a_clock_that_runs_ahead_gains_nothing() -> None:
    new = Reading(40_000, START + timedelta(seconds=40))
    doubt = doubt_reading(new, before=Reading(0, START), after=None, received_at=START + timedelta(seconds=10))
    assert doubt is not None
    assert doubt.code == "more_than_elapsed"


@pytest.mark.parametrize(
    "changed",
    [
        {"rental_id": "rtl_2"},
        {"seq": 8},
        {"device_id": "gpu-1"},
        {"device_ms": 1001},
        {"observed_at": REPORT.observed_at + MS},
    ],
)
def test_a_signature_is_of_every_field(changed: dict[str, Any]) -> None:
    key = derive_meter_key("secret", "prv_1", 1)
    signed = replace(REPORT, signature=sign_report(key, REPORT))
    assert doubt_signature(signed, key) is None
    doubt = doubt_signature(replace(signed, **changed), key)
    assert doubt is not None
    assert doubt.code == "bad_signature"
    assert fingerprint_report(replace(signed, **changed)) != fingerprint_report(signed)


def test_keys_differ_by_installation_provider_and_number() -> None:
    keys = {derive_meter_key(secret, who, number) for secret in "ab" for who in ("p", "q") for number in (1, 2)}
    assert len(keys) == 8
    assert doubt_signature(REPORT) is not None


def test_the_key_before_a_new_secret_goes_on_beside_the_new_one() -> None:
    new, old, other = (derive_meter_key(secret, "prv_1", 1) for secret in ("new", "old", "other"))
    for key, doubted in ((new, False), (old, False), (other, True)):
        signed = replace(REPORT, signature=sign_report(key, REPORT))
        assert (doubt_signature(signed, new, old) is not None) == doubted


def test_prices_round_up_and_a_record_counts_faults() -> None:
    assert (hour_fen(1201, 3_600_000), hour_fen(1, 7_200_000)) == (1201, 1)
    assert second_ufen(3600, 3_600_000) == 1_000_000
    assert second_ufen(1, 3_600_000) == 278
    assert Reliability().share is None
    assert Reliability(ended=4, faulted=1).share == Fraction(3, 4)


def view(number: int, price: int, **offer: int) -> Any:
    shown = SimpleNamespace(id=f"off_{number}", memory_gib=offer.get("memory", 8), tokens_per_s=offer.get("speed", 1))
    record = Reliability(ended=offer.get("ended", 0), faulted=offer.get("faulted", 0))
    return SimpleNamespace(offer=shown, hour_fen=price, free=offer.get("free", 0), reliability=record)


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        (OfferSort.PRICE, [1, 2, 3]),
        (OfferSort.MEMORY, [3, 1, 2]),
        (OfferSort.SPEED, [2, 1, 3]),
        (OfferSort.FREE, [3, 1, 2]),
        (OfferSort.RELIABILITY, [2, 3, 1]),
    ],
)
def test_offers_stand_in_the_order_asked_for(sort: OfferSort, order: list[int]) -> None:
    views = [
        view(1, 100),
        view(2, 200, speed=9, ended=3),
        view(3, 300, memory=80, free=2, ended=2, faulted=1),
    ]
    assert [int(one.offer.id[-1]) for one in sorted(views, key=lambda one: _rank(one, sort))] == order
