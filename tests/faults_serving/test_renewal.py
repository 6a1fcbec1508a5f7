"""All engines of real vLLM given other options under load, one after the other: no request fails."""

import random
import time

import pytest

from tests.faults_serving.books import account_survivor, check_bills
from tests.faults_serving.conftest import CLIENTS, TOKENS, Say
from tests.faults_serving.greedy import Crowd
from tests.faults_serving.yard import Yard

ROUNDS = 3
pytestmark = [pytest.mark.engine, pytest.mark.timeout(3600)]


def test_new_options_for_all_engines_under_load_fail_no_request(yard: Yard, chance: random.Random, say: Say) -> None:
    yard.wait_for_two()
    with Crowd(yard.gateway.url, clients=CLIENTS, tokens=TOKENS, chance=chance) as crowd:
        time.sleep(1.0)
        for _ in range(ROUNDS):
            yard.renew_engines()
        time.sleep(1.0)
    seen = crowd.seen
    yard.wait_for_books({one.request_id for one in seen})
    failed = [one for one in seen if not one.whole]
    waits_s = [one.first_at_s - one.began_s for one in seen]
    say(
        restarts=2 * ROUNDS,
        requests=len(seen),
        failed=len(failed),
        longest_gap_s=round(max(one.gap_s for one in seen), 3),
        longest_wait_s=round(max(waits_s), 3),
    )
    assert [one.error for one in failed] == []
    check_bills(yard, seen, tokens=TOKENS)
    assert [account_survivor(yard, engine, seen).unexplained for engine in yard.ready()] == [0, 0]
