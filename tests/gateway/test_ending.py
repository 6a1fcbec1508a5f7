"""A key, a firm or its money ends while a stream runs: the stream ends at once, no more is charged than was held."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from serving.contract import EndReason, Snapshot, UsageStatus, cost_ufen
from serving.gateway.surfaces import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Surface
from serving.gateway.upkeep import follow_snapshot
from serving.gateway.view import CurrentView, View
from serving.gateway.watch import Deadlines, Watch
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.engine import Engine
from tests.gateway.samples import PRICES, make_key, make_snapshot, secret_of
from tests.gateway.test_every_surface import BODIES
from tests.gateway.test_failures import spent_by_hub
from tests.gateway.test_recovery import MESSAGES as SAID
from tests.gateway.test_recovery import SNAPSHOT, post
from tests.gateway.test_rules import Time
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

REVOKED = (make_key(1, revoked_at=1), make_key(2))
DELETED = (make_key(2),)
"""What a suspended firm's keys look like: they are in no snapshot."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    with running_world(SNAPSHOT, tmp_path_factory.mktemp("ending")) as world, running_gateway(world) as gateway:
        yield world, gateway


@pytest.fixture(autouse=True)
def _keys_come_back(stage: tuple[World, Gateway]) -> Iterator[None]:
    yield
    stage[0].publish(keys=SNAPSHOT.keys)


def test_s5_09_a_key_revoked_in_mid_stream_ends_the_stream(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].delay_s, world.engines[0].tokens = 0.05, 400
        revoke = threading.Timer(0.6, lambda: world.publish(keys=(make_key(1, revoked_at=1), make_key(2))))
        revoke.start()
        began = time.monotonic()
        answer = post(gateway, {"messages": SAID, "stream": True}).read()
        revoke.join()
        assert b"api_key_revoked" in answer
        assert time.monotonic() - began < 5
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.end_reason, record.status) == (EndReason.BLOCKED, UsageStatus.PARTIAL)
        assert 0 < record.completion_tokens < 400


@pytest.mark.parametrize("keys", [REVOKED, DELETED], ids=["revoked", "suspended"])
@pytest.mark.parametrize("surface", [CHAT, COMPLETIONS, RESPONSES, MESSAGES], ids=lambda surface: surface.name)
def test_s5_09_a_stream_ends_with_an_error_on_every_surface(
    stage: tuple[World, Gateway], engine: Engine, surface: Surface, keys: Any
) -> None:
    world, gateway = stage
    engine.delay_s, engine.tokens = 0.05, 400
    before = set(world.hub.usage)
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    body = json.dumps({"model": "org/base", "stream": True} | BODIES[surface.path])
    connection.request("POST", surface.path, body, {"authorization": f"Bearer {secret_of(1)}", "connection": "close"})
    answer = connection.getresponse()
    for _ in range(6):
        answer.readline()
    world.publish(keys=keys)
    last = answer.read().strip().rpartition(b"data: ")[2]
    assert json.loads(last)["error"]["code"] == "api_key_revoked"
    record = wait_for(lambda: next((world.hub.usage[key] for key in set(world.hub.usage) - before), None))
    assert record.end_reason is EndReason.BLOCKED
    assert record.completion_tokens < 400
    wait_for(lambda: not engine.running)


def test_s5_09_news_of_a_key_end_its_calls_in_the_moment_in_which_they_come() -> None:
    """Not with the next look of the watch: at 50 tokens a second that would be ten chunks for a leaked key."""
    time_, told = Time(), list[str]()

    class News:
        async def poll_snapshot(self, _after: int) -> Snapshot:
            return make_snapshot(keys=(make_key(2),), models=(), version=2)

    def make_call(number: int) -> Any:
        exchange = SimpleNamespace(streams_events=True, slow=False)
        return SimpleNamespace(
            key=make_key(number),
            exchange=exchange,
            began_at_s=time_.now_s,
            sent_at_s=time_.now_s,
            asked_at_s=0.0,
            interrupt=lambda _reason, verdict: told.append(f"{number} {verdict.code}"),
        )

    current = CurrentView(time_.clock)
    current.replace(View.of(SNAPSHOT))
    watch = Watch(current=current, router=cast(Any, None), deadlines=Deadlines(), clock=time_.clock)
    for number in (1, 2):
        watch.calls.add(cast(Any, _Hashed(make_call(number))))
    watch.sweep()
    assert told == []
    asyncio.run(follow_snapshot(cast(Any, News()), current, watch))
    assert told == ["1 api_key_revoked"]


class _Hashed:
    """A call of a set."""

    def __init__(self, call: Any) -> None:
        self.__dict__.update(vars(call))


def test_s5_09_money_that_ends_in_mid_stream_ends_no_stream_and_charges_no_more_than_was_held(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        # Enough for one call of 30 tokens with its prompt, and not for a second one.
        world.hub.balance_ufen = start_ufen = cost_ufen(PRICES, 800, 0, 30)
        world.engines[0].delay_s, world.engines[0].tokens = 0.05, 30
        outcomes: list[Outcome] = []
        first = threading.Thread(
            target=lambda: outcomes.extend(run_crowd(1, lambda _: call(gateway.url, secret_of(1), max_tokens=30)))
        )
        first.start()
        wait_for(lambda: world.engines[0].produced > 3)
        assert world.hub.balance_ufen == 0
        second = run_crowd(1, lambda _: call(gateway.url, secret_of(2), max_tokens=30))[0]
        assert (second.status, second.code) == (429, "insufficient_quota")
        first.join()
        assert (outcomes[0].whole, outcomes[0].tokens) == (True, 30)
        assert gateway.stop() == 0
        assert start_ufen - world.hub.balance_ufen == spent_by_hub(world) <= start_ufen


@pytest.mark.parametrize("stream", [True, False])
def test_s5_09_an_engine_that_makes_more_than_was_asked_for_costs_no_more_than_was_held(
    tmp_path: Path, stream: bool
) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.hub.balance_ufen = start_ufen = cost_ufen(PRICES, 800, 0, 5)
        world.engines[0].tokens = 2000
        outcome = run_crowd(1, lambda _: call(gateway.url, secret_of(1), stream=stream, max_tokens=5))[0]
        assert outcome.status == 200
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.disputed, record.completion_tokens) == (True, 2000)
        assert gateway.stop() == 0
        spent = [closing.spent_ufen for closing in world.hub.closed.values()]
        assert 0 < sum(spent) <= start_ufen < spent_by_hub(world)
