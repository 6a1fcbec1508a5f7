"""The hub's part of a gateway that stands alone: keys from a file, budgets in a folder, usage appended to a log.

It answers the calls of `hub_client` with the same messages, so that admission, journal and settlement do not know the
difference. Reading the key file is left to `key_file`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.contract import (
    AllowanceClose,
    AllowanceGrant,
    AllowanceRefusal,
    AllowanceRequest,
    NamedModel,
    Snapshot,
    UsageBatch,
    UsageReply,
    dumps,
)
from serving.gateway.key_file import KeyFile

_LOOK_EVERY_S = 0.25
_POLL_WAIT_S = 20.0
_GRANT_LIFE_S = 3600.0


class LocalHub:
    """Keys and money of one folder, shared by the processes of this gateway."""

    def __init__(self, keys: KeyFile, folder: Path) -> None:
        self._keys = keys
        self._folder = folder
        self._version = 0
        self._seen: tuple[bytes, tuple[NamedModel, ...]] = (b"", ())

    async def poll_snapshot(self, after: int) -> Snapshot | None:
        """Wait until keys or models differ from what was returned last; None when they stayed the same."""
        give_up_s = time.monotonic() + _POLL_WAIT_S
        while True:
            found = self._keys.read(), self._keys.models()
            if found != self._seen or after == 0:
                self._seen, self._version = found, max(self._version, after) + 1
                return self._keys.snapshot(found[0], version=self._version)
            if time.monotonic() > give_up_s:
                return None
            await asyncio.sleep(_LOOK_EVERY_S)

    async def draw_allowance(self, request: AllowanceRequest) -> AllowanceGrant | AllowanceRefusal:
        """Grant what the budget still holds; the same idempotency key gets the same answer."""
        limit_ufen = self._keys.budget_ufen(request.budget_id)

        def draw(books: dict[str, Any]) -> AllowanceGrant | AllowanceRefusal:
            known = books["open"].get(request.idempotency_key)
            if known is None:
                used = books["spent"].get(request.budget_id, 0) + sum(
                    piece["amount_ufen"] for piece in books["open"].values() if piece["budget_id"] == request.budget_id
                )
                amount = request.want_ufen if limit_ufen is None else min(request.want_ufen, limit_ufen - used)
                if amount <= 0:
                    limit = f"budget_fen = {(limit_ufen or 0) // 1_000_000}"
                    return AllowanceRefusal("budget_exhausted", limit, f"key {request.budget_id}", used, 0, None)
                known = {"budget_id": request.budget_id, "amount_ufen": amount}
                books["open"][request.idempotency_key] = known
            expires_at = int((time.time() + _GRANT_LIFE_S) * 1_000_000)
            return AllowanceGrant(request.idempotency_key, known["amount_ufen"], expires_at)

        answer: AllowanceGrant | AllowanceRefusal = self._change(draw)
        return answer

    async def close_allowance(self, close: AllowanceClose) -> None:
        """Take back what was not spent."""

        def settle(books: dict[str, Any]) -> None:
            piece = books["open"].pop(close.allowance_id, None)
            if piece is not None:
                spent = books["spent"].get(piece["budget_id"], 0)
                books["spent"][piece["budget_id"]] = spent + close.spent_ufen

        self._change(settle)

    async def post_usage(self, batch: UsageBatch) -> UsageReply:
        """Append records that are not in the log yet, one JSON line each, keyed by (request_id, attempt)."""
        through_seq = batch.first_seq + len(batch.records) - 1

        def append(books: dict[str, Any]) -> None:
            first_new = books["through"].get(batch.gateway_id, 0) + 1
            new = batch.records[max(0, first_new - batch.first_seq) :]
            if new:
                with (self._folder / "usage.jsonl").open("ab") as log:
                    log.write("".join(dumps(record) + "\n" for record in new).encode())
                    log.flush()
                    os.fsync(log.fileno())
            books["through"][batch.gateway_id] = max(through_seq, first_new - 1)

        self._change(append)
        return UsageReply(through_seq)

    def _change(self, change: Callable[[dict[str, Any]], Any]) -> Any:
        """Change the books under a lock that all processes of the folder share, durably."""
        path = self._folder / "books.json"
        with _locked(self._folder / "books.lock"):
            books = json.loads(path.read_text()) if path.exists() else {"spent": {}, "open": {}, "through": {}}
            answer = change(books)
            fresh = path.with_suffix(".new")
            with fresh.open("w") as file:
                json.dump(books, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        return answer


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
