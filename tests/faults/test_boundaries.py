"""Fault 1: killed at every statement and commit of every step, started again: the same outcome as without a fault."""

import os
import sys
import time

import pytest

from tests.faults.boundaries import COMMIT, Range, share_out
from tests.faults.ground import Ground
from tests.faults.story import STEPS, Step, read_outcome
from tests.faults.tally import take_tally


@pytest.mark.timeout(7200)
def test_every_boundary_converges(ground: Ground, long: bool) -> None:
    """Long form: every place of every step. Short: around each step's last commit on SQLite, before it elsewhere."""
    killed: list[str] = []
    exists, recovery_s, url = 0, 0.0, ground.copy()
    aimed = Range(ground, url)
    for step in STEPS:
        sound, began = ground.copy(url), time.monotonic()
        places = aimed.list_places(sound, step)
        chosen = _choose(places, everything=long, after=ground.kind == "sqlite")
        workers = _count_workers() if long else 1
        recovery_s = max(recovery_s, _kill_and_repeat(ground, aimed, (url, sound), step, chosen, workers=workers))
        killed += [f"{step.__name__} {number}" for number in chosen]
        exists += sum(COMMIT not in places[number:] for number in chosen)
        spent = time.monotonic() - began
        sys.stdout.write(f"\n1 {step.__name__} [{ground.kind}]: {len(chosen)} of {len(places)} places, {spent:.0f} s")
        ground.drop(url)
        url = sound
    name = f"1 killed at {len(killed)} places of {len(STEPS)} steps"
    tally = take_tally(
        aimed.aim(url).sessions, name, sent=killed, acked=killed, found=killed, exists=exists, recovery_s=recovery_s
    )
    aimed.close()
    ground.drop(url)
    assert tally.sound, tally
    assert len(killed) > (700 if long else 20)


def test_a_life_of_kills_ends_as_a_quiet_one(sqlite_ground: Ground) -> None:
    """One database is killed once in every step on its way, and ends with the outcome of the quiet one."""
    quiet, restless = sqlite_ground.copy(), sqlite_ground.copy()
    aimed = Range(sqlite_ground, quiet)
    for step in STEPS:
        middle = len(aimed.list_places(quiet, step)) // 2
        aimed.die_at(restless, step, middle)
        step(aimed.aim(restless))
    ended = read_outcome(aimed.market)
    assert read_outcome(aimed.aim(quiet)) == ended
    assert take_tally(aimed.aim(restless).sessions, "1 killed once in every step").sound
    aimed.close()


def _kill_and_repeat(
    ground: Ground, aimed: Range, urls: tuple[str, str], step: Step, chosen: list[int], *, workers: int
) -> float:
    """On a copy for each place: die there, do the step again, and come out where the sound run did.

    Returns how long the slowest repeat took, in seconds.
    """
    before, sound = urls
    wanted = read_outcome(aimed.aim(sound))
    aimed.close()  # no connection is shared with the processes that kill

    def die_and_repeat(number: int) -> float:
        broken = ground.copy(before)
        aimed.die_at(broken, step, number)
        market, began = aimed.aim(broken), time.monotonic()
        step(market)
        took = time.monotonic() - began
        assert read_outcome(market) == wanted, f"{step.__name__} killed at place {number}"
        aimed.close()
        ground.drop(broken)
        return took

    return share_out(chosen, die_and_repeat, workers=workers)


def _choose(places: list[str], *, everything: bool, after: bool) -> list[int]:
    if everything:
        return list(range(len(places)))
    last = max(number for number, name in enumerate(places) if name == COMMIT)
    return [last, last + 1] if after else [last]


def _count_workers() -> int:
    return max(2, min(4, os.cpu_count() or 2))
