"""What merging would gain: smoothed shares, who is hot, the ratio of times; and on the real engine a number."""

import asyncio

from serving.contract import BASE_ENGINE_NAME
from serving.pool.gain import MEASURED_AGAIN_S, GainBook, GainMeter

HOT, COLD, BASE = "a" * 64, "c" * 64, "b" * 64
FAMILY = {HOT, COLD, BASE}


class Slow:
    """An engine whose slots take three times as long as its base, with one slow round."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def time_calls(self, model: str, *, calls: int, tokens: int) -> float:
        self.asked.append(model)
        once = 9.0 if len(self.asked) == 1 else 1.0
        return once if model == BASE_ENGINE_NAME else 3.0 * once


def test_only_a_lasting_load_makes_an_adapter_hot() -> None:
    gains = GainMeter(window_s=100.0)
    for _ in range(10):
        gains.note({HOT: 8.0, COLD: 0.2, BASE: 2.0}, 1.0)
    assert gains.is_due(HOT, FAMILY)
    assert not gains.is_due(COLD, FAMILY)
    assert 0.75 < gains.read(HOT, FAMILY).share < 0.8
    for _ in range(500):
        gains.note({COLD: 0.2}, 1.0)
    assert gains.read(HOT, FAMILY).share < 0.2
    assert not gains.is_due(COLD, FAMILY), "all of a small load is no load"


def test_the_gain_is_the_middle_of_rounds_in_turn_and_measured_once() -> None:
    gains, engine = GainMeter(window_s=1.0), Slow()
    gains.note({HOT: 8.0}, 1.0)
    asyncio.run(gains.measure(HOT, engine))  # type: ignore[arg-type]
    assert gains.read(HOT, FAMILY).speed_up == 3.0
    assert engine.asked == ["lora-" + "a" * 32, BASE_ENGINE_NAME] * 3
    assert not gains.is_due(HOT, FAMILY)


def test_a_gain_is_measured_again_after_a_week_and_holds_until_then() -> None:
    now = [1_000_000.0]
    gains, engine = GainMeter(window_s=1.0, clock=lambda: now[0]), Slow()
    gains.note({HOT: 8.0}, 1.0)
    asyncio.run(gains.measure(HOT, engine))  # type: ignore[arg-type]
    later = GainMeter(window_s=1.0, book=gains.book, clock=lambda: now[0])
    assert (later.read(HOT, FAMILY).speed_up, later.read(HOT, FAMILY).share) == (3.0, 1.0), "as before the restart"
    assert not later.is_due(HOT, FAMILY)
    now[0] += MEASURED_AGAIN_S
    assert later.is_due(HOT, FAMILY)
    assert later.read(HOT, FAMILY).speed_up == 3.0


def test_gains_of_adapters_that_nobody_wants_are_forgotten() -> None:
    gains = GainMeter(window_s=1.0, book=GainBook({}, {HOT: (3.0, 0.0), COLD: (2.0, 0.0)}))
    gains.keep_only({COLD})
    assert list(gains.book.speed_ups) == [COLD]
