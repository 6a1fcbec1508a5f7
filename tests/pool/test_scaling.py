"""The number of replicas by queue wait: up after a wait, down after a calm, hysteresis, never outside the limits."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from serving.contract import ReplicaSet
from serving.pool.scaling import UP_AFTER_S, Scaler
from tests.pool.world import make_desired

SET = replace(make_desired(Path("/b")).replica_sets[0], min=0, max=3, idle_s=60)


class Play:
    """A set whose engines are ready the moment they are wished, second by second."""

    def __init__(self, replica_set: ReplicaSet = SET) -> None:
        self.now = 0.0
        self.replica_set = replica_set
        self.scaler = Scaler(lambda: self.now)
        self.count = 0

    def go(self, seconds: int, *, wait_ms: int = 0, called: bool = True, ready: int | None = None) -> int:
        for _ in range(seconds):
            self.now += 1.0
            here = self.count if ready is None else ready
            self.count = self.scaler.wish(
                self.replica_set, queue_wait_ms=wait_ms, is_called=called, ready=here, running=self.count
            )
        return self.count


def test_the_first_call_wakes_one_and_idleness_ends_it() -> None:
    play = Play()
    assert play.go(5, called=False) == 0
    assert play.go(1) == 1
    assert play.go(1, called=False) == 0
    assert Play(replace(SET, min=2)).go(1, called=False) == 2


def test_a_short_wait_starts_nothing_and_a_long_one_starts_one_after_the_other() -> None:
    play = Play()
    play.go(10)
    assert play.go(int(UP_AFTER_S) - 1, wait_ms=5000) == 1
    play.go(1)
    assert play.go(int(UP_AFTER_S), wait_ms=5000) == 1, "the wait began anew"
    assert play.go(1, wait_ms=5000) == 2
    assert play.go(60, wait_ms=5000, ready=1) == 2, "the second one is still starting"
    assert play.go(60, wait_ms=5000) == 3, "never above the maximum"


def test_one_fewer_after_a_calm_and_a_load_that_returns_doubles_the_calm() -> None:
    play = Play()
    play.go(5)
    play.go(5, wait_ms=5000)
    assert play.go(SET.idle_s - 1) == 2
    assert play.go(3) == 1
    assert play.go(5, wait_ms=5000) == 2, "it was needed after all"
    assert play.go(SET.idle_s + 5) == 2
    assert play.go(SET.idle_s) == 1


def test_a_load_between_the_two_limits_changes_nothing() -> None:
    play = Play()
    play.go(5)
    play.go(5, wait_ms=5000)
    assert play.go(600, wait_ms=500) == 2


def test_engines_found_at_first_sight_are_kept() -> None:
    play = Play()
    play.count = 2
    assert play.go(1) == 2
    assert play.go(SET.idle_s - 1) == 2
    assert play.go(2) == 1, "the calm is long enough now"


def test_no_step_down_while_one_is_not_ready() -> None:
    play = Play()
    play.count = 2
    assert play.go(SET.idle_s * 3, ready=1) == 2
    assert play.go(1, ready=2) == 1


@given(
    steps=st.lists(st.tuples(st.integers(0, 3000), st.booleans(), st.integers(0, 3)), max_size=200),
    least=st.integers(0, 2),
    more=st.integers(0, 2),
)
def test_never_outside_the_limits(steps: list[tuple[int, bool, int]], least: int, more: int) -> None:
    most = max(1, least + more)
    play = Play(replace(SET, min=least, max=most))
    for wait_ms, called, ready in steps:
        count = play.go(1, wait_ms=wait_ms, called=called, ready=ready)
        assert max(least, int(called)) <= count <= most
