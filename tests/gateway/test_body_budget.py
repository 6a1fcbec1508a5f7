"""What all bodies together may take: counted while they come and run, given back however a call ends."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.gateway import exchange
from serving.gateway.body_budget import BodyBudget
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import ClientGoneError, Exchange
from serving.gateway.settings import read_settings
from tests.gateway.crowd import MESSAGES, Outcome, call, run_crowd
from tests.gateway.samples import make_key, make_model, make_snapshot, secret_of
from tests.gateway.test_refusals import Pipe
from tests.gateway.test_rules import Time
from tests.gateway.world import Gateway, World, running_gateway, running_world, wait_for

MIB = 1024 * 1024
LONG: Any = {"messages": [{"role": "user", "content": "x" * (MIB - 4096)}], "max_tokens": 5}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Gateway]]:
    """A gateway that holds four times a MiB of bodies."""
    snapshot = make_snapshot(keys=(make_key(1),), models=(make_model("org/base"),))
    with (
        running_world(snapshot, tmp_path_factory.mktemp("bodies")) as world,
        running_gateway(world, more=("--bodies-mib", "4")) as gateway,
    ):
        yield world, gateway


def crowd(gateway: Gateway, count: int, **body: Any) -> list[Outcome]:
    return run_crowd(count, lambda _: call(gateway.url, secret_of(1), **body))


@pytest.mark.parametrize("stream", [True, False])
def test_bodies_of_running_calls_are_bounded_together(stage: tuple[World, Gateway], stream: bool) -> None:
    world, gateway = stage
    world.engines[0].__init__(delay_s=0.5)  # type: ignore[misc]
    outcomes = crowd(gateway, 12, stream=stream, **LONG)
    refused = [one for one in outcomes if one.status != 200]
    assert {(one.status, one.code) for one in refused} == {(503, "bodies_full")}
    assert {one.headers["Retry-After"] for one in refused} == {"2"}
    assert 1 <= world.engines[0].most_running <= 4
    # Every byte came back: the next four fit again, whatever became of those before.
    world.engines[0].delay_s = 0.0
    for _ in range(3):
        assert [one.status for one in crowd(gateway, 1, stream=stream, **LONG)] == [200]


def test_small_calls_go_on_beside_large_ones(stage: tuple[World, Gateway]) -> None:
    world, gateway = stage
    world.engines[0].__init__(delay_s=0.2)  # type: ignore[misc]

    def one(number: int) -> Any:
        return call(gateway.url, secret_of(1), **(LONG if number < 3 else {"messages": MESSAGES}))

    assert {outcome.status for outcome in run_crowd(30, one)} == {200}


def test_refused_calls_and_lost_clients_give_their_bytes_back(stage: tuple[World, Gateway]) -> None:
    world, gateway = stage
    world.engines[0].__init__()  # type: ignore[misc]
    host, port = gateway.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {secret_of(1)}\r\n"
    for _ in range(6):  # a MiB and more each time, never whole
        with socket.create_connection((host, int(port)), timeout=10) as left:
            left.sendall(f"{head}content-length: {4 * MIB}\r\n\r\n".encode() + b" " * (2 * MIB))
    for body in ({"model": "org/none", **LONG}, {"n": -1, **LONG}, {"messages": [], "pad": "x" * (MIB - 4096)}):
        for _ in range(5):
            assert crowd(gateway, 1, stream=False, **body)[0].status in (400, 404)
    wait_for(lambda: [one.status for one in crowd(gateway, 3, **LONG)] == [200] * 3)


def test_what_was_read_of_a_body_that_never_ends_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "READ_TIMEOUT_S", 0.01)  # nobody waits a minute
    budget = BodyBudget(10, Time().clock)

    async def read(*pieces: bytes, gone: bool = False, whole: bool = False) -> bytes:
        asked = Exchange(Pipe())
        for piece in pieces:
            asked.body_arrived(piece)
        if gone:
            asked.client_left()
        if whole:
            asked.body_ended()
        return await asked.read_body(8, budget)

    for error, case in (
        ("body did not arrive", read(b"123", b"45")),
        ("larger than the limit", read(b"12345", b"67890")),
        ("more came", read(b"1234", b"567", whole=True)),
        ("more came", read(b"12345", whole=True)),
    ):
        budget.take(6 if error == "more came" else 0)
        with pytest.raises(GatewayError, match=error):
            asyncio.run(case)
        assert budget.held_bytes == (6 if error == "more came" else 0)
        budget.give_back(budget.held_bytes)
    with pytest.raises(ClientGoneError):
        asyncio.run(read(b"1", b"2", gone=True))
    assert budget.held_bytes == 0
    assert asyncio.run(read(b"12", b"34", whole=True)) == b"1234"
    assert budget.held_bytes == 4


def test_a_budget_below_one_body_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pepper").write_text("pepper")
    argv = ["--replica", "http://x", "--keys", "k", "--listen", "127.0.0.1:0", "--journal", f"{tmp_path}"]
    argv += ["--pepper-file", f"{tmp_path}/pepper"]
    assert read_settings(argv).bodies_bytes == 256 * MIB
    with pytest.raises(SystemExit, match="2"):
        read_settings([*argv, "--bodies-mib", "3"])
    assert "--bodies-mib is 3; it must be 4 or more" in capsys.readouterr().err
