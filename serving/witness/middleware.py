"""`--middleware serving.witness.middleware.WitnessMiddleware`: counts inside stock vLLM what each request costs it.

The counts are those that vLLM adds to `vllm:prompt_tokens_total` and `vllm:generation_tokens_total`, taken from the
same objects, so that rows and counters agree to the token, aborted requests included. Loaded by the engine, it imports
nothing of it. Where the rows go is `book`'s matter.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from serving.witness.book import Asked, Tokens, WitnessBook

FILE_VARIABLE = "GUANMO_WITNESS_FILE"
_LET_GO_S = 0.01
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class RequestCount:
    """What one HTTP request has cost so far, over all engine requests that it became (`n`, several prompts)."""

    def __init__(self, book: WitnessBook, asked: Asked) -> None:
        self._book = book
        self._asked = asked
        self._states: list[tuple[str, Any]] = []
        self._slot = -1

    def add(self, engine_request_id: str, state: Any) -> None:
        """Note one engine request (vLLM's RequestState), which vLLM itself keeps up to date."""
        if not self._states:
            self._slot = self._book.open_slot(self._asked)
        self._states.append((engine_request_id, state))

    def note(self) -> None:
        """Write how far it is."""
        if self._states:
            self._book.note(self._slot, self._tokens())

    def close(self) -> None:
        """Write its row."""
        if self._states:
            self._book.close_slot(self._slot, self._asked, self._tokens())

    def is_running(self, known: MutableMapping[str, Any]) -> bool:
        """Whether the engine still counts for it."""
        return any(known.get(name) is state for name, state in self._states)

    def _tokens(self) -> Tokens:
        prefilled = [state for _name, state in self._states if not state.is_prefilling]
        firsts = [state for state in prefilled if state.request_index == 0]  # of the choices of one prompt
        return Tokens(
            prompt=sum(state.prompt_len for state in prefilled),
            completion=sum(state.stats.num_generation_tokens for _name, state in self._states),
            told_prompt=sum(state.prompt_len for state in firsts),
            told_cached=sum(state.num_cached_tokens for state in firsts),
        )


_current: ContextVar[RequestCount | None] = ContextVar("guanmo_request_count", default=None)


class WitnessMiddleware:
    """ASGI middleware; the file is named by the environment when the first request comes."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._book: WitnessBook | None = None
        self._known: MutableMapping[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on; a POST that reaches the engine leaves a row."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        count = RequestCount(self._open_book(scope), _read_asked(scope))

        async def send_counted(message: Any) -> None:
            if message.get("more_body"):
                count.note()  # before the client has it, so that the witness never knows less than the bill
            await send(message)

        token = _current.set(count)
        try:
            await self._app(scope, receive, send_counted)
        finally:
            _current.reset(token)
            self._close(count)

    def _open_book(self, scope: Scope) -> WitnessBook:
        if self._book is None:
            self._book = WitnessBook(Path(os.environ[FILE_VARIABLE]))
            processor = scope["app"].state.engine_client.output_processor
            self._known = processor.request_states
            _watch(processor)
        return self._book

    def _close(self, count: RequestCount) -> None:
        """An abort may still be on its way to the engine: what it counts until then belongs to the row."""
        if not count.is_running(self._known):
            count.close()
            return
        task = asyncio.create_task(self._close_later(count))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_later(self, count: RequestCount) -> None:
        while count.is_running(self._known):
            await asyncio.sleep(_LET_GO_S)
        count.close()


def _watch(processor: Any) -> None:
    """Let every engine request be noted under the HTTP request that made it; both run in one context."""
    add_request = processor.add_request

    def add_and_note(request: Any, *arguments: Any, **options: Any) -> None:
        add_request(request, *arguments, **options)
        count = _current.get()
        if count is not None:
            count.add(request.request_id, processor.request_states[request.request_id])

    processor.add_request = add_and_note


def _read_asked(scope: Scope) -> Asked:
    headers = dict(scope["headers"])
    names = (b"x-request-id", b"x-guanmo-account")
    request_id, account = (headers.get(name, b"").decode("latin-1") for name in names)
    return Asked.of_headers(request_id, account)
