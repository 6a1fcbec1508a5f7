"""Kills on real vLLM: every token explained, greedy streams finished elsewhere."""

import random
import time
from collections.abc import Iterable

import pytest

from tests.faults_serving.books import account_killed, account_survivor, check_bills, count_duplicates, find_struck
from tests.faults_serving.conftest import CLIENTS, TOKENS, Say
from tests.faults_serving.greedy import Crowd, Stream, ask_again
from tests.faults_serving.yard import Engine, Yard
from tests.gateway.world import wait_for

MOST_UNEXPLAINED = 64
MOST_GAP_S = (10.0, 2.0)
"""The longest pause allowed in the short form, which runs beside other tests, and in the long one."""
LEAST_SAME = 0.95
KILLS = {"engine": (1, 8), "gateway": (1, 10), "client": (1, 10)}
"""How often each is killed in the short and in the long form."""
pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]


def test_kills_of_engines_gateways_and_clients_leave_no_token_unexplained(
    yard: Yard, chance: random.Random, say: Say, long: bool
) -> None:
    kinds = [kind for kind, counts in KILLS.items() for _ in range(counts[long])]
    chance.shuffle(kinds)
    killed: dict[Engine, float] = {}
    gateway_kills_s: list[tuple[float, float]] = []
    with Crowd(yard.gateway.url, clients=CLIENTS, tokens=TOKENS, chance=chance) as crowd:
        for kind in kinds:
            if kind == "engine":
                yard.wait_for_two(but=frozenset(killed))
            time.sleep(chance.uniform(0.5, 2.5))
            if kind == "engine":
                killed.update([yard.kill_engine(chance)])
            elif kind == "gateway":
                gateway_kills_s.append(yard.kill_gateway(chance))
            else:
                crowd.leaving += 1
        yard.wait_for_two(but=frozenset(killed))
        wait_for(lambda: sum(one.left for one in tuple(crowd.seen)) == kinds.count("client"), timeout_s=60)
    seen = crowd.seen
    yard.wait_for_books({one.request_id for one in seen if one.pieces})
    left = [one for one in seen if one.left]
    survivors = [account_survivor(yard, engine, seen) for engine in yard.ready()]
    dead = [account_killed(yard, engine, seen) for engine in killed]
    spoke, silent = find_struck(yard, seen, killed)
    struck = [one for one in spoke if not one.left and not meets(one, gateway_kills_s)]
    texts = ask_again(yard.gateway.url, [one.prompt for one in struck], tokens=TOKENS)
    same = [one for one in struck if one.whole and one.text == texts[one.prompt]]
    gaps_s = [one.gap_s for one in struck]
    say(
        kills=len(killed) + len(gateway_kills_s) + len(left),
        engines=len(killed),
        gateways=len(gateway_kills_s),
        clients=len(left),
        streams=len(seen),
        duplicates=count_duplicates(yard),
        surviving_billed=sum(one.billed for one in survivors),
        surviving_undelivered=sum(one.undelivered for one in survivors),
        surviving_own=sum(one.own for one in survivors),
        surviving_counted=sum(one.counted for one in survivors),
        unexplained=sum(one.unexplained for one in survivors),
        most_unbilled_of_a_killed_engine=max(one.cut for one in dead),
        streams_struck=len(struck),
        struck_before_their_first_token=len(silent),
        finished=sum(one.whole for one in struck),
        same_text=len(same),
        longest_gap_s=round(max(gaps_s, default=0.0), 3),
    )
    assert {"engine": len(killed), "gateway": len(gateway_kills_s), "client": len(left)} == {
        kind: counts[long] for kind, counts in KILLS.items()
    }
    assert count_duplicates(yard) == 0
    assert [one.unexplained for one in survivors] == [0, 0]
    assert all(one.unexplained == 0 and one.cut <= MOST_UNEXPLAINED for one in dead)
    check_bills(yard, seen, tokens=TOKENS)
    assert struck, "no stream ran when an engine died"
    assert len(same) >= LEAST_SAME * len(struck), [(one.error, one.pieces) for one in struck if one not in same]
    assert max(gaps_s) <= MOST_GAP_S[long]
    lost = [one for one in seen if not one.whole and not one.left and not meets(one, gateway_kills_s)]
    assert [one.error for one in lost if one not in silent] == []


def meets(one: Stream, times: Iterable[tuple[float, float]]) -> bool:
    """Whether a stream ran within any of these times."""
    return any(one.ran_within(*time_s) for time_s in times)
