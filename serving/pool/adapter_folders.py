"""Verified folders of the adapters that are desired; loading them into engines is left to the shelves."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.contract import DesiredAdapter
from serving.pool.artifacts import fetch_artifact, is_remote
from serving.pool.errors import ArtifactError
from serving.pool.remote_artifacts import RemoteArtifacts

_RETRY_S = 10.0
_RETRY_WHOLE_S = 600.0
_WHOLE_AGAIN = ("digest_mismatch", "artifact_too_large")
"""What a server would have to send from the start again, most likely for nothing."""
_log = logging.getLogger(__name__)


class AdapterFolders:
    """`folders` holds what is here, verified once per controller.

    Failures are tried again every 10 s, or 600 s for wrong downloads.
    """

    def __init__(self, store: Path, on_change: Callable[[], None], remote: RemoteArtifacts) -> None:
        self._store = store
        self._remote = remote
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
            digest = adapter.digest
            folder = await self._remote.bring(adapter.uri, digest, lambda uri: fetch_artifact(uri, digest, self._store))
        except (ArtifactError, OSError) as error:
            code = error.code if isinstance(error, ArtifactError) else "artifact_unreadable"
            _log.warning("adapter %s: %s", adapter.digest, error)
            wait_s = _RETRY_WHOLE_S if is_remote(adapter.uri) and code in _WHOLE_AGAIN else _RETRY_S
            self._failures[adapter.digest] = (code, time.monotonic() + wait_s)
        else:
            self.folders[adapter.digest] = folder
            self._failures.pop(adapter.digest, None)
        finally:
            del self._tasks[adapter.digest]
            self._on_change()
