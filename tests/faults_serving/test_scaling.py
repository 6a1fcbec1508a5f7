"""From no engine to two and back to none, on real vLLM, by nothing but calls; none of them fails."""

import logging
import random
import time
from pathlib import Path

import pytest

from tests.faults_serving.greedy import Crowd
from tests.faults_serving.yard import START_S, Yard, running_yard, want_engines
from tests.gateway.world import wait_for
from tests.pool.tiny_models import TinyModels

LOG = logging.getLogger(__name__)
CLIENTS, TOKENS, SEATS, IDLE_S = 12, 250, 2, 5


@pytest.mark.engine
@pytest.mark.timeout(1200)
def test_calls_wake_an_engine_then_a_second_and_leave_none(tiny_models: TinyModels, tmp_path: Path) -> None:
    desired = want_engines(tiny_models.base, minimum=0, seats=SEATS, idle_s=IDLE_S)
    with running_yard(desired, tmp_path) as yard:
        assert yard.pool.running() == []
        asked_s = time.monotonic()
        with Crowd(yard.gateway.url, clients=CLIENTS, tokens=TOKENS, chance=random.Random(1)) as crowd:
            wait_for(lambda: len(yard.ready()) == 1, timeout_s=START_S)
            first_s = time.monotonic() - asked_s
            wait_for(lambda: len(yard.ready()) == 2, timeout_s=START_S)
            wait_for(lambda: served_by_both(yard), timeout_s=60)
        seen = crowd.seen
        held_s = max(one.first_at_s - one.began_s for one in seen)
        LOG.info("held up to %.1f s for an engine that took %.1f s; %d calls", held_s, first_s, len(seen))
        assert [one.error for one in seen if not one.whole] == []
        assert {one.told_tokens for one in seen} == {TOKENS}
        wait_for(lambda: yard.pool.running() == [], timeout_s=60 + 20 * IDLE_S)
        assert len(yard.pool.hub.readings) > 0


def served_by_both(yard: Yard) -> bool:
    return len({record.replica_id for record in tuple(yard.usage().values())}) == 2
