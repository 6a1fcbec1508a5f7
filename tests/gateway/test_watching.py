"""What an operator sees: metrics with bounded labels, traces through to the engine, log lines without what was said."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.contract import EndReason, engine_name
from serving.gateway.metrics import MAX_ADAPTERS, OTHER, Metrics, Sample, render
from tests.gateway.collector import running_collector
from tests.gateway.crowd import call, run_crowd
from tests.gateway.samples import ADAPTER, BASE, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import free_port, gateway_argv, running_gateway, running_world, wait_for

SNAPSHOT = make_snapshot(keys=(make_key(1),), models=(make_model("org/base"), make_model("org/tuned", ADAPTER)))
CANARY = "canary-主轴-4711"


def read(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def values_of(text: str) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(port: int, name: str) -> float:
    return sum(value for series, value in values_of(read(port)).items() if series.startswith(name + "["))


def test_counters_add_up_over_processes_and_survive_them(tmp_path: Path) -> None:
    port = free_port()
    with running_world(SNAPSHOT, tmp_path) as world:
        options = ("--admin", f"127.0.0.1:{port}")
        with running_gateway(world, more=options, processes=2) as gateway:
            ask = [{"model": "org/base"}, {"model": "org/tuned"}, {"model": "no/such " + CANARY}] * 8
            run_crowd(24, lambda number: call(gateway.url, secret_of(1), **ask[number]))
            wait_for(lambda: total(port, "guanmo_gateway_calls_total") == 16)
            refused = "guanmo_gateway_refusals_total[('code', 'model_not_found'), ('status', '404')]"
            wait_for(lambda: values_of(read(port)).get(refused) == 8)
            text = read(port)
            series = values_of(text)
            tuned = [value for name, value in series.items() if "tokens_total" in name and engine_name(ADAPTER) in name]
            assert sorted(tuned) == [0, 40, 88]
            assert total(port, "guanmo_gateway_first_token_seconds_count") == 16
            assert CANARY not in text
            assert "no/such" not in text
            _is_not_for_tenants(gateway.url)
            gateway.kill()
        with running_gateway(world, more=options) as again:
            run_crowd(1, lambda _: call(again.url, secret_of(1)))
            wait_for(lambda: total(port, "guanmo_gateway_calls_total") == 17)
            rows = json.loads(read(port, "/load"))["samples"]
            assert {"connections", "snapshot_age_seconds", "calls_total"} <= {row["name"] for row in rows}


def _is_not_for_tenants(url: str) -> None:
    for path in ("/metrics", "/load"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + path, timeout=5)  # noqa: S310 - loopback
        assert refused.value.code == 404
        refused.value.close()


@pytest.mark.parametrize("address", ["0.0.0.0:9000", "10.0.0.7:9000", "localhost", "127.0.0.1:x"])
def test_the_door_opens_on_loopback_only(tmp_path: Path, address: str) -> None:
    with running_world(SNAPSHOT, tmp_path) as world:
        argv = gateway_argv(world, "--admin", address)
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "--admin" in ended.stderr


def test_adapters_beyond_a_number_share_a_label(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for number in range(MAX_ADAPTERS + 50):
        labels = metrics.labels_of(BASE, f"lora-{number}")
        metrics.ended("chat completions", labels, EndReason.STOP, tokens=(1, 0, 1), took_s=0.2)
    metrics.write([Sample("connections", (), 3)])
    families = {family.name: family for family in text_string_to_metric_families(render(metrics.collect()).decode())}
    calls = families["guanmo_gateway_calls"].samples
    assert len(calls) == MAX_ADAPTERS + 1
    assert [sample.value for sample in calls if sample.labels["adapter"] == OTHER] == [50]
    buckets = [one for one in families["guanmo_gateway_call_seconds"].samples if one.labels["adapter"] == "lora-1"]
    counts = {one.labels["le"]: one.value for one in buckets if "le" in one.labels}
    assert (counts["0.1"], counts["0.25"], counts["+Inf"]) == (0, 1, 1)


def test_a_trace_goes_through_to_the_engine(tmp_path: Path) -> None:
    with running_collector() as collector, running_world(SNAPSHOT, tmp_path, engines=2) as world:
        world.engines[0].mode = "busy"
        with running_gateway(world, more=("--otlp-endpoint", collector.url)) as gateway:
            theirs = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
            asked = {"headers": {"traceparent": theirs}, "messages": [{"role": "user", "content": CANARY}]}
            outcome = run_crowd(1, lambda _: call(gateway.url, secret_of(1), **asked))[0]
            assert outcome.whole
            assert gateway.stop() == 0
    spans = collector.spans["guanmo-gateway"]
    whole = next(span for span in spans if span.name == "chat completions")
    engines = [span for span in spans if span.name == "engine"]
    assert {span.parent_span_id for span in engines} == {whole.span_id}
    told = [body["_traceparent"] for engine in world.engines for body in engine.seen]
    assert sorted(text[:-2] for text in told) == sorted(
        f"00-{span.trace_id.hex()}-{span.span_id.hex()}-" for span in engines
    )
    assert all(int(text[-2:], 16) & 1 for text in told)
    assert (whole.links[0].trace_id.hex(), whole.trace_id.hex() == "a" * 32) == ("a" * 32, False)
    values: dict[str, Any] = {one.key: one.value for one in whole.attributes}
    assert values["guanmo.request_id"].string_value == outcome.request_id
    assert values["gen_ai.usage.output_tokens"].int_value == 5
    assert values["guanmo.end_reason"].string_value == "stop"
    assert [event.name for event in engines[-1].events] == ["first token"]
    assert CANARY not in str(spans)


def test_lines_are_json_and_tell_nothing_that_was_said(tmp_path: Path) -> None:
    with running_world(SNAPSHOT, tmp_path) as world, running_gateway(world, more=("--log-calls",)) as gateway:
        body = {"messages": [{"role": "user", "content": CANARY}], "stop": [CANARY]}
        outcome = run_crowd(1, lambda _: call(gateway.url, secret_of(1), **body))[0]
        run_crowd(1, lambda _: call(gateway.url, secret_of(1), model=CANARY))
        world.engines[0].mode = "broken"
        run_crowd(1, lambda _: call(gateway.url, secret_of(1), **body))
        assert gateway.stop() == 0
        text = gateway.log_path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"at", "level", "logger", "message"} <= line.keys() for line in lines)
    told = next(line for line in lines if line.get("request_id") == outcome.request_id)
    assert (told["logger"], told["completion_tokens"], told["end_reason"]) == ("serving.calls", 5, "stop")
    assert told["key_id"] == make_key(1).key_id
    assert not re.search(rf"{CANARY}|w1 w2|{re.escape(secret_of(1))}", text)
