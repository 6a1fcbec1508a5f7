"""The middleware around an engine of three lines: whose tokens they are, streams noted as they go, aborts awaited."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.witness.book import Row, read_rows
from serving.witness.middleware import FILE_VARIABLE, WitnessMiddleware

HEADERS = [(b"x-request-id", b"req_" + b"a" * 32 + b"-1"), (b"x-guanmo-account", b"alw_1 key_1 ver_1")]
Handler = Callable[["Engine", Any], Awaitable[None]]


class Engine:
    """As much of vLLM's output processor as the witness looks at."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}
        self.state = SimpleNamespace(engine_client=SimpleNamespace(output_processor=self))

    def add_request(self, request: Any) -> None:
        stats = SimpleNamespace(num_generation_tokens=0)
        self.request_states[request.request_id] = SimpleNamespace(
            prompt_len=request.prompt, is_prefilling=True, num_cached_tokens=2, request_index=request.index, stats=stats
        )

    def begin(self, name: str, *, prompt: int = 5, index: int = 0) -> Any:
        """Take a request as a handler does and prefill it."""
        self.add_request(SimpleNamespace(request_id=name, prompt=prompt, index=index))
        self.request_states[name].is_prefilling = False
        return self.request_states[name]

    def end(self, name: str) -> None:
        del self.request_states[name]


def run(path: Path, handler: Handler, *, method: str = "POST", sent: Callable[[], None] = lambda: None) -> list[Row]:
    """Serve one request and return the rows."""
    engine = Engine()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await handler(engine, send)

    async def send(_message: Any) -> None:
        sent()

    async def serve() -> None:
        scope = {"type": "http", "method": method, "headers": HEADERS, "app": engine}
        with_witness = WitnessMiddleware(app)
        try:
            await with_witness(scope, None, send)  # type: ignore[arg-type]
        except ConnectionError:
            engine.request_states["cut"].stats.num_generation_tokens += 3  # counted before the abort arrived
            await asyncio.sleep(0.03)
            engine.end("cut")
            await asyncio.sleep(0.05)

    asyncio.run(serve())
    return [row for row, _offset in read_rows(path, 0)] if path.exists() else []


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "rep-1.jsonl"))
    return tmp_path / "rep-1.jsonl"


def test_choices_count_as_the_engine_counts_and_once_as_answers_tell(path: Path) -> None:
    async def handler(engine: Engine, _send: Any) -> None:
        for index in range(3):
            engine.begin(f"r{index}", index=index).stats.num_generation_tokens = 7
            engine.end(f"r{index}")

    (row,) = run(path, handler)
    assert (row.prompt_tokens, row.completion_tokens) == (15, 21)
    assert (row.told_prompt_tokens, row.told_cached_tokens) == (5, 2)
    assert (row.request_id, row.attempt, row.allowance_id, row.version_id) == (
        "req_" + "a" * 32,
        1,
        "alw_1",
        "ver_1",
    )


def test_a_stream_is_noted_before_each_piece_leaves(path: Path) -> None:
    slots: list[bytes] = []

    async def handler(engine: Engine, send: Any) -> None:
        state = engine.begin("r")
        for count in (4, 9):
            state.stats.num_generation_tokens = count
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        engine.end("r")

    rows = run(path, handler, sent=lambda: slots.append(path.with_suffix(".running").read_bytes()[8:16]))
    assert [int.from_bytes(piece, "little") for piece in slots] == [4, 9]
    assert rows[0].completion_tokens == 9


def test_what_an_abort_still_counts_belongs_to_its_row(path: Path) -> None:
    async def handler(engine: Engine, _send: Any) -> None:
        engine.begin("cut").stats.num_generation_tokens = 4
        raise ConnectionError

    (row,) = run(path, handler)
    assert (row.completion_tokens, row.cut) == (7, False)


def test_a_call_that_never_reaches_the_engine_leaves_no_row(path: Path) -> None:
    async def handler(_engine: Engine, _send: Any) -> None:
        return

    assert run(path, handler) == []
    assert run(path.with_name("other.jsonl"), handler, method="GET") == []
