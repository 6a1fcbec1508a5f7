"""`guanmo top` before a real gateway and a pool that answers as the controller does."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.cli.main import app
from hub.cli.top import Look, draw
from serving.contract import engine_name
from tests.gateway.crowd import call, run_crowd
from tests.gateway.samples import ADAPTER, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import free_port, running_gateway, running_world, wait_for

SNAPSHOT = make_snapshot(keys=(make_key(1),), models=(make_model("org/tuned", ADAPTER),))
STATUS = {"replicas": [{"replica_id": "rep_0", "state": "ready"}, {"replica_id": "rep_1", "state": "warming"}]}


@contextlib.contextmanager
def pool_status() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(STATUS).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_top_shows_replicas_adapters_and_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with pool_status() as pool_port, running_world(SNAPSHOT, tmp_path) as world:
        monkeypatch.setenv("GUANMO_POOL_PORT", str(pool_port))
        monkeypatch.setenv("GUANMO_GATEWAY_PORT", str(port - 1))
        monkeypatch.setenv("COLUMNS", "140")
        with running_gateway(world, more=("--admin", f"127.0.0.1:{port}")) as gateway:
            run_crowd(3, lambda _: call(gateway.url, secret_of(1), model="org/tuned"))

            def shown() -> str | None:
                told = CliRunner().invoke(app, ["top", "--once"])
                assert told.exit_code == 0, told.output
                return told.output if engine_name(ADAPTER) in told.output else None

            text = wait_for(shown)
        assert all(word in text for word in ("rep_0", "ready", "rep_1", "warming", "tokens/s", "连接"))
        ended = CliRunner().invoke(app, ["top", "--once"])
        assert ended.exit_code == 1


def test_rates_are_between_two_looks() -> None:
    labels = {"base": "b", "adapter": "lora-1", "kind": "completion"}
    before, now = (
        Look(at_s, [{"name": "tokens_total", "labels": labels, "value": value}], {})
        for at_s, value in ((10.0, 100.0), (12.0, 700.0))
    )
    running = [{"name": "running", "labels": labels, "value": 1.0}]
    adapters = draw(before, Look(now.at_s, [*now.samples, *running], {})).renderables[1]
    assert "300" in list(adapters.columns[5].cells)  # type: ignore[union-attr, attr-defined]
