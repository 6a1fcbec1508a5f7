"""Several gateway processes on one port: one count of rates, one answer to a named request, each its own journal."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving.contract import EndReason
from serving.gateway.shared_table import MAX_ROWS, REQUESTS, TOKENS, SharedTable, TableFullError
from tests.gateway.crowd import call, run_crowd
from tests.gateway.samples import make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

RPM, CROWDED, FREE, TPM = 1, 2, 3, 4
TOKENS_A_MINUTE = 4000
SNAPSHOT = make_snapshot(
    keys=(
        make_key(RPM, rpm=20),
        make_key(CROWDED, concurrency=5, tpm=100_000),
        make_key(FREE),
        make_key(TPM, tpm=TOKENS_A_MINUTE),
    ),
    models=(make_model("org/base"),),
)


def crowd(gateway: Gateway, count: int, key: int, **more: Any) -> list[Any]:
    return run_crowd(count, lambda _: call(gateway.url, secret_of(key), **more))


def test_rates_and_answers_are_one_for_all_processes(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, processes=3) as gateway:
        outcomes = crowd(gateway, 60, RPM, stream=False)
        assert [one.status for one in outcomes].count(200) == 20
        assert {one.code for one in outcomes if one.status != 200} == {"rate_limit_exceeded"}
        world.engines[0].delay_s, world.engines[0].most_running = 0.5, 0
        statuses = [one.status for one in crowd(gateway, 30, CROWDED, stream=False)]
        assert (statuses.count(200), world.engines[0].most_running) == (5, 5)
        # A seat is free a moment after the answer's last byte.
        wait_for(lambda: [one.status for one in crowd(gateway, 5, CROWDED, stream=False)] == [200] * 5)
        _ask_for_tokens_at_once(world, gateway)
        _ask_under_one_name(world, gateway)


def _ask_for_tokens_at_once(world: World, gateway: Gateway) -> None:
    """64 calls that use 250 tokens and could use 772 at least: only so many run at once as could use the limit."""
    engine = world.engines[0]
    engine.prompt_tokens, engine.most_running = 245, 0
    outcomes = crowd(gateway, 64, TPM, stream=False, max_tokens=500)
    assert {one.code for one in outcomes if one.status != 200} == {"rate_limit_exceeded"}
    assert 1 < engine.most_running <= TOKENS_A_MINUTE // 772
    # What they did not use is free again: one after the other comes nearer to the limit, and none passes it.
    engine.delay_s = 0.0
    outcomes += [crowd(gateway, 1, TPM, stream=False, max_tokens=500)[0] for _ in range(16)]
    served = [one.status for one in outcomes].count(200)
    assert TOKENS_A_MINUTE - 1200 < 250 * served <= TOKENS_A_MINUTE
    engine.__init__()  # type: ignore[misc]


def _ask_under_one_name(world: World, gateway: Gateway) -> None:
    """Sixteen at once, then one after every process was killed: one answer, billed once."""
    asked = len(world.engines[0].seen)
    named = {"idempotency-key": "order 7"}
    outcomes = crowd(gateway, 16, FREE, headers=named)
    assert {(one.status, one.whole, one.tokens) for one in outcomes} == {(200, True, 5)}
    assert len({one.request_id for one in outcomes}) == 1
    for pid in gateway.workers():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gateway.log_path.read_text().count("on http://") == 6, timeout_s=40)
    again = wait_for(lambda: next((one for one in crowd(gateway, 1, FREE, headers=named) if one.status == 200), None))
    assert (again.request_id, again.headers["idempotent-replayed"]) == (outcomes[0].request_id, "true")
    assert len(world.engines[0].seen) == asked + 1
    wait_for(lambda: sum(request_id == again.request_id for request_id, _ in world.hub.usage) == 1)


def test_killed_processes_leave_no_count_and_no_money_behind(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        world.engines[0].delay_s, world.engines[0].tokens = 0.1, 100
        with running_gateway(world, processes=3) as gateway:
            killer = threading.Thread(target=_kill_when_busy, args=(world, gateway))
            killer.start()
            assert [one.whole for one in crowd(gateway, 5, CROWDED)] == [False] * 5
            killer.join()
            wait_for(lambda: gateway.log_path.read_text().count("on http://") == 6, timeout_s=40)
            records = wait_for(lambda: world.hub.usage if len(world.hub.usage) == 5 else None)
            assert {record.end_reason for record in records.values()} == {EndReason.GATEWAY_RESTART}
            assert all(0 < record.completion_tokens <= world.engines[0].produced for record in records.values())
            wait_for(lambda: world.engines[0].running == 0)
            assert {one.status for one in crowd(gateway, 5, CROWDED, leave_after=2)} == {200}
            gateway.kill()
        with running_gateway(world) as fewer:
            # Two of the three journals belong to nobody now; they are settled all the same.
            wait_for(lambda: len(world.hub.usage) == 10)
            assert fewer.stop() == 0
        assert world.hub.closed.keys() == world.hub.allowances.keys()


def _kill_when_busy(world: World, gateway: Gateway) -> None:
    wait_for(lambda: world.engines[0].running == 5, timeout_s=30)
    time.sleep(1.0)
    for pid in gateway.workers():
        os.kill(pid, signal.SIGKILL)


def test_the_table_counts_minutes_seats_and_forgets(tmp_path: Path) -> None:
    first, second = SharedTable(tmp_path / "t"), SharedTable()
    for table in (first, second):
        with table.row("key", 1000.0) as row:
            row.add(REQUESTS, 2)
            row.add(TOKENS, 70)
            row.run(1)
            row.reserve(9)
        for now_s, requests in ((1030.2, 2), (1060.0, 2), (1060.5, 0), (2000.0, 0)):
            with table.row("key", now_s) as row:
                assert (row.used(REQUESTS), row.running, row.reserved) == (requests, 1, 9), now_s
                if requests:
                    assert 0 < row.frees_in_s(REQUESTS, 1, now_s) <= 60.5 - (now_s - 1000)
        for number in range(MAX_ROWS // 4):
            with table.row(f"other {number}", 2000.0) as row:
                row.add(REQUESTS, number)
        with table.row("key", 5000.0) as row:
            row.run(-1)
        with table.row("other 7", 2001.0) as row:
            assert row.used(REQUESTS) == 7
        with table.row("key", 5000.0) as row:
            row.run(1)
    first.close()
    # Whoever takes the seat of a process that is gone takes its running requests and their tokens back.
    heir = SharedTable(tmp_path / "t")
    with heir.row("other 7", 2001.0) as row:
        assert row.used(REQUESTS) == 7
    with heir.row("key", 5000.0) as row:
        assert (row.running, row.reserved) == (0, 0)


def test_a_full_table_refuses_and_idle_rows_are_given_away() -> None:
    table = SharedTable()

    def fill() -> None:
        for number in range(MAX_ROWS + 1):
            table.unlock(table.lock(f"name {number}", 1000.0))

    with pytest.raises(TableFullError):
        fill()
    with table.row("newcomer", 1121.5) as row:
        assert row.used(REQUESTS) == 0


def test_a_process_alone_counts_nothing_that_others_left_running(tmp_path: Path) -> None:
    former = SharedTable(tmp_path / "t")
    former.seat = 1
    with former.row("key", 1000.0) as row:
        row.run(1)
        row.reserve(9)
    former.close()
    for alone, left in ((False, (1, 9)), (True, (0, 0))):
        table = SharedTable(tmp_path / "t", alone=alone)
        with table.row("key", 1001.0) as row:
            assert (row.running, row.reserved) == left
        table.close()
