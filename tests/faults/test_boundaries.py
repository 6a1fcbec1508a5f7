"""Fault 1: killed at every statement and commit of every step, started again: the same balances as without a fault."""

import pytest

from tests.faults.boundaries import COMMIT, die_at, list_places
from tests.faults.ground import Ground
from tests.faults.story import STEPS, read_balances
from tests.faults.tally import take_tally


@pytest.mark.timeout(7200)
def test_every_boundary_converges(ground: Ground, long: bool) -> None:
    """Long form: every place of every step. Short: around every commit on SQLite, before each step's last elsewhere."""
    killed, url = 0, ground.copy()
    for step in STEPS:
        sound = ground.copy(url)
        places = list_places(ground, sound, step)
        with ground.market(sound) as market:
            wanted = read_balances(market)
        chosen = _choose(places, everything=long, after=ground.kind == "sqlite")
        for number in chosen:
            broken = ground.copy(url)
            die_at(ground, broken, step, number)
            with ground.market(broken) as market:
                step(market)
                assert read_balances(market) == wanted, f"{step.__name__} killed at {number}: {places[number]}"
            ground.drop(broken)
        killed += len(chosen)
        ground.drop(url)
        url = sound
    with ground.market(url) as market:
        tally = take_tally(market.sessions, f"1 killed at {killed} places of {len(STEPS)} steps")
    ground.drop(url)
    assert tally.sound, tally
    assert killed > (500 if long else 12)


def test_a_life_of_kills_ends_as_a_quiet_one(sqlite_ground: Ground) -> None:
    """One database is killed once in every step on its way, and ends with the balances of the quiet one."""
    quiet, restless = sqlite_ground.copy(), sqlite_ground.copy()
    for step in STEPS:
        middle = len(list_places(sqlite_ground, quiet, step)) // 2
        die_at(sqlite_ground, restless, step, middle)
        with sqlite_ground.market(restless) as market:
            step(market)
    with sqlite_ground.market(quiet) as first, sqlite_ground.market(restless) as second:
        assert read_balances(first) == read_balances(second)
        assert take_tally(second.sessions, "1 killed once in every step").sound


def _choose(places: list[str], *, everything: bool, after: bool) -> list[int]:
    commits = [number for number, name in enumerate(places) if name == COMMIT]
    if everything:
        return list(range(len(places)))
    return sorted({*commits, *(number + 1 for number in commits)} if after else commits[-1:])
