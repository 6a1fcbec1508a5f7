"""Hostile requests against a running gateway: the S5 cases of the security research, by number."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from serving.contract import ModelTarget, Visibility
from tests.gateway.engine import Engine
from tests.gateway.samples import ADAPTER, OWNER, make_key, make_model, make_snapshot, secret_of
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

CHAT = "/v1/chat/completions"
BODY = {"model": "org/base", "messages": [{"role": "user", "content": "hello"}]}
FREE, REVOKED, EXPIRED, OTHERS, ONE_AT_ONCE, FEW_TOKENS = 1, 2, 3, 4, 5, 6
HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret_of(FREE)}\r\n"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    keys = (
        make_key(FREE),
        make_key(REVOKED, revoked_at=1),
        make_key(EXPIRED, expires_at=1),
        make_key(OTHERS, organisation_id=OWNER, revoked_at=1),
        make_key(ONE_AT_ONCE, concurrency=1),
        make_key(FEW_TOKENS, tpm=2500),
    )
    models = (
        make_model("org/base"),
        make_model("org/private", ADAPTER, visibility=Visibility.PRIVATE),
        make_model("org/empty", targets=()),
    )
    snapshot, folder = make_snapshot(keys=keys, models=models), tmp_path_factory.mktemp("bad")
    with running_world(snapshot, folder) as world, running_gateway(world) as gateway:
        yield world, gateway


@pytest.fixture
def world(stage: tuple[World, Gateway]) -> Iterator[World]:
    yield stage[0]
    stage[0].engines[0].__init__()  # type: ignore[misc]


@pytest.fixture
def gateway(stage: tuple[World, Gateway], world: World) -> Gateway:
    return stage[1]


@pytest.fixture
def engine(world: World) -> Engine:
    return world.engines[0]


def speak(gateway: Gateway, request: bytes, *, wait_s: float = 5.0) -> bytes:
    """Send bytes as they are and return the answer, or all that comes until the gateway closes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        answer = b""
        while not is_whole(answer):
            try:
                piece = connection.recv(65536)
            except (TimeoutError, ConnectionError):
                return answer
            if not piece:
                return answer
            answer += piece
        return answer


def is_whole(answer: bytes) -> bool:
    """Return whether an answer of declared length is complete, so that nobody waits for the close."""
    head, found, body = answer.partition(b"\r\n\r\n")
    declared = re.search(rb"content-length: (\d+)", head)
    return bool(found) and declared is not None and len(body) >= int(declared.group(1))


