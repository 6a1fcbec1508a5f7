"""The hub's internal routes, spoken in contract messages.

When to call them is decided by `upkeep`, `wallet` and `settlement`.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import aiohttp

from serving.contract import (
    AllowanceClose,
    AllowanceGrant,
    AllowanceRefusal,
    AllowanceRequest,
    ContractError,
    Snapshot,
    UsageBatch,
    UsageReply,
    loads,
)
from serving.gateway.quick_json import encode_message

POLL_WAIT_S = 20
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=10)
_POLL_TIMEOUT = aiohttp.ClientTimeout(total=POLL_WAIT_S + 15)
_REFUSED_STATUS = 402

Message = TypeVar("Message")


class HubError(Exception):
    """The hub could not be reached or answered something unusable. `status` is None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Hub(Protocol):
    """What a gateway asks of whoever keeps keys and money."""

    async def poll_snapshot(self, after: int) -> Snapshot | None:
        """Wait for a snapshot newer than `after`; None when nothing changed."""

    async def draw_allowance(self, request: AllowanceRequest) -> AllowanceGrant | AllowanceRefusal:
        """Ask for a slice."""

    async def post_usage(self, batch: UsageBatch) -> UsageReply:
        """Hand over usage records."""

    async def close_allowance(self, close: AllowanceClose) -> None:
        """Give a slice back."""


class HubClient:
    """The gateway's side of `/internal/v1`, with its bearer token."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str) -> None:
        self._session = session
        self._base_url = base_url
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    async def poll_snapshot(self, after: int) -> Snapshot | None:
        """Wait for a snapshot newer than `after`; None when nothing changed. Raises: HubError."""
        path = f"snapshot?after={after}&wait_s={POLL_WAIT_S}"
        status, body = await self._call("GET", path, timeout=_POLL_TIMEOUT)
        return None if status == 204 else _parse(Snapshot, status, body)

    async def draw_allowance(self, request: AllowanceRequest) -> AllowanceGrant | AllowanceRefusal:
        """Ask for a slice. Raises: HubError."""
        status, body = await self._call("POST", "allowances", message=request)
        if status == _REFUSED_STATUS:
            return _parse(AllowanceRefusal, 200, body)
        return _parse(AllowanceGrant, status, body)

    async def post_usage(self, batch: UsageBatch) -> UsageReply:
        """Send usage records. Raises: HubError."""
        status, body = await self._call("POST", "usage", message=batch)
        return _parse(UsageReply, status, body)

    async def close_allowance(self, close: AllowanceClose) -> None:
        """Give a slice back. Raises: HubError."""
        status, body = await self._call("POST", "allowances/close", message=close)
        if status not in (200, 204):
            raise HubError(_describe("allowances/close", status, body), status)

    async def _call(
        self, method: str, path: str, *, message: object = None, timeout: aiohttp.ClientTimeout = _CALL_TIMEOUT
    ) -> tuple[int, bytes]:
        url = f"{self._base_url}/internal/v1/{path}"
        payload = None if message is None else encode_message(message)
        try:
            try:
                return await self._ask(method, url, payload, timeout)
            except aiohttp.ServerDisconnectedError:
                # A kept connection that the hub closed just then. Every message may be sent twice.
                return await self._ask(method, url, payload, timeout)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HubError(f"{method} {url}: {type(error).__name__} {error}") from error

    async def _ask(
        self, method: str, url: str, payload: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> tuple[int, bytes]:
        async with self._session.request(
            method, url, data=payload, headers=self._headers, timeout=timeout, allow_redirects=False
        ) as response:
            return response.status, await response.read()


def _parse(kind: type[Message], status: int, body: bytes) -> Message:
    if status != 200:
        raise HubError(_describe(kind.__name__, status, body), status)
    try:
        return loads(kind, body)
    except ContractError as error:
        raise HubError(f"the hub's {kind.__name__} breaks the contract: {error}", status) from error


def _describe(what: str, status: int, body: bytes) -> str:
    return f"the hub answered {status} to {what}: {body[:300].decode('utf-8', 'replace')}"
