"""`Idempotency-Key`: the same request sent again gets the first one's answer and is billed once.

Answers are kept in this process for ten minutes; running the request is left to the caller.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from serving.contract import SnapshotKey
from serving.gateway.clock import Clock
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange, Tape

KEPT_S = 600.0
MAX_KEPT = 4096
MAX_KEPT_BYTES = 64 * 1024 * 1024
MAX_NAME_CHARS = 255
_REPLAYED = ("idempotent-replayed", "true")

Run = Callable[[], Awaitable[None]]


class _Entry:
    """One request by its name; `ended` is done when it is answered or failed."""

    def __init__(self, body_digest: bytes, request_id: str, until_s: float) -> None:
        self.body_digest = body_digest
        self.request_id = request_id
        self.until_s = until_s
        self.tape = Tape()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Replays:
    """The named requests of the last ten minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._kept_bytes = 0

    async def serve(self, exchange: Exchange, key: SnapshotKey, raw: bytes, run: Run) -> None:
        """Run a request, or answer it as it was answered before under the same name.

        Raises: GatewayError 400 for a name that is none, 409 for one that belongs to another body; what `run` raises.
        """
        name = exchange.headers.get("idempotency-key")
        if name is None:
            await run()
            return
        if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
            text = f"Idempotency-Key has {len(name)} characters; it takes 1 to {MAX_NAME_CHARS} printable ones"
            raise GatewayError(400, "invalid_value", text, param="Idempotency-Key")
        where = (key.key_id, name)
        body_digest = hashlib.sha256(exchange.path.encode() + b"\0" + raw).digest()
        while (entry := self._live(where)) is not None:
            if entry.body_digest != body_digest:
                text = f"the Idempotency-Key {name!r:.80} was used for another request; choose a new one"
                raise GatewayError(409, "idempotency_key_reused", text, param="Idempotency-Key", retry=False)
            await asyncio.shield(entry.ended)
            if entry.tape.complete:
                _replay(exchange, entry, name)
                return
        await self._run_first(exchange, where, body_digest, run)

    async def _run_first(self, exchange: Exchange, where: tuple[str, str], body_digest: bytes, run: Run) -> None:
        entry = _Entry(body_digest, exchange.request_id, self._clock.monotonic_s() + KEPT_S)
        self._entries[where] = entry
        exchange.tape = entry.tape
        try:
            await run()
        finally:
            exchange.tape = None
            if entry.tape.complete:
                self._kept_bytes += entry.tape.size_bytes
                self._forget_surplus()
            else:
                self._entries.pop(where, None)
            entry.ended.set_result(None)

    def _live(self, where: tuple[str, str]) -> _Entry | None:
        entry = self._entries.get(where)
        if entry is not None and entry.ended.done() and entry.until_s <= self._clock.monotonic_s():
            self._drop(where)
            return None
        return entry

    def _forget_surplus(self) -> None:
        for where in tuple(self._entries):
            if len(self._entries) <= MAX_KEPT and self._kept_bytes <= MAX_KEPT_BYTES:
                return
            if self._entries[where].ended.done():
                self._drop(where)

    def _drop(self, where: tuple[str, str]) -> None:
        self._kept_bytes -= self._entries.pop(where).tape.size_bytes


def _replay(exchange: Exchange, entry: _Entry, name: str) -> None:
    if entry.tape.overflowed:
        text = f"the answer under the Idempotency-Key {name!r:.80} was too large to keep; it is billed once already"
        raise GatewayError(409, "idempotency_answer_dropped", text, param="Idempotency-Key", retry=False)
    exchange.request_id = entry.request_id
    exchange.start(entry.tape.status, [*entry.tape.headers, _REPLAYED])
    exchange.end(b"".join(entry.tape.pieces))
