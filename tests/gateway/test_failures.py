"""A killed gateway, a silent hub, dying and missing replicas, and a nearly empty account."""

import concurrent.futures
import dataclasses
import http.client
import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.contract import BASE_ENGINE_NAME, EndReason, Routes, UsageStatus, cost_ufen
from tests.gateway.samples import ADAPTER, BASE, CUSTOMER, PRICES, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, gateway_argv, running_gateway, running_world, wait_for

SNAPSHOT = make_snapshot(keys=(make_key(1), make_key(2)), models=(make_model("org/base"),))
MESSAGES: Any = [{"role": "user", "content": "hello"}]


def ask(gateway: Gateway, *, model: str = "org/base", **extra: Any) -> Any:
    with gateway.client() as client:
        return client.chat.completions.create(model=model, messages=MESSAGES, **extra)


def spent_by_hub(world: World) -> int:
    return sum(
        cost_ufen(PRICES, record.prompt_tokens, record.cached_tokens, record.completion_tokens)
        for record in world.hub.usage.values()
    )


def test_kill_9_in_mid_stream_bills_what_was_seen(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        start_ufen = world.hub.balance_ufen
        world.engines[0].delay_s, world.engines[0].tokens = 0.05, 400
        with running_gateway(world) as gateway, gateway.client() as client:
            stream = iter(client.chat.completions.create(model="org/base", messages=MESSAGES, stream=True))
            seen = 0
            began = time.monotonic()
            while time.monotonic() < began + 1.5:
                next(stream)
                seen += 1
            gateway.kill()
            with pytest.raises((openai.APIError, Exception), match=r"."):
                list(stream)
        assert world.hub.usage == {}
        with running_gateway(world) as gateway:
            record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
            assert (record.end_reason, record.status) == (EndReason.GATEWAY_RESTART, UsageStatus.PARTIAL)
            assert seen - 25 <= record.completion_tokens <= seen + 1
            assert record.completion_tokens > 0
            wait_for(lambda: len(world.hub.closed) == len(world.hub.allowances))
            assert gateway.stop() == 0
        assert start_ufen - world.hub.balance_ufen == spent_by_hub(world)
        assert [batch.gateway_epoch for batch in world.hub.batches] == [2]


def test_a_stopped_gateway_leaves_no_money_behind(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        start_ufen = world.hub.balance_ufen
        with running_gateway(world) as gateway:
            ask(gateway)
            assert gateway.stop() == 0
        assert world.hub.closed.keys() == world.hub.allowances.keys()
        assert start_ufen - world.hub.balance_ufen == spent_by_hub(world) == 33_000 + 35_000


def test_a_silent_hub_loses_no_usage(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        ask(gateway)
        wait_for(lambda: world.hub.usage)
        world.hub.down = True
        for _ in range(3):
            ask(gateway)
        time.sleep(1.2)
        assert len(world.hub.usage) == 1
        world.hub.down = False
        wait_for(lambda: len(world.hub.usage) == 4)
        seqs = [batch.first_seq + index for batch in world.hub.batches for index in range(len(batch.records))]
        assert seqs == [1, 2, 3, 4]


def test_a_silent_hub_gives_no_credit(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.hub.down = True
        with pytest.raises(openai.APIStatusError) as refused:
            ask(gateway)
        assert (refused.value.status_code, refused.value.code) == (503, "hub_unavailable")
        assert refused.value.response.headers["connection"] == "close", "a retry may meet another process"
        assert "secret" not in refused.value.response.text
        assert world.engines[0].seen == []


def test_no_overspending_by_64_at_once(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.engines[0].delay_s = 0.05
        # Room for a few worst cases only; each call ends at 68,000 µfen.
        start_ufen = world.hub.balance_ufen = 5_000_000

        def call(_: int) -> str:
            try:
                return str(ask(gateway, max_tokens=5).choices[0].finish_reason)
            except openai.RateLimitError as error:
                body: Any = error.body
                assert body["set_by"] == CUSTOMER or body["limit"] == "account balance"
                return str(error.code)

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(call, range(64)))
        assert gateway.stop() == 0
        assert set(answers) == {"stop", "insufficient_quota"}
        assert answers.count("stop") >= 4
        assert spent_by_hub(world) == answers.count("stop") * 68_000 <= start_ufen
        assert world.hub.balance_ufen == start_ufen - spent_by_hub(world)
        assert not any(record.disputed for record in world.hub.usage.values())


def test_an_empty_account_is_told_so_by_a_model_that_is_free_too(tmp_path: Path) -> None:
    snapshot = dataclasses.replace(SNAPSHOT, prices=tuple(dataclasses.replace(price, amount_fen=0) for price in PRICES))
    with running_world(snapshot, tmp_path) as world, running_gateway(world) as gateway:
        world.hub.balance_ufen = 0
        with pytest.raises(openai.RateLimitError) as refused:
            ask(gateway)
        assert (refused.value.code, world.engines[0].seen) == ("insufficient_quota", [])


def test_money_left_in_pieces_is_put_together(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world) as gateway:
        world.hub.balance_ufen = 1_700_000
        for _ in range(5):
            assert ask(gateway, max_tokens=5).choices[0].finish_reason == "stop"
        with pytest.raises(openai.RateLimitError) as refused:
            ask(gateway, max_tokens=2000)
        body: Any = refused.value.body
        assert body["needed"] > 1_300_000
        wait_for(lambda: len(world.hub.usage) == 5)
        assert spent_by_hub(world) == 5 * 68_000


def test_an_unwilling_replica_is_passed_over(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:
        for mode in ("busy", "draining"):
            world.engines[0].mode = mode
            for _ in range(3):
                assert ask(gateway).choices[0].message.content == "xxxxx"
        assert len(world.engines[1].seen) == 6
        wait_for(lambda: len(world.hub.usage) == 6)
        assert {record.replica_id for record in world.hub.usage.values()} == {"rep_1"}


def test_an_unreachable_replica_is_passed_over(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world:
        world.replica_urls[0] = "http://127.0.0.1:9"
        world.route(range(2))
        with running_gateway(world) as gateway:
            for session in range(8):  # by their sessions, half of them belong to the replica that is not there
                assert ask(gateway, user=f"session {session}").choices[0].finish_reason == "stop"
            wait_for(lambda: len(world.hub.usage) == 8)
            assert {record.replica_id for record in world.hub.usage.values()} == {"rep_1"}
            assert 2 in {record.attempt for record in world.hub.usage.values()}


@pytest.mark.parametrize("mode", ["dies-before", "broken"])
def test_a_request_that_met_an_engine_death_is_not_sent_again(tmp_path: Path, mode: str) -> None:
    with running_world(SNAPSHOT, tmp_path, engines=2) as world, running_gateway(world) as gateway:
        for engine in world.engines:
            engine.mode = mode
        with pytest.raises(openai.APIStatusError) as failed:
            ask(gateway)
        assert (failed.value.status_code, failed.value.code) == (502, "upstream_failed")
        assert sum(len(engine.seen) for engine in world.engines) == 1
        record = wait_for(lambda: next(iter(world.hub.usage.values()), None))
        assert (record.status, record.completion_tokens, record.disputed) == (UsageStatus.FAILED, 0, True)


def test_a_request_waits_for_its_replica(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        world.route(())
        with running_gateway(world, hold_s=8.0) as gateway:
            connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
            headers = {"authorization": f"Bearer {secret_of(1)}", "content-type": "application/json"}
            body = json.dumps({"model": "org/base", "messages": MESSAGES, "stream": True})
            connection.request("POST", "/v1/chat/completions", body, headers)
            wait_for(lambda: any(row.queued for demand in world.pool.demands for row in demand.rows))
            answer = connection.getresponse()
            assert answer.readline() == b": waiting for a replica\n"
            world.route((0,))
            rest = answer.read()
            connection.close()
            assert rest.endswith(b"data: [DONE]\n\n")
            assert b'"model":"org/base"' in rest
            assert b"usage" not in rest


def test_no_replica_within_the_hold(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        world.route(())
        with running_gateway(world, hold_s=0.3) as gateway:
            with pytest.raises(openai.APIStatusError) as refused:
                ask(gateway)
            assert (refused.value.status_code, refused.value.code) == (503, "no_replica_ready")
            assert refused.value.response.headers["retry-after"] == "30"
        assert world.hub.usage == {}


def test_a_waiting_stream_hears_when_its_replica_will_be_ready_and_a_refused_call_when_to_come_back(
    tmp_path: Path,
) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        ready_at = time.time_ns() // 1000 + 25_000_000
        world.pool.routes = Routes(world.pool.routes.version + 1, (), {}, {}, {BASE: ready_at})
        with running_gateway(world, hold_s=3.5) as gateway, concurrent.futures.ThreadPoolExecutor() as beside:
            connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
            headers = {"authorization": f"Bearer {secret_of(1)}", "content-type": "application/json"}
            body = json.dumps({"model": "org/base", "messages": MESSAGES, "stream": True})
            plain = beside.submit(ask, gateway)
            began = time.monotonic()
            connection.request("POST", "/v1/chat/completions", body, headers)
            wait_for(lambda: any(row.queued for demand in world.pool.demands for row in demand.rows))
            assert time.monotonic() - began < 0.9, "the pool hears of the first call at once"
            line = connection.getresponse().readline()
            connection.close()
            found = re.fullmatch(rb": waiting for a replica, ready in about (\d+) s\n", line)
            assert found
            assert 15 <= int(found.group(1)) <= 25
            with pytest.raises(openai.APIStatusError) as refused:
                plain.result()
            assert (refused.value.status_code, refused.value.code) == (503, "no_replica_ready")
            assert 10 <= int(refused.value.response.headers["retry-after"]) <= 25


def test_two_gateways_never_share_a_journal(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world):
        ended = subprocess.run(gateway_argv(world), capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 1
        assert "held by another gateway" in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_a_call_waits_while_its_adapter_is_on_its_way_to_another_engine(tmp_path: Path) -> None:
    """The routes name an engine that no longer has it, as they do for a moment after a move or a restart."""
    snapshot = make_snapshot(keys=(make_key(1),), models=(make_model("org/tuned", ADAPTER),))
    with running_world(snapshot, tmp_path, engines=2) as world:
        world.engines[0].names = frozenset((BASE_ENGINE_NAME,))
        world.route((0,))
        with running_gateway(world, hold_s=10.0) as gateway, concurrent.futures.ThreadPoolExecutor() as beside:
            answers = [beside.submit(ask, gateway, model="org/tuned") for _ in range(4)]
            wait_for(lambda: any(row.queued == 4 for demand in world.pool.demands for row in demand.rows))
            world.route((1,))
            assert {answer.result().choices[0].finish_reason for answer in answers} == {"stop"}
            wait_for(lambda: len(world.hub.usage) == 4)
            assert {record.replica_id for record in world.hub.usage.values()} == {"rep_1"}


def test_a_call_waits_no_longer_than_the_hold_for_an_adapter_that_no_engine_has(tmp_path: Path) -> None:
    snapshot = make_snapshot(keys=(make_key(1),), models=(make_model("org/tuned", ADAPTER),))
    with running_world(snapshot, tmp_path) as world:
        world.engines[0].names = frozenset((BASE_ENGINE_NAME,))
        with running_gateway(world, hold_s=1.0) as gateway:
            began = time.monotonic()
            with pytest.raises(openai.APIStatusError) as refused:
                ask(gateway, model="org/tuned")
            assert (refused.value.status_code, refused.value.code) == (503, "no_replica_ready")
            assert time.monotonic() - began >= 1.0
        assert world.hub.usage == {}


@pytest.mark.parametrize("mode", ["draining", "no-path", "bad-gateway"])
def test_only_an_engine_that_names_the_model_has_its_calls_wait_for_the_adapter(tmp_path: Path, mode: str) -> None:
    snapshot = make_snapshot(keys=(make_key(1),), models=(make_model("org/tuned", ADAPTER),))
    with running_world(snapshot, tmp_path) as world, running_gateway(world, hold_s=10.0) as gateway:
        world.engines[0].mode = mode
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError) as refused:
            ask(gateway, model="org/tuned")
        assert (refused.value.status_code, refused.value.code) == (503, "replica_not_ready")
        assert time.monotonic() - began < 5.0
        assert len(world.engines[0].seen) == 1