def write_request(body: bytes, *more: str, method: str = "POST", path: str = CHAT, key: int | None = FREE) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", "connection: close", f"content-length: {len(body)}", *more]
    if key is not None:
        lines.append(f"authorization: Bearer {secret_of(key)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse(answer: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and the OpenAI error of a raw answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    error = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert headers["x-request-id"] in error["message"]
    return int(first.split()[1]), headers, error


def ask(
    gateway: Gateway, *more: str, key: int | None = FREE, **fields: Any
) -> tuple[int, dict[str, str], dict[str, Any]]:
    return parse(speak(gateway, write_request(json.dumps(BODY | fields).encode(), *more, key=key)))


@pytest.mark.parametrize(
    "header",
    [
        "x-none: 1",
        "authorization:",
        "authorization: Bearer ",
        "authorization: Bearer",
        "authorization: Basic dXNlcg==",
        "authorization: Bearer ' OR 1=1 --",
        "authorization: Bearer gm_1_x",
        f"authorization: Bearer {secret_of(FREE)}x",
        f"authorization: Bearer {secret_of(FREE)}\r\nauthorization: Bearer {secret_of(FREE)}",
        "authorization: Bearer gm_\xe4\xf6\xfc_\xff",
        f"authorization: Bearer gm_{'9' * 32}_{'x' * 50_000}",
        f"authorization: Bearer {secret_of(REVOKED)}",
        f"authorization: Bearer {secret_of(EXPIRED)}",
        f"authorization: Bearer {secret_of(OTHERS)}",
    ],
    ids=range(14),
)
def test_s5_01_keys_that_are_none(gateway: Gateway, engine: Engine, header: str) -> None:
    status, headers, error = ask(gateway, header, key=None)
    assert (status, error["type"], headers["x-should-retry"]) == (401, "invalid_request_error", "false")
    assert error["code"] in ("invalid_api_key", "api_key_revoked", "api_key_expired")
    assert engine.seen == []


def test_s5_01_a_key_of_a_megabyte(gateway: Gateway) -> None:
    status, headers, _ = ask(gateway, f"authorization: Bearer {'x' * 2**20}", key=None)
    assert (status, headers["connection"]) == (431, "close")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\nhost: x\n\n",
        b"POST /v1/chat/completions HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
    ids=range(8),
)
def test_s5_12_requests_that_are_no_http(gateway: Gateway, engine: Engine, request_bytes: bytes) -> None:
    status, headers, error = parse(speak(gateway, request_bytes, wait_s=8.0))
    assert status in (400, 401, 431)
    assert headers["connection"] == "close"
    assert error["code"] in ("invalid_http", "invalid_api_key", "headers_too_large")
    assert engine.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/health",
        "/load",
        "/version",
        "/ping",
        "/sleep?level=1",
        "/wake_up",
        "/collective_rpc",
        "/server_info",
        "/invocations",
        "/adapters",
        "/tokenize",
        "/pause",
        "/abort_requests",
        "/inference/v1/generate",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/score",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/V1/chat/completions",
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1/chat/completions/../../../metrics",
        "/v1/files/../../internal/v1/snapshot",
        "/v1/files/%2e%2e/%2e%2e/internal/v1/snapshot",
        "/v1/files/..%5c..%5cinternal",
        "/v1/files//internal",
        "http://127.0.0.1/metrics",
        "//127.0.0.1/metrics",
    ],
)
def test_s5_12_paths_that_lead_nowhere(gateway: Gateway, world: World, engine: Engine, path: str) -> None:
    status, _, error = parse(speak(gateway, write_request(b"{}", path=path)))
    assert (status, error["code"]) == (404, "unknown_url")
    assert (engine.seen, world.hub.uploads) == ([], [])


def test_s5_12_an_upgrade_is_answered_as_an_ordinary_request(gateway: Gateway) -> None:
    answer = speak(gateway, write_request(b"", "upgrade: websocket", "sec-websocket-key: x", method="GET"))
    assert parse(answer)[0] in (404, 405)


def test_a_request_in_small_pieces_and_several_in_one(gateway: Gateway, engine: Engine) -> None:
    whole = write_request(json.dumps(BODY).encode()).replace(b"connection: close\r\n", b"")
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        for at in range(0, len(whole), 40):
            connection.sendall(whole[at : at + 40])
        connection.sendall(whole * 2 + write_request(json.dumps(BODY).encode()))
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert len(engine.seen) == 4


@pytest.mark.parametrize(
    "model",
    ["org/private", "org/private@1", "../../etc", "base", "org/base:adapter", "lora-" + "a" * 32, "", "x" * 5000],
)
def test_s5_11_models_of_others_do_not_exist(gateway: Gateway, engine: Engine, model: str) -> None:
    status, headers, error = ask(gateway, model=model)
    assert (status, headers["x-should-retry"]) == ((404, "false") if model else (400, "false"))
    assert error["code"] == ("model_not_found" if model else "invalid_value")
    assert len(error["message"]) < 500
    assert engine.seen == []


