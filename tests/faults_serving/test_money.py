"""Money under pressure: a nearly empty account, a silent hub, a revoked key."""

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from serving.contract import cost_ufen
from serving.gateway.view import STALE_AFTER_S
from tests.faults_serving.conftest import Say
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.samples import CUSTOMER, PRICES, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

SPARING, WASTEFUL = 1, 2
SNAPSHOT = make_snapshot(
    keys=(make_key(SPARING), make_key(WASTEFUL, organisation_id="org_wasteful")), models=(make_model("org/base"),)
)
ONE_CALL_UFEN = cost_ufen(PRICES, 11, 0, 5)


def spent_on(world: World, organisation_id: str) -> int:
    return sum(
        cost_ufen(PRICES, record.prompt_tokens, record.cached_tokens, record.completion_tokens)
        for record in world.hub.usage.values()
        if record.organisation_id == organisation_id
    )


@pytest.mark.parametrize("processes", [1, 3])
def test_s5_10_sixty_four_calls_on_a_nearly_empty_account(tmp_path: Path, say: Say, processes: int) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        balance = world.hub.balance_ufen = 40 * ONE_CALL_UFEN
        world.engines[0].delay_s = 0.05
        with running_gateway(world, processes=processes) as gateway:
            asked = {"max_tokens": 5, "stream": False}
            outcomes = run_crowd(64, lambda _: call(gateway.url, secret_of(SPARING), **asked))
            assert gateway.stop() == 0
        spent = spent_on(world, CUSTOMER)
        served = [one for one in outcomes if one.status == 200]
        say(processes=processes, calls=64, served=len(served), balance_ufen=balance, spent_ufen=spent)
        say(overspend_ufen=max(0, spent - balance))
    assert 0 < len(served) < 64
    assert {one.code for one in outcomes if one.status != 200} == {"insufficient_quota"}
    assert spent == len(served) * ONE_CALL_UFEN <= balance
    assert world.hub.balance_ufen == balance - spent


def test_a_silent_hub_serves_nothing_free_and_fails_nobody_who_has_money(tmp_path: Path, say: Say, long: bool) -> None:
    # As long as the hub lets slices live, and so long before the silence that they are replaced once; or a tenth of it.
    life_s, before_s, silent_s = (150.0, 40.0, 60.0) if long else (15.0, 4.0, 4.0)
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, processes=2) as gateway:
        world.hub.life_s = life_s
        # Enough calls that both processes hold an allowance of both firms.
        warm = run_crowd(40, lambda number: call(gateway.url, secret_of(SPARING if number % 2 else WASTEFUL)))
        warm += call_easily(gateway, before_s)
        while not world.hub.closed:  # until a slice was replaced; the test's own limit ends it
            warm += call_easily(gateway, 0.5)
        assert {one.status for one in warm} == {200}
        silent_since_s = time.monotonic()
        world.hub.balance_ufen, world.hub.down = 0, True
        granted = sum(amount for name, amount in world.hub.allowances.items() if name not in world.hub.closed)
        granted += sum(close.spent_ufen for close in world.hub.closed.values())
        sparing, wasteful = call_for(gateway, silent_s)
        later = call_until_stale(gateway) if long else []
        refused_after_s = time.monotonic() - silent_since_s
        if long:
            say(snapshot_refused_after_s=round(refused_after_s, 1), calls_until_then=len(later))
            assert STALE_AFTER_S - 2 <= refused_after_s <= STALE_AFTER_S + 5
        world.hub.down = False
        answered = [one for one in (*warm, *sparing, *wasteful, *later) if one.status == 200]
        wait_for(lambda: len(world.hub.usage) == len(answered), timeout_s=30)
        assert gateway.stop() == 0
    refused = {one.code for one in wasteful if one.status != 200}
    say(
        silent_s=silent_s,
        sparing_calls=len(sparing),
        sparing_failed=sum(one.status != 200 for one in sparing),
        wasteful_served=sum(one.status == 200 for one in wasteful),
        wasteful_refused=sum(one.status != 200 for one in wasteful),
        answered=len(answered),
        records=len(world.hub.usage),
    )
    assert [one for one in sparing if one.status != 200] == []
    assert len(world.hub.usage) == len(answered)
    assert refused <= {"hub_unavailable"}
    assert spent_on(world, CUSTOMER) + spent_on(world, "org_wasteful") <= granted


def call_easily(gateway: Gateway, seconds: float) -> list[Outcome]:
    """Call for a while for either firm by turns."""
    until_s, seen = time.monotonic() + seconds, list[Outcome]()
    while time.monotonic() < until_s:
        seen += run_crowd(8, lambda number: call(gateway.url, secret_of(1 + number % 2), stream=False, max_tokens=5))
        time.sleep(0.2)
    return seen


def call_for(gateway: Gateway, seconds: float) -> tuple[list[Outcome], list[Outcome]]:
    """Call for a while: one firm at an easy pace, the other as fast and as dear as it can."""
    seen: dict[int, list[Outcome]] = {SPARING: [], WASTEFUL: []}

    async def caller(number: int) -> Outcome:
        loop = asyncio.get_running_loop()
        until_s, outcome = loop.time() + seconds, Outcome()
        key = SPARING if number < 2 else WASTEFUL
        # A text of 300 tokens at most may cost a tenth of a slice until its bill is known.
        asked: dict[str, Any] = {"max_tokens": 5} if key == SPARING else {"max_tokens": 1500, "n": 8}
        while loop.time() < until_s:
            outcome = await call(gateway.url, secret_of(key), stream=False, **asked)
            seen[key].append(outcome)
            await asyncio.sleep(0.2 if key == SPARING else 0.0)
        return outcome

    run_crowd(8, caller)
    return seen[SPARING], seen[WASTEFUL]


def call_until_stale(gateway: Gateway) -> list[Outcome]:
    """Call twice a second until a snapshot older than 120 s refuses; return what was answered until then."""
    seen: list[Outcome] = []

    def refused() -> bool:
        time.sleep(0.5)
        seen.extend(run_crowd(1, lambda _: call(gateway.url, secret_of(SPARING), stream=False, max_tokens=5)))
        return seen[-1].code == "snapshot_stale"

    wait_for(refused, timeout_s=90)
    assert {one.code for one in seen[:-1]} <= {"", "hub_unavailable"}
    return seen


def test_a_revoked_key_ends_within_a_second(tmp_path: Path, say: Say) -> None:
    took_s = []
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        for _ in range(5):
            assert run_crowd(1, lambda _: call(gateway.url, secret_of(SPARING)))[0].status == 200
            began_s = time.monotonic()
            world.hub.snapshot = changed(world, revoked_at=1)
            wait_for(lambda: run_crowd(1, lambda _: call(gateway.url, secret_of(SPARING)))[0].status == 401)
            took_s.append(time.monotonic() - began_s)
            world.hub.snapshot = changed(world, revoked_at=None)
            wait_for(lambda: run_crowd(1, lambda _: call(gateway.url, secret_of(SPARING)))[0].status == 200)
    say(revocations=len(took_s), slowest_s=round(max(took_s), 3))
    assert max(took_s) < 1.0


def changed(world: World, **changes: Any) -> Any:
    keys = (make_key(SPARING, **changes), make_key(WASTEFUL, organisation_id="org_wasteful"))
    return dataclasses.replace(world.hub.snapshot, version=world.hub.snapshot.version + 1, keys=keys)
