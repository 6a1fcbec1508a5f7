"""May this firm call this version now? Every standing against owner and stranger, base and adapter."""

from datetime import timedelta
from typing import Any

import pytest

from hub.catalogue.service import explain_standing, list_blocks, may_serve, root_base
from hub.catalogue.tables import ModelVersion
from hub.filings.service import standing_of, withdraw_filing
from tests.hub.market.world import World

EXPECTED = {
    # standing: (owner of the adapter, another firm)
    "valid": ("ok", "ok"),
    "never": ("ok", "base_not_filed"),
    "withdrawn": ("ok", "filing_withdrawn"),
    "expired": ("ok", "filing_expired"),
}


def give_standing(world: World, base: ModelVersion, standing: str) -> None:
    """List the adapter under a valid filing first, then let the base come to the standing."""
    if standing == "withdrawn":
        with world.sessions.write() as session:
            filing = standing_of(session, base.weights_digest, world.now).filing
            assert filing is not None
            withdraw_filing(session, world.actors["operator"], filing.id, reason="test", now=world.now)
    if standing == "expired":
        world.pass_time(timedelta(days=1))


def code_for(world: World, version: ModelVersion, who: str) -> str:
    with world.sessions.read() as session:
        fresh = session.get_one(ModelVersion, version.id)
        return may_serve(session, fresh, world.actors[who].organisation_id, world.now).code


@pytest.mark.parametrize("standing", ["valid", "withdrawn", "expired"])
def test_a_listed_adapter_follows_its_bases_filing(world: World, standing: str) -> None:
    base = world.add_base()
    world.add_filing(base, valid_until=world.now + timedelta(days=1))
    adapter = world.add_adapter(base)
    world.list_adapter(adapter)
    give_standing(world, base, standing)
    assert (code_for(world, adapter, "integrator"), code_for(world, adapter, "factory")) == EXPECTED[standing]
    assert code_for(world, base, "factory") == EXPECTED[standing][1]


def test_an_unfiled_base_serves_its_owner_and_who_ordered_the_adapter_only(world: World) -> None:
    base = world.add_base()
    adapter = world.add_adapter(base, who="factory")
    assert code_for(world, base, "operator") == "ok"
    assert code_for(world, base, "factory") == "base_not_filed"
    assert code_for(world, adapter, "factory") == "ok"
    assert code_for(world, adapter, "rival") == "not_listed"


def test_filing_one_base_says_nothing_about_another(world: World) -> None:
    filed, unfiled = world.add_base("one"), world.add_base("two", seed=8)
    assert filed.weights_digest != unfiled.weights_digest
    world.add_filing(filed)
    assert code_for(world, filed, "factory") == "ok"
    assert code_for(world, unfiled, "factory") == "base_not_filed"


def test_an_order_by_voucher_on_an_unfiled_base_can_say_why_not(world: World) -> None:
    base = world.add_base()
    adapter = world.add_adapter(base)
    with world.sessions.read() as session:
        root = root_base(session, session.get_one(ModelVersion, adapter.id))
        en, zh = explain_standing(standing_of(session, root.weights_digest, world.now))
    assert root.id == base.id
    assert "no model voucher" in en
    assert "不能使用模型券" in zh


def test_blocks_begin_at_their_time_and_are_listed_for_the_snapshot(world: World) -> None:
    base = world.add_base()
    body: dict[str, Any] = {"reason_en": "stop", "reason_zh": "停"}
    world.call("POST", f"/versions/{base.id}/quarantine", "operator", json=body)
    with world.sessions.read() as session:
        [block] = list_blocks(session, world.now)
        assert list_blocks(session, world.now - timedelta(microseconds=1)) == []
    assert (block.subject_kind, block.subject) == ("base", base.weights_digest)
    assert (block.scope, block.in_flight) == ("all", "cut")
