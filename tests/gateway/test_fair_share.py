"""Who goes next: the least served firm, in order within a firm, nobody locked out, the queue bounded."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest

from serving.contract import RouteReplica
from serving.gateway.access import Target
from serving.gateway.errors import GatewayError
from serving.gateway.fair_share import MAX_WAITING, FairShare, Turn
from serving.gateway.shared_table import SharedTable
from tests.gateway.samples import BASE, make_key, make_model
from tests.gateway.test_rules import Time, resolve_target, view_of

REPLICA = RouteReplica("rep_1", 1, "http://x", BASE, draining=False)
OTHER = RouteReplica("rep_2", 1, "http://y", BASE, draining=False)


class Stage:
    """A fair share over replicas that a test may change."""

    def __init__(self, *, per_replica: int, peers: int = 1) -> None:
        self.time = Time()
        self.replicas = [REPLICA]
        self.order: list[str] = []
        view = view_of(make_model("org/m"))
        self.target = resolve_target(view, make_key(1), "org/m", session="r", now_us=1)
        self.share = FairShare(
            self.offer, SharedTable(), clock=self.time.clock, hold_s=1000.0, per_replica=per_replica, peers=peers
        )

    def offer(self, target: Target, tried: Collection[str]) -> list[RouteReplica]:
        return [replica for replica in self.replicas if replica.id not in tried]

    async def enter(self, firm: str, *, patience_s: float = 1000.0) -> Turn | None:
        async def wait() -> None:
            return None

        turn = await self.share.enter(
            firm,
            self.target,
            REPLICA,
            tried=(),
            give_up_at_s=self.time.now_s + patience_s,
            keep_waiting=wait,
        )
        self.order.append(firm)
        return turn

    async def call(self, firm: str, tokens: int) -> None:
        turn = await self.enter(firm)
        assert turn is not None
        await asyncio.sleep(0)
        self.share.leave(turn, prompt_tokens=0, completion_tokens=tokens)


def play(stage: Stage, scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())
    assert stage.share.waiting == 0


def test_a_firm_with_sixty_four_calls_does_not_starve_one_with_one() -> None:
    stage = Stage(per_replica=4)

    async def scene() -> None:
        many = [asyncio.create_task(stage.call("many", 100)) for _ in range(64)]
        await asyncio.sleep(0)
        await stage.call("one", 100)
        # Four ran and the fifth place, the eighth above the cap, is for a firm with nothing running.
        assert stage.order.index("one") <= 4
        await asyncio.gather(*many)

    play(stage, scene)


def test_backlogged_firms_are_served_the_same_tokens_whatever_the_size_of_their_calls() -> None:
    stage, served = Stage(per_replica=2), Counter[str]()
    sizes = {"small": 50, "large": 400, "many": 50}

    async def scene() -> None:
        async def call(firm: str) -> None:
            await stage.call(firm, sizes[firm])
            if served["small"] < 5000:  # all of them have a backlog until then
                served[firm] += sizes[firm]

        asked = [("small", 150), ("large", 30), ("many", 200)]
        await asyncio.gather(*(call(firm) for firm, count in asked for _ in range(count)))

    play(stage, scene)
    least, most = min(served.values()), max(served.values())
    assert len(served) == 3
    assert most / least < 1.35, served


def test_who_comes_back_has_saved_nothing_up() -> None:
    stage = Stage(per_replica=1)

    async def scene() -> None:
        for _ in range(50):
            await stage.call("busy", 1000)
        holder = await stage.enter("busy")
        assert holder is not None
        stage.order.clear()
        calls = [stage.call(firm, 1000) for firm in ("late", "late", "late", "late", "busy", "busy")]
        tasks = [asyncio.create_task(one) for one in calls]
        await asyncio.sleep(0.01)
        stage.share.leave(holder, prompt_tokens=0, completion_tokens=1000)
        await asyncio.gather(*tasks)

    play(stage, scene)
    assert "busy" in stage.order[:3], stage.order


def test_a_full_queue_makes_room_for_the_firm_with_fewer() -> None:
    stage = Stage(per_replica=8, peers=8)

    async def scene() -> None:
        holders = [await stage.enter("flood"), await stage.enter("guest")]
        flood = [asyncio.create_task(stage.enter("flood")) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0.05)
        with pytest.raises(GatewayError) as full:
            await stage.enter("flood")
        assert (full.value.status, full.value.code, full.value.retry_after_s is not None) == (503, "queue_full", True)
        guest = asyncio.create_task(stage.enter("guest"))
        await asyncio.sleep(0.01)
        assert [task.done() for task in flood].count(True) == 1
        assert isinstance(flood[-1].exception(), GatewayError)
        for task in (*flood, guest):
            task.cancel()
        await asyncio.gather(*flood, guest, return_exceptions=True)
        for holder in holders:
            assert holder is not None
            stage.share.leave(holder, prompt_tokens=0, completion_tokens=1)

    play(stage, scene)


def test_waiting_ends_at_the_deadline_and_when_no_replica_is_left() -> None:
    stage = Stage(per_replica=1)

    async def scene() -> None:
        holders = [await stage.enter("a"), await stage.enter("b")]
        with pytest.raises(GatewayError) as late:
            await stage.enter("a", patience_s=0.0)
        assert (late.value.status, late.value.code) == (503, "no_turn_in_time")
        assert late.value.retry_after_s is not None
        waiting = asyncio.create_task(stage.enter("a"))
        await asyncio.sleep(0.01)
        stage.replicas = []
        stage.share.look_again(())
        assert await waiting is None
        stage.replicas = [REPLICA, OTHER]
        elsewhere = await stage.enter("a")
        assert elsewhere is not None
        assert elsewhere.replica == OTHER
        for turn in (*holders, elsewhere):
            assert turn is not None
            stage.share.leave(turn, prompt_tokens=1, completion_tokens=1)

    play(stage, scene)


def test_a_turn_granted_to_a_call_that_just_left_goes_on() -> None:
    stage = Stage(per_replica=1)

    async def scene() -> None:
        holder, other = await stage.enter("a"), await stage.enter("b")
        leaving, next_one = (asyncio.create_task(stage.enter("a")) for _ in range(2))
        await asyncio.sleep(0.01)
        assert holder is not None
        assert other is not None
        stage.share.leave(other, prompt_tokens=0, completion_tokens=1)
        stage.share.leave(holder, prompt_tokens=0, completion_tokens=1)
        leaving.cancel()
        turn = await next_one
        assert turn is not None
        stage.share.leave(turn, prompt_tokens=0, completion_tokens=1)

    play(stage, scene)