def test_s5_11_a_version_once_chosen_stays(gateway: Gateway, world: World, engine: Engine) -> None:
    engine.delay_s = 0.1
    before = world.hub.snapshot
    moved = make_model("org/base", targets=(ModelTarget("ver_new", ADAPTER, 1),))
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    body = json.dumps(BODY | {"stream": True})
    connection.request("POST", CHAT, body, {"authorization": f"Bearer {secret_of(FREE)}", "connection": "close"})
    answer = connection.getresponse()
    world.publish(models=(moved, *before.models[1:]))
    rest = answer.read()
    world.publish(models=before.models)
    assert rest.endswith(b"data: [DONE]\n\n")
    record = wait_for(lambda: world.hub.usage.get((str(answer.headers["x-request-id"]), 1)))
    assert record.version_id == answer.headers["x-guanmo-model-version"] != "ver_new"


@pytest.mark.parametrize("declared", [str(5 * 2**20), str(2**63), "9" * 30])
def test_s5_07_bodies_beyond_the_limit(gateway: Gateway, declared: str) -> None:
    head = f"{HEAD}content-length: {declared}\r\n\r\n"
    status, headers, _ = parse(speak(gateway, head.encode() + b"{", wait_s=8.0))
    assert status in (400, 413)
    assert headers["connection"] == "close"


def test_s5_07_a_chunked_body_beyond_the_limit(gateway: Gateway) -> None:
    head = f"{HEAD}transfer-encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    status, _, error = parse(speak(gateway, head.encode() + chunk * 5, wait_s=8.0))
    assert (status, error["code"]) == (413, "body_too_large")


def test_limits_name_themselves(gateway: Gateway, engine: Engine) -> None:
    """A refused call says which limit, who set it, what is used and left, and when it resets."""
    engine.prompt_tokens = 2495
    speak(gateway, write_request(json.dumps(BODY).encode(), key=FEW_TOKENS))
    status, headers, error = ask(gateway, key=FEW_TOKENS)
    assert (status, error["limit"], error["limit_value"], error["used"], error["left"]) == (429, "tpm", 2500, 2500, 0)
    assert error["set_by"] == f"key {make_key(FEW_TOKENS).key_id}"
    assert error["resets_at"].endswith("+00:00")
    assert 0 < int(headers["retry-after"]) <= 61
    engine.delay_s = 0.5
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        request = write_request(json.dumps(BODY).encode(), key=ONE_AT_ONCE)
        answers = sorted(pool.map(lambda _: speak(gateway, request), range(2)))
    assert b"200 OK" in answers[0]
    _, _, busy = parse(answers[1])
    assert (busy["limit"], busy["limit_value"], busy["used"], busy["left"]) == ("concurrency", 1, 1, 0)


def test_s5_13_organisations_have_their_own_prefix_cache(gateway: Gateway, world: World, engine: Engine) -> None:
    before = world.hub.snapshot
    world.publish(keys=(*before.keys, make_key(9, organisation_id=OWNER)))
    for key in (FREE, 9, FREE):
        assert b"200 OK" in speak(gateway, write_request(json.dumps(BODY).encode(), key=key))
    salts = [seen["cache_salt"] for seen in engine.seen]
    assert salts[0] == salts[2] != salts[1]


def test_s5_13_logs_hold_no_text_of_anybody(gateway: Gateway, engine: Engine) -> None:
    canary = "canary-4711"
    for mode in ("ok", "broken", "busy", "too-long", "dies-before"):
        engine.mode = mode
        speak(gateway, write_request(json.dumps(BODY | {"messages": [{"role": "user", "content": canary}]}).encode()))
    log = gateway.log_path.read_text()
    assert canary not in log
    assert "sssss" not in log
    assert "xxxxx" not in log


def test_s5_14_texts_of_the_engine_stay_inside(gateway: Gateway, engine: Engine) -> None:
    for mode in ("broken", "busy", "too-long"):
        engine.mode = mode
        status, _, error = ask(gateway, seed=7)
        assert status in (400, 502, 503)
        assert "secret" not in json.dumps(error)
    engine.mode = "error-mid"
    stream = speak(gateway, write_request(json.dumps(BODY | {"stream": True}).encode()))
    assert b"upstream_failed" in stream
    assert b"secret" not in stream
