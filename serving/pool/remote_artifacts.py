"""Folders fetched over HTTPS by their `SHA256SUMS`, file by file; who may use them is left to the hub.

Whatever a server sends, only what the digest names comes into the store. A broken download goes on where it stopped,
also after a restart. Nothing of a URI but host and path is ever said: the rest may hold credentials.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from serving.pool.artifacts import SUMS_NAME, is_remote, read_sums, show_uri
from serving.pool.drafts import draft_of, hold_draft
from serving.pool.errors import ArtifactError

_CHUNK_BYTES = 4 * 2**20
_REDIRECTS = (301, 302, 303, 307, 308)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_GIB = 2**30
ADAPTER_BYTES = 16 * _GIB
_DAMAGED = ("digest_mismatch", "artifact_incomplete")
"""What a whole folder that was verified before says when its files changed here."""
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchLimits:
    """What one folder may cost. A server is given `grace_s` beyond what `least_bytes_per_s` allows for what came."""

    folder_bytes: int = 512 * _GIB
    sums_bytes: int = 2**20
    files: int = 4096
    keep_free_bytes: int = _GIB
    connect_s: float = 10.0
    silent_s: float = 30.0
    grace_s: float = 60.0
    least_bytes_per_s: float = 64 * 1024
    redirects: int = 5
    tries: int = 4
    pause_s: float = 1.0


class _BrokenOffError(ArtifactError):
    """A connection that ended early, was silent or answered 5xx: worth another try from where it stopped."""


class RemoteArtifacts:
    """The store's side of HTTPS servers; each digest is fetched once at a time."""

    def __init__(self, http: aiohttp.ClientSession, store: Path, limits: FetchLimits) -> None:
        self._http = http
        self._store = store
        self._limits = limits
        self._locks: dict[str, asyncio.Lock] = {}
        self._renewals: Counter[str] = Counter()

    async def bring_here(self, uri: str, digest: str) -> str:
        """Return the URI of `<store>/<digest>`, fetched from below an HTTPS `uri` unless it is here; others as given.

        A folder appears there only when whole and verified; what became of it since is left to `artifacts`.
        Raises: ArtifactError, OSError.
        """
        if not is_remote(uri):
            return uri
        _check_url(uri)
        target = self._store / digest
        async with self._locks.setdefault(digest, asyncio.Lock()):
            if not target.exists():
                await self._fetch(uri, digest, target)
        return target.as_uri()

    async def bring(self, uri: str, digest: str, verify: Callable[[str], Path]) -> Path:
        """Return what `verify` makes of the folder's URI here; what it finds damaged of an HTTPS one is fetched again.

        Raises: as `bring_here` and `verify`.
        """
        here, target = await self.bring_here(uri, digest), self._store / digest
        seen = self._renewals[digest]
        try:
            return await asyncio.to_thread(verify, here)
        except ArtifactError as error:
            is_damaged = error.code in _DAMAGED or self._renewals[digest] != seen  # or being renewed this moment
            if not (is_remote(uri) and is_damaged):
                raise
            _log.warning("%s; what differs is fetched again", error)
        async with self._locks[digest]:
            if self._renewals[digest] == seen and target.exists():  # nobody else has renewed it meanwhile
                self._renewals[digest] += 1
                draft = draft_of(self._store, digest)
                shutil.rmtree(draft, ignore_errors=True)
                target.rename(draft)
        return await asyncio.to_thread(verify, await self.bring_here(uri, digest))

    async def _fetch(self, uri: str, digest: str, target: Path) -> None:
        draft = draft_of(self._store, digest)
        async with hold_draft(draft):
            if target.exists():  # another process was at it until now
                draft.rmdir()
                return
            try:
                await self._fill(draft, uri, digest)
            except ArtifactError as error:
                if error.code == "artifact_too_large":
                    shutil.rmtree(draft, ignore_errors=True)
                raise
            await asyncio.to_thread(_sync_all, draft)
            draft.rename(target)

    async def _fill(self, draft: Path, uri: str, digest: str) -> None:
        sums = await self._list(draft, uri, digest)
        if len(sums) > self._limits.files:
            text = f"{show_uri(uri)} lists {len(sums)} files, the limit is {self._limits.files}; publish fewer"
            raise ArtifactError("artifact_too_large", text)
        left = self._limits.folder_bytes
        for name, wanted in sums.items():
            path = draft / name
            if not path.is_file() or await asyncio.to_thread(_hash, path) != wanted:
                path.parent.mkdir(parents=True, exist_ok=True)
                await self._bring(_join(uri, name), path, wanted, most_bytes=left)
            left -= path.stat().st_size

    async def _list(self, draft: Path, uri: str, digest: str) -> dict[str, str]:
        """Names and sha256 of what is to come; a list here that cannot be read is fetched once more."""
        if (draft / SUMS_NAME).is_file():
            try:
                return read_sums(draft, digest)
            except ArtifactError as error:
                _log.warning("%s; it is fetched once more", error)
        listed = draft / ".listed"
        listed.write_bytes(await self._with_tries(lambda: self._read_sums(uri, digest)))
        await asyncio.to_thread(_sync, listed)
        listed.replace(draft / SUMS_NAME)
        return read_sums(draft, digest)

    async def _read_sums(self, uri: str, digest: str) -> bytes:
        url, text = _join(uri, SUMS_NAME), b""
        async with self._open(url, {}) as response:
            async for piece in self._pieces(response, url, self._limits.sums_bytes):
                text += piece
        found = hashlib.sha256(text).hexdigest()
        if found != digest:
            raise ArtifactError("digest_mismatch", f"{show_uri(url)} has sha256 {found}, wanted {digest}")
        return text

    async def _bring(self, url: str, path: Path, wanted: str, *, most_bytes: int) -> None:
        """Download one file, kept only with the sha256 `wanted`; one that went on from an old part is tried anew."""
        went_on = path.exists()
        await self._with_tries(lambda: self._go_on(url, path, most_bytes))
        found = await asyncio.to_thread(_hash, path)
        if found == wanted:
            return
        path.unlink()
        if not went_on:
            raise ArtifactError("digest_mismatch", f"{show_uri(url)} has sha256 {found}, its {SUMS_NAME} says {wanted}")
        await self._bring(url, path, wanted, most_bytes=most_bytes)

    async def _with_tries(self, step: Callable[[], Awaitable[Result]]) -> Result:
        for number in range(self._limits.tries - 1):
            try:
                return await step()
            except _BrokenOffError:
                await asyncio.sleep(self._limits.pause_s * 2**number)
        return await step()

    async def _go_on(self, url: str, path: Path, most_bytes: int) -> None:
        here = path.stat().st_size if path.exists() else 0
        headers = {"range": f"bytes={here}-"} if here else {}
        async with self._open(url, headers) as response:
            if response.status == 416 and response.headers.get("content-range") == f"bytes */{here}":
                return  # it is whole already
            if response.status == 416:
                path.unlink(missing_ok=True)
                raise _BrokenOffError("artifact_unreachable", f"{show_uri(url)} is shorter than what came before")
            is_rest = response.status == 206 and response.headers.get("content-range", "").startswith(f"bytes {here}-")
            if response.status == 206 and not is_rest:
                raise ArtifactError("artifact_unreachable", f"{show_uri(url)} sent another part than asked for")
            before = here if is_rest else 0
            size = response.content_length or 0
            if size > most_bytes - before:
                raise _too_large(url, self._limits.folder_bytes)
            self._check_room(url, size)
            with path.open("ab" if is_rest else "wb") as file:
                async for chunk in self._pieces(response, url, most_bytes - before):
                    self._check_room(url, len(chunk))  # not all say their length, and others fill the disk too
                    await asyncio.to_thread(file.write, chunk)

    def _check_room(self, url: str, size: int) -> None:
        free = shutil.disk_usage(self._store).free
        if size > free - self._limits.keep_free_bytes:
            text = f"{show_uri(url)} sends {size} bytes, {free} are free and {self._limits.keep_free_bytes} stay free"
            raise ArtifactError("store_full", f"{text}; make room in the store")

    async def _pieces(self, response: aiohttp.ClientResponse, url: str, most_bytes: int) -> AsyncIterator[bytes]:
        """What comes, in order. Raises: ArtifactError when it is too much or too slow."""
        began_at, count = time.monotonic(), 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            count += len(chunk)
            if count > most_bytes:
                raise _too_large(url, most_bytes)
            took_s = time.monotonic() - began_at
            if took_s > self._limits.grace_s + count / self._limits.least_bytes_per_s:
                text = f"{show_uri(url)} sent {count} bytes in {took_s:.0f} s; the least is"
                raise ArtifactError("artifact_too_slow", f"{text} {self._limits.least_bytes_per_s:g} bytes/s")
            yield chunk

    @contextlib.asynccontextmanager
    async def _open(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET that follows redirects, none of which leaves HTTPS. Raises: ArtifactError."""
        limits = self._limits
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect_s, sock_read=limits.silent_s)
        headers = {**headers, "accept-encoding": "identity"}
        shown = show_uri(url)
        try:
            for _ in range(limits.redirects + 1):
                target = URL(url, encoded=True)
                request = self._http.get(target, headers=headers, timeout=timeout, allow_redirects=False)
                async with request as response:
                    if response.status not in _REDIRECTS:
                        _check_status(response.status, shown)
                        yield response
                        return
                    url = _follow(url, response.headers.get("location", ""))
        except (aiohttp.ClientError, TimeoutError) as error:
            name = type(error).__name__
            raise _BrokenOffError("artifact_unreachable", f"{shown} broke off: {name}; it is tried again") from None
        raise ArtifactError("too_many_redirects", f"{shown} redirects more than {limits.redirects} times")


def _check_status(status: int, shown: str) -> None:
    if status in (200, 206, 416):
        return
    if status in (404, 410):
        raise ArtifactError("artifact_missing", f"{shown} answered {status}; publish it or correct the URI")
    if status in (401, 403):
        raise ArtifactError("artifact_forbidden", f"{shown} answered {status}; check what the URI is allowed to read")
    if status in (408, 429) or status >= 500:
        raise _BrokenOffError("artifact_unreachable", f"{shown} answered {status}; it is tried again")
    raise ArtifactError("artifact_unreachable", f"{shown} answered {status}")


def _check_url(url: str) -> None:
    """HTTPS anywhere, plain HTTP on this machine. Raises: ArtifactError."""
    wanted = "use https://host/folder; plain http is taken from 127.0.0.1 only"
    try:
        is_readable = bool(URL(url, encoded=True).host)
        parts = urlsplit(url)
        is_allowed = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    except ValueError:
        is_readable = False
    if not is_readable:
        raise ArtifactError("unsupported_uri", f"the artifact's URI cannot be read; {wanted}")
    if not is_allowed:
        raise ArtifactError("unsupported_uri", f"{show_uri(url)} is not fetched; {wanted}")


def _follow(url: str, location: str) -> str:
    target = urljoin(url, location)
    _check_url(target)
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise ArtifactError("unsupported_uri", f"{show_uri(url)} redirects to plain http; serve it over https")
    return target


def _join(uri: str, name: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}", fragment=""))


def _too_large(url: str, most_bytes: int) -> ArtifactError:
    return ArtifactError("artifact_too_large", f"{show_uri(url)} is larger than the {most_bytes} bytes allowed")


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on disk: a name must not outlive a power cut that what it names does not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
