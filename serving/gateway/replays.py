"""The same request sent again gets the first one's answer and is billed once: by `Idempotency-Key`, or an SDK's retry.

Whichever process of this gateway is asked: each named request has a file that is locked while it runs and holds its
answer for ten minutes afterwards. The answer is in the file before its last byte goes out, so a killed process leaves
either all of it or a request that may be run again. Running the request is left to the caller.

Stock SDKs name nothing, but say how often they tried (`x-stainless-retry-count`). An answer that is finished and billed
though its client gave up waiting is kept under the request's own digest, for one retry.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from serving.contract import SnapshotKey
from serving.gateway.errors import GatewayError, Limit
from serving.gateway.exchange import MAX_TAPE_BYTES, ClientGoneError, Exchange, Tape

KEPT_S = 600.0
MAX_KEPT = 4096
MAX_KEPT_BYTES = 64 * 1024 * 1024
MAX_NAME_CHARS = 255
_LOOK_EVERY_S = 0.05
_SWEEP_EVERY_S = 10.0
_SWEEP_EVERY = 256
_REPLAYED = ("idempotent-replayed", "true")

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class _Kept:
    """What a file says: whose it is, and the answer once there is one. `status` 0: too large to keep."""

    body_digest: str
    request_id: str
    complete: bool = False
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Replays:
    """The named requests of the last ten minutes, one file each in `folder`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._swept_at_s = 0.0
        self._since_sweep = 0

    def serve(self, exchange: Exchange, key: SnapshotKey, raw: bytes, run: Run) -> Awaitable[None]:
        """Return what runs a request, or answers it as it was answered before under the same name.

        Raises, when awaited: GatewayError 400 for a name that is none, 409 for one that belongs to another body; what
        `run` raises.
        """
        name = exchange.headers.get("idempotency-key")
        if name is not None:
            return self._serve_named(exchange, key, raw, run, name=name)
        tried = exchange.headers.get("x-stainless-retry-count")
        return run() if tried is None else self._serve_unnamed(exchange, key, raw, run, tried=tried)

    async def _serve_named(self, exchange: Exchange, key: SnapshotKey, raw: bytes, run: Run, *, name: str) -> None:
        if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
            text = f"Idempotency-Key has {len(name)} characters; it takes 1 to {MAX_NAME_CHARS} printable ones"
            raise GatewayError(400, "invalid_value", text, param="Idempotency-Key")
        path = self._folder / hashlib.sha256(f"{key.key_id}\0{name}".encode()).hexdigest()
        body_digest = _digest_body(exchange, raw)
        self._sweep()
        fd = await _claim(path, exchange, body_digest, name)
        try:
            kept = _read(fd)
            if kept is not None and kept.complete:
                _replay(exchange, kept, name)
            else:
                await _run_first(exchange, path, fd, body_digest=body_digest, run=run)
        finally:
            os.close(fd)

    async def _serve_unnamed(self, exchange: Exchange, key: SnapshotKey, raw: bytes, run: Run, *, tried: str) -> None:
        def locate() -> tuple[Path, str]:
            """Only a retry and a lost answer have a file; any other call pays nothing for it."""
            self._sweep()
            digest = _digest_body(exchange, raw)
            return self._folder / hashlib.sha256(f"{key.key_id}\0{digest}\0sdk".encode()).hexdigest(), digest

        if tried != "0" and await _replay_lost(exchange, *locate()):
            return
        lost = _Lost(exchange, locate)
        exchange.on_gone = lost.begin
        try:
            await run()
        finally:
            lost.end()

    def _sweep(self) -> None:
        """Forget what is old, and the oldest of what is too much; now and then."""
        now_s, self._since_sweep = time.time(), self._since_sweep + 1
        if now_s - self._swept_at_s < _SWEEP_EVERY_S and self._since_sweep < _SWEEP_EVERY:
            return
        self._swept_at_s, self._since_sweep = now_s, 0
        with os.scandir(self._folder) as found:
            files = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in found)
        count, size = len(files), sum(size_bytes for _, size_bytes, _ in files)
        for at_s, size_bytes, path in files:
            if now_s - at_s <= KEPT_S and count <= MAX_KEPT and size <= MAX_KEPT_BYTES:
                return
            if _forget(Path(path)):
                count, size = count - 1, size - size_bytes


