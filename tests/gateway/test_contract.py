"""The contract: strict codecs, names and the price arithmetic."""

import dataclasses
import hashlib
import hmac
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import (
    Block,
    BlockScope,
    ContractError,
    Desired,
    DesiredAdapter,
    InFlight,
    Meter,
    Purpose,
    ReplicaSet,
    Routes,
    Slot,
    Snapshot,
    SnapshotPrice,
    SubjectKind,
    UsageReply,
    cost_ufen,
    decode,
    dumps,
    encode,
    engine_name,
    key_mac,
    loads,
)
from tests.gateway.samples import ADAPTER, BASE, PRICES, make_key, make_model, make_snapshot

SNAPSHOT = make_snapshot(
    keys=(make_key(1), make_key(2, models=("org/base",), ip_ranges=("10.0.0.0/8",), rpm=3)),
    models=(make_model("org/base"), make_model("宏达/x@1", ADAPTER, filing=None)),
    blocks=(Block(SubjectKind.BASE, BASE, BlockScope.PUBLIC, InFlight.FINISH, "filing_withdrawn", "撤回", "gone", 5),),
)
DESIRED = Desired(
    epoch=3,
    generation=9,
    replica_sets=(
        ReplicaSet("set_1", BASE, "file:///b", "vllm", Purpose.SERVE, 1, 2, 4, 16, {"max-model-len": 512, "x": True}),
    ),
    slots=(Slot("slot_1", "set_1", "node_1", ("cpu:0",), 1),),
    adapters=(DesiredAdapter(ADAPTER, BASE, "file:///a", 8, 1),),
)


@pytest.mark.parametrize("message", [SNAPSHOT, DESIRED, Routes(1, (), {ADAPTER: ("r1", "r2")}, {})])
def test_messages_survive_the_wire(message: object) -> None:
    assert loads(type(message), dumps(message)) == message
    assert encode(message)["contract_version"] == 1


def test_an_unknown_field_is_named_with_its_path() -> None:
    wire = encode(SNAPSHOT)
    wire["models"][1]["colour"] = "red"
    with pytest.raises(ContractError) as refused:
        decode(Snapshot, wire)
    assert (refused.value.code, refused.value.field) == ("unknown_field", "models[1].colour")
    assert "public_name" in refused.value.message


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(make_key(1))])
def test_each_field_of_a_key_is_required(name: str) -> None:
    wire = encode(SNAPSHOT)
    del wire["keys"][0][name]
    with pytest.raises(ContractError) as refused:
        decode(Snapshot, wire)
    assert (refused.value.code, refused.value.field) == ("missing_field", f"keys[0].{name}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": "1"}, "wrong_type"),
        ({"version": True}, "wrong_type"),
        ({"version": None}, "wrong_type"),
        ({"keys": {}}, "wrong_type"),
        ({"contract_version": 2}, "wrong_contract_version"),
        ({"contract_version": True}, "wrong_contract_version"),
        ({"prices": [{"price_version_id": "p", "meter": "image", "amount_fen": 1, "per_units": 1}]}, "unknown_value"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, object], code: str) -> None:
    with pytest.raises(ContractError) as refused:
        decode(Snapshot, encode(SNAPSHOT) | change)
    assert refused.value.code == code


def test_text_that_is_no_message() -> None:
    for text, code in (("{", "not_json"), ("[]", "wrong_type"), ("{}", "wrong_contract_version")):
        with pytest.raises(ContractError) as refused:
            loads(UsageReply, text)
        assert refused.value.code == code


def test_names() -> None:
    assert engine_name("0123456789abcdef" * 4) == "lora-0123456789abcdef0123456789abcdef"
    for bad in ("A" * 64, "a" * 63, "../../../etc/passwd"):
        with pytest.raises(ContractError):
            engine_name(bad)
    assert key_mac(b"p", "gm_1_x") == hmac.new(b"p", b"gm_1_x", hashlib.sha256).hexdigest()


tokens = st.integers(0, 10**7)
amounts = st.integers(0, 10**6)
units = st.integers(1, 10**7)


@st.composite
def price_lists(draw: st.DrawFn) -> tuple[SnapshotPrice, ...]:
    meters = [Meter.PROMPT, Meter.COMPLETION] + ([Meter.CACHED] if draw(st.booleans()) else [])
    return tuple(SnapshotPrice("prc", meter, draw(amounts), draw(units)) for meter in meters)


@given(price_lists(), tokens, tokens, tokens)
def test_cost_is_the_exact_sum_rounded_up(
    prices: tuple[SnapshotPrice, ...], uncached: int, cached: int, completion: int
) -> None:
    each = {price.meter: Fraction(price.amount_fen * 10**6, price.per_units) for price in prices}
    cached_price = each.get(Meter.CACHED, each[Meter.PROMPT])
    exact = uncached * each[Meter.PROMPT] + cached * cached_price + completion * each[Meter.COMPLETION]
    cost = cost_ufen(prices, uncached + cached, cached, completion)
    assert type(cost) is int
    assert 0 <= cost - exact < 1


@given(price_lists(), tokens, tokens, tokens, tokens)
def test_splitting_a_request_never_saves(
    prices: tuple[SnapshotPrice, ...], prompt: int, more_prompt: int, completion: int, more_completion: int
) -> None:
    whole = cost_ufen(prices, prompt + more_prompt, 0, completion + more_completion)
    parts = cost_ufen(prices, prompt, 0, completion) + cost_ufen(prices, more_prompt, 0, more_completion)
    assert whole <= parts <= whole + 1
    assert cost_ufen(prices, prompt, 0, completion) <= whole


@pytest.mark.parametrize(
    ("prices", "counts", "code"),
    [
        (PRICES, (-1, 0, 0), "negative_tokens"),
        (PRICES, (1, 2, 0), "cached_above_prompt"),
        (PRICES[:1], (1, 0, 1), "missing_meter"),
        ((PRICES[0], PRICES[0]), (1, 0, 0), "doubled_meter"),
        ((PRICES[0], dataclasses.replace(PRICES[1], price_version_id="prc_2")), (1, 0, 1), "mixed_price_versions"),
        ((dataclasses.replace(PRICES[0], per_units=0),), (1, 0, 0), "bad_price"),
    ],
)
def test_costs_that_do_not_exist(prices: tuple[SnapshotPrice, ...], counts: tuple[int, int, int], code: str) -> None:
    with pytest.raises(ContractError) as refused:
        cost_ufen(prices, *counts)
    assert refused.value.code == code


def test_a_meter_is_needed_only_where_it_counts() -> None:
    assert cost_ufen(PRICES[:1], 1000, 0, 0) == 3_000_000
    assert cost_ufen((), 0, 0, 0) == 0
