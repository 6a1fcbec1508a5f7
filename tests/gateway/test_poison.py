"""A request that kills engines: one of them, and no call of others; kept away for ten minutes in every process."""

import http.client
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from serving.gateway import suspects as suspects_module
from serving.gateway.errors import GatewayError
from serving.gateway.suspects import Suspects
from tests.gateway.crowd import Outcome, call, run_crowd
from tests.gateway.engine import Engine
from tests.gateway.samples import secret_of
from tests.gateway.test_recovery import MESSAGES, SNAPSHOT, ask, post
from tests.gateway.test_rules import Time
from tests.gateway.world import running_gateway, running_world, wait_for

POISON: Any = [{"role": "user", "content": "poison"}]


def test_s5_06_a_request_that_kills_engines_meets_one_of_them(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:
        for engine in world.engines:
            engine.mode = "dies-before"
        statuses = [post(gateway, {"messages": MESSAGES}).status for _ in range(3)]
        assert statuses == [502, 422, 422]
        assert sum(len(engine.seen) for engine in world.engines) == 1
        for engine in world.engines:
            engine.mode = "ok"
        assert ask(gateway, seed=1).choices[0].finish_reason == "stop"


def poisoned(engine: Engine) -> int:
    """Return how often an engine got the request that kills it."""
    return sum(seen.get("messages") == POISON for seen in engine.seen)


def test_s5_06_under_load_a_killer_meets_one_engine_and_no_stream_of_others_breaks(tmp_path: Path) -> None:
    """Two gateway processes, each of its three tries on a connection of its own, sixteen streams on both engines."""
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world, processes=2) as gateway:
        for engine in world.engines:
            engine.mode, engine.delay_s, engine.tokens = "dies-of-poison", 0.05, 100
        outcomes: list[Outcome] = []
        others = threading.Thread(
            target=lambda: outcomes.extend(
                run_crowd(16, lambda number: call(gateway.url, secret_of(2), temperature=0, user=f"u{number}"))
            )
        )
        others.start()
        wait_for(lambda: all(engine.running and engine.produced > 4 * engine.running for engine in world.engines))
        wait_for(lambda: sum(engine.running for engine in world.engines) == 16)
        statuses = [post(gateway, {"messages": POISON}).status for _ in range(6)]
        assert (statuses, sum(map(poisoned, world.engines))) == ([502] + [422] * 5, 1)
        others.join()
        assert [one.whole for one in outcomes] == [True] * 16
        assert {one.text for one in outcomes} == {"".join(f"w{number} " for number in range(1, 101))}
        assert post(gateway, {"messages": MESSAGES}).status == 200