class _Lost:
    """The answer of a request whose client goes away before its first byte; nothing at all for any other."""

    def __init__(self, exchange: Exchange, locate: Callable[[], tuple[Path, str]]) -> None:
        self._exchange = exchange
        self._locate = locate
        self._open: tuple[int, Path, Tape] | None = None

    def begin(self) -> None:
        if self._exchange.started:
            return
        path, body_digest = self._locate()
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            return  # a full disk: the answer is billed and lost, as for a client that never asks again
        try:
            if _lock(fd):
                self._open = (fd, path, _begin_file(self._exchange, fd, body_digest))
        except OSError:
            path.unlink(missing_ok=True)
        finally:
            if self._open is None:
                os.close(fd)

    def end(self) -> None:
        if self._open is None:
            return
        fd, path, tape = self._open
        self._exchange.tape = None
        if not tape.complete:
            path.unlink(missing_ok=True)
        os.close(fd)


async def _replay_lost(exchange: Exchange, path: Path, body_digest: str) -> bool:
    """Answer a retry with what its first try was billed for, once; False where there is nothing of the kind."""
    if not path.exists():
        return False
    fd = await _claim(path, exchange, body_digest, "of this request")
    try:
        kept = _read(fd)
        if exchange.gone:
            raise ClientGoneError
        path.unlink(missing_ok=True)
        if kept is None or not kept.complete:
            return False
        _replay(exchange, kept, "of this request")
        return True
    finally:
        os.close(fd)


async def _claim(path: Path, exchange: Exchange, body_digest: str, name: str) -> int:
    """Return the locked file of a name once nobody else runs it. Raises: GatewayError 409, ClientGoneError."""
    while True:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            kept = _read(fd)
            if kept is not None and kept.body_digest != body_digest:
                text = f"the Idempotency-Key {name!r:.80} was used for another request; choose a new one"
                raise GatewayError(409, "idempotency_key_reused", text, param="Idempotency-Key", retry=False)
            if _lock(fd) and _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        if exchange.gone:
            raise ClientGoneError
        await asyncio.sleep(_LOOK_EVERY_S)


async def _run_first(exchange: Exchange, path: Path, fd: int, *, body_digest: str, run: Run) -> None:
    tape = _begin_file(exchange, fd, body_digest)
    try:
        await run()
    finally:
        exchange.tape = None
        if not tape.complete:
            path.unlink(missing_ok=True)


def _begin_file(exchange: Exchange, fd: int, body_digest: str) -> Tape:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps([body_digest, exchange.request_id]).encode() + b"\n", 0)
    exchange.tape = Tape(keep=lambda tape: _write_answer(fd, tape))
    return exchange.tape


def _digest_body(exchange: Exchange, raw: bytes) -> str:
    return hashlib.sha256(exchange.path.encode() + b"\0" + raw).hexdigest()


def _write_answer(fd: int, tape: Tape) -> None:
    """Append the answer. Of an answer too large to keep only the fact stays, so that it is not run again."""
    body = b"" if tape.overflowed else b"".join(tape.pieces)
    status = 0 if tape.overflowed else tape.status
    text = json.dumps([status, tape.headers, len(body)]).encode() + b"\n" + body
    os.lseek(fd, 0, os.SEEK_END)
    while text:
        text = text[os.write(fd, text) :]


def _read(fd: int) -> _Kept | None:
    """Return what a file says; None for a new one, a torn one and one that is over."""
    if time.time() - os.fstat(fd).st_mtime > KEPT_S:
        return None
    owner, _, rest = os.pread(fd, os.fstat(fd).st_size, 0).partition(b"\n")
    head, _, body = rest.partition(b"\n")
    try:
        body_digest, request_id = json.loads(owner)
    except ValueError:
        return None
    try:
        status, headers, size_bytes = json.loads(head)
    except ValueError:
        return _Kept(body_digest, request_id)
    if size_bytes != len(body):
        return _Kept(body_digest, request_id)
    pairs = tuple((name, value) for name, value in headers)
    return _Kept(body_digest, request_id, complete=True, status=status, headers=pairs, body=body)


def _replay(exchange: Exchange, kept: _Kept, name: str) -> None:
    if kept.status == 0:
        text = f"the answer under the Idempotency-Key {name!r:.80} was too large to keep; it is billed once already"
        limit = Limit("kept_answer_bytes", MAX_TAPE_BYTES, "gateway", None)
        param = "Idempotency-Key"
        raise GatewayError(409, "idempotency_answer_dropped", text, param=param, limit=limit, retry=False)
    exchange.request_id = kept.request_id
    exchange.start(kept.status, [*kept.headers, _REPLAYED])
    exchange.end(kept.body)


def _forget(path: Path) -> bool:
    """Remove a file unless its request runs."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        free = _lock(fd) and _is_at(fd, path)
        if free:
            path.unlink()
        return free
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(fd: int, path: Path) -> bool:
    """Return whether the file is still the one of its name, and not one just removed."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
