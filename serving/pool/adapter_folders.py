"""Verified folders of the adapters that are desired; loading them into engines is left to the shelves."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.contract import DesiredAdapter
from serving.pool.artifacts import fetch_artifact
from serving.pool.errors import ArtifactError

_RETRY_S = 10.0
_log = logging.getLogger(__name__)


class AdapterFolders:
    """`folders` holds what is here, verified once per controller; failures are tried again every 10 s."""

    def __init__(self, store: Path, on_change: Callable[[], None]) -> None:
        self._store = store
        self._on_change = on_change
        self.folders: dict[str, Path] = {}
        self._failures: dict[str, tuple[str, float]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, adapters: Iterable[DesiredAdapter]) -> None:
        """Begin to fetch what is not here yet."""
        for adapter in adapters:
            digest = adapter.digest
            _code, retry_at = self._failures.get(digest, ("", 0.0))
            if digest not in self.folders and digest not in self._tasks and time.monotonic() >= retry_at:
                self._tasks[digest] = asyncio.create_task(self._fetch(adapter))

    def failure(self, digest: str) -> str | None:
        """Reason code of the last attempt, None when it did not fail."""
        return self._failures[digest][0] if digest in self._failures else None

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _fetch(self, adapter: DesiredAdapter) -> None:
        try:
            folder = await asyncio.to_thread(fetch_artifact, adapter.uri, adapter.digest, self._store)
        except (ArtifactError, OSError) as error:
            code = error.code if isinstance(error, ArtifactError) else "artifact_unreadable"
            _log.warning("adapter %s: %s", adapter.digest, error)
            self._failures[adapter.digest] = (code, time.monotonic() + _RETRY_S)
        else:
            self.folders[adapter.digest] = folder
            self._failures.pop(adapter.digest, None)
        finally:
            del self._tasks[adapter.digest]
            self._on_change()
