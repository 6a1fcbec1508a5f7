"""The pool controller's part of a gateway that stands alone before a pool: routes and names from the file it writes.

A file that is broken, half-written or gone changes nothing: what was read last stays. What a key may do with the names
is left to `key_file`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import aiohttp

from serving.contract import ContractError, Demand, NamedModel, Routes, RoutesFile, loads
from serving.gateway.pool_client import POLL_WAIT_S, PoolClient, PoolError

_LOOK_EVERY_S = 0.1


class RoutesFilePool:
    """One routes file; demand goes to the controller that wrote it."""

    def __init__(self, path: Path, session: aiohttp.ClientSession) -> None:
        self._path = path
        self._session = session
        self._seen = b""
        self._held: RoutesFile | None = None

    @property
    def models(self) -> tuple[NamedModel, ...]:
        """Return the names of the last good file."""
        return self._held.models if self._held is not None else ()

    async def poll_routes(self, after: int) -> Routes | None:
        """Wait for routes of another version than `after`; None when nothing changed. Raises: PoolError."""
        give_up_s = time.monotonic() + POLL_WAIT_S
        while time.monotonic() < give_up_s:
            held = self._read()
            if held.routes.version != after:
                return held.routes
            await asyncio.sleep(_LOOK_EVERY_S)
        return None

    async def post_demand(self, demand: Demand) -> None:
        """Report the load of the last second. Raises: PoolError."""
        if self._held is not None:
            await PoolClient(self._session, self._held.pool_url).post_demand(demand)

    def _read(self) -> RoutesFile:
        try:
            text = self._path.read_bytes()
            if self._held is None or text != self._seen:
                self._held, self._seen = loads(RoutesFile, text), text
        except OSError as error:
            raise PoolError(f"routes file {self._path} cannot be read: {error.strerror}") from error
        except ContractError as error:
            raise PoolError(f"routes file {self._path}: {error}") from error
        return self._held
