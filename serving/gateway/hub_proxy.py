"""Passes `/v1/files` and `/v1/fine_tuning` to the hub, which decides about them.

Bodies stream in both directions; nothing is kept or judged here but their size.
"""

from __future__ import annotations

import aiohttp

from serving.gateway.errors import unavailable
from serving.gateway.exchange import Exchange

MAX_UPLOAD_BYTES = 1024 * 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=120)
_TO_HUB = ("authorization", "content-type", "content-length", "accept", "accept-language", "idempotency-key")
_TO_CLIENT = ("content-type", "content-length", "content-disposition", "retry-after", "cache-control", "x-should-retry")


class HubProxy:
    """The hub's side of the OpenAI surface."""

    def __init__(self, session: aiohttp.ClientSession, hub_url: str) -> None:
        self._session = session
        self._hub_url = hub_url

    async def serve(self, exchange: Exchange) -> None:
        """Forward one request and its answer. Raises: GatewayError 413, 503."""
        url = f"{self._hub_url}{exchange.raw_path}" + (f"?{exchange.query}" if exchange.query else "")
        headers = {name: exchange.headers[name] for name in _TO_HUB if name in exchange.headers}
        headers |= {"x-request-id": exchange.request_id, "accept-encoding": "identity"}
        has_body = exchange.method in ("POST", "PUT", "PATCH")
        body = exchange.body_chunks(MAX_UPLOAD_BYTES) if has_body else None
        try:
            async with self._session.request(
                exchange.method, url, data=body, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as response:
                kept = [(name, response.headers[name]) for name in _TO_CLIENT if name in response.headers]
                exchange.start(response.status, kept)
                async for chunk in response.content.iter_any():
                    exchange.send(chunk)
                    await exchange.drained()
                exchange.end()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unavailable("hub_unavailable", "the hub does not answer; retry later", retry_after_s=5) from error
