"""Who is taken for an engine that hangs, and who only for a busy one or a machine that stood still."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from serving.pool.engine_client import EngineClient, EngineLoad
from serving.pool.errors import EngineSilentError
from serving.pool.pulse import Pulse
from serving.pool.settings import Timing

TIMING = Timing(probe_interval_s=2.0, probe_timeout_s=2.5, stuck_timeout_s=60.0)


@dataclass
class Engine:
    """Tells no counters for `silent` looks; each takes `look_s` and burns `share` of a core.

    It computes and leaves `silent_asks` tiny questions without an answer; during each it may stop for `stops` looks.
    """

    silent: int
    look_s: float = TIMING.probe_timeout_s
    share: float = 0.0
    now_s: float = 0.0
    cpu_s: float = 0.0
    silent_asks: int = 0
    stops: int = 0
    asked: list[str] = field(default_factory=list)

    async def read_load(self, _timeout_s: float) -> EngineLoad:
        self.asked.append("load")
        if self.silent > 0:
            self.silent -= 1
            self._say_nothing(self.share)
        return EngineLoad(in_flight=0, prompt_tokens=0, completion_tokens=0, waiting=0, waited_s=0.0, begun=0)

    async def ask(self, _model: str, *, prompt_tokens: int, timeout_s: float) -> None:
        self.asked.append(f"ask {prompt_tokens} {timeout_s:g}")
        if self.silent_asks > 0:
            self.silent_asks -= 1
            self.silent += self.stops
            self._say_nothing(0.5)

    def _say_nothing(self, share: float) -> None:
        self.now_s += self.look_s
        self.cpu_s += self.look_s * share
        raise EngineSilentError("TimeoutError")


def feel(engine: Engine, *, looks: int, is_loading: Callable[[], bool] = lambda: False) -> None:
    pulse = Pulse(
        cast("EngineClient", cast("Any", engine)),
        lambda: engine.cpu_s,
        TIMING,
        clock=lambda: engine.now_s,
        is_loading=is_loading,
    )

    async def scenario() -> None:
        for _ in range(looks):
            await pulse.feel()

    asyncio.run(scenario())


def test_an_engine_without_a_word_that_computes_nothing_hangs() -> None:
    with pytest.raises(EngineSilentError):
        feel(Engine(silent=1), looks=1)
    with pytest.raises(EngineSilentError):
        feel(Engine(silent=1), looks=1, is_loading=lambda: True)


def test_a_server_starved_by_its_own_core_is_busy_until_it_has_been_stuck_for_long() -> None:
    engine = Engine(silent=4, share=0.5)
    feel(engine, looks=5)
    assert engine.asked == [*["load"] * 5, "ask 4 2.5"]
    with pytest.raises(EngineSilentError):
        feel(Engine(silent=100, share=0.5), looks=100)


def test_one_look_of_a_machine_that_stood_still_says_nothing_about_its_engines() -> None:
    engine = Engine(silent=1, look_s=30.0)
    feel(engine, looks=2)
    assert engine.asked[-1] == "ask 4 2.5"
    with pytest.raises(EngineSilentError):
        feel(Engine(silent=2, look_s=30.0), looks=2)


def test_what_an_engine_computed_before_it_stopped_excuses_nothing() -> None:
    feel(Engine(silent=0, silent_asks=1), looks=2)
    engine = Engine(silent=0, silent_asks=1, stops=1)
    with pytest.raises(EngineSilentError):
        feel(engine, looks=1, is_loading=lambda: True)
    assert engine.now_s == 2 * TIMING.probe_timeout_s
