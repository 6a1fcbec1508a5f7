"""The pool controller's two routes for gateways.

Choosing replicas is left to `routing`, the rhythm to `upkeep`.
"""

from __future__ import annotations

from typing import Protocol

import aiohttp

from serving.contract import ContractError, Demand, Routes, encode, loads

POLL_WAIT_S = 20
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=5)
_POLL_TIMEOUT = aiohttp.ClientTimeout(total=POLL_WAIT_S + 15)


class PoolError(Exception):
    """The pool controller could not be reached or answered something unusable."""


class Pool(Protocol):
    """What a gateway asks of whoever knows the replicas."""

    async def poll_routes(self, after: int) -> Routes | None:
        """Wait for routes newer than `after`; None when nothing changed."""

    async def post_demand(self, demand: Demand) -> None:
        """Report the load of the last second."""


class PoolClient:
    """The gateway's side of the pool controller."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self._base_url = base_url

    async def poll_routes(self, after: int) -> Routes | None:
        """Wait for routes newer than `after`; None when nothing changed. Raises: PoolError."""
        url = f"{self._base_url}/routes?after={after}&wait_s={POLL_WAIT_S}"
        try:
            async with self._session.get(url, timeout=_POLL_TIMEOUT) as response:
                body = await response.read()
                if response.status == 204:
                    return None
                if response.status != 200:
                    raise PoolError(f"GET {url} answered {response.status}")
                return loads(Routes, body)
        except (aiohttp.ClientError, TimeoutError, ContractError) as error:
            raise PoolError(f"GET {url}: {type(error).__name__} {error}") from error

    async def post_demand(self, demand: Demand) -> None:
        """Report the load of the last second. Raises: PoolError."""
        url = f"{self._base_url}/demand"
        try:
            async with self._session.post(url, json=encode(demand), timeout=_CALL_TIMEOUT) as response:
                await response.read()
                if response.status not in (200, 202, 204):
                    raise PoolError(f"POST {url} answered {response.status}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PoolError(f"POST {url}: {type(error).__name__} {error}") from error