def test_s5_06_whoever_waited_beside_a_killer_is_not_taken_for_one(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:

        def ask_beside(number: int) -> Any:
            return call(gateway.url, secret_of(2), seed=number, user=f"u{number}")

        for turn in range(2):  # other calls each time: who is beside two deaths may be the killer
            for engine in world.engines:
                engine.mode, engine.delay_s = "dies-of-poison", 1.0
            crowd = threading.Thread(target=lambda: run_crowd(8, lambda number: ask_beside(8 * turn + number)))  # noqa: B023
            crowd.start()
            wait_for(lambda: sum(engine.running for engine in world.engines) == 8)
            post(gateway, {"messages": POISON})
            crowd.join()
        assert post(gateway, {"messages": POISON}).status == 422
        assert sum(map(poisoned, world.engines)) <= 2
        for engine in world.engines:
            engine.mode, engine.delay_s = "ok", 0.0
        assert {one.status for one in run_crowd(16, ask_beside)} == {200}


def test_s5_06_a_stream_with_text_beside_a_killer_is_not_of_its_crowd(tmp_path: Path) -> None:
    """Though its tokens are told only at the end: a call that was alone without a token is kept away at once."""
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        engine = world.engines[0]
        engine.mode, engine.delay_s, engine.tokens = "dies-of-poison", 0.05, 400
        beside = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
        body = json.dumps({"model": "org/base", "input": "hello", "stream": True})
        beside.request("POST", "/v1/responses", body, {"authorization": f"Bearer {secret_of(2)}"})
        stream = beside.getresponse()
        while b"delta" not in stream.readline():
            pass
        statuses = [post(gateway, {"messages": POISON}).status for _ in range(2)]
        assert (statuses, poisoned(engine)) == ([502, 422], 1)
        stream.close()
        beside.close()


def keeps_away(suspects: Suspects, firm: str = "org", raw: bytes = b"{}", path: str = "/v1/x") -> bool:
    """Return whether a request is kept away from the engines."""
    try:
        suspects.check(firm, path, raw)
    except GatewayError as error:
        return (error.status, error.code, error.retry) == (422, "request_quarantined", False)
    return False


def test_s5_06_a_killer_is_kept_away_for_ten_minutes_in_every_process_and_nobody_else_is(tmp_path: Path) -> None:
    clock = Time()
    here, there = Suspects(tmp_path / "s", clock.clock), Suspects(tmp_path / "s", clock.clock)
    assert not keeps_away(there)
    here.note_death("org", "/v1/x", b"{}", crowd=1)
    assert keeps_away(here)
    assert keeps_away(there)
    assert not any(keeps_away(there, *other) for other in (("rival",), ("org", b"{ }"), ("org", b"{}", "/v1/y")))
    clock.now_s += 599.0
    assert keeps_away(Suspects(tmp_path / "s", clock.clock)), "a process that starts anew knows it too"
    clock.now_s += 1.5
    assert not any(map(keeps_away, (here, there, Suspects(tmp_path / "s", clock.clock))))


def test_s5_06_deaths_in_a_crowd_add_up_over_processes(tmp_path: Path) -> None:
    clock = Time()
    here, there = Suspects(tmp_path / "s", clock.clock), Suspects(tmp_path / "s", clock.clock)
    here.note_death("org", "/v1/x", b"{}", crowd=8)
    here.note_death("org", "/v1/x", b"innocent", crowd=8)
    assert not keeps_away(there)
    there.note_death("org", "/v1/x", b"{}", crowd=8)
    assert keeps_away(here)
    assert not keeps_away(here, "org", b"innocent")


def test_s5_06_what_was_suspected_before_the_machine_started_holds_no_longer(tmp_path: Path) -> None:
    before, after = Time(), Time()
    before.now_s, after.now_s = 90_000.0, 10.0
    Suspects(tmp_path / "s", before.clock).note_death("org", "/v1/x", b"{}", crowd=1)
    assert not keeps_away(Suspects(tmp_path / "s", after.clock))


def test_s5_06_the_oldest_suspicion_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects_module, "MAX_SUSPECTS", 3)
    clock = Time()
    found = Suspects(tmp_path / "s", clock.clock)
    for number in range(5):
        clock.now_s += 1
        found.note_death("org", "/v1/x", b"%d" % number, crowd=1)
    assert len(list((tmp_path / "s").iterdir())) == 3
    assert [keeps_away(found, "org", b"%d" % number) for number in range(5)] == [False, False, True, True, True]


def test_s5_06_a_process_alone_knows_what_its_predecessor_saw_and_what_it_sees_itself(tmp_path: Path) -> None:
    clock = Time()
    Suspects(tmp_path / "s", clock.clock).note_death("org", "/v1/x", b"{}", crowd=1)
    os.utime(tmp_path / "s", (1.0, 1.0))  # not just now
    alone = Suspects(tmp_path / "s", clock.clock, alone=True)
    assert keeps_away(alone)
    Suspects(tmp_path / "s", clock.clock).note_death("org", "/v1/x", b"of nobody", crowd=1)
    assert not keeps_away(alone, "org", b"of nobody")
    alone.note_death("org", "/v1/x", b"its own", crowd=1)
    assert keeps_away(alone, "org", b"its own")
    clock.now_s += 600.5
    assert not keeps_away(alone)
