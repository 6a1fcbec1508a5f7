"""The operator's door: `/metrics` for Prometheus, `/load` for `guanmo top`, on loopback and never where clients call.

What the numbers are is left to `metrics`, taking them from the parts of the gateway to `gauges`.
"""

from __future__ import annotations

import json

from serving.gateway.errors import GatewayError
from serving.gateway.exchange import Exchange
from serving.gateway.metrics import Metrics, render

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """The callable that answers each request at the operator's door; it never raises."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one HTTP request."""
        if exchange.method != "GET" or exchange.path not in ("/metrics", "/load"):
            exchange.fail(GatewayError(404, "unknown_url", "this door has GET /metrics and GET /load"))
            return
        samples = self._metrics.collect()
        if exchange.path == "/metrics":
            body = render(samples)
            exchange.start(200, [("content-type", _TEXT), ("content-length", str(len(body)))])
            exchange.end(body)
        else:
            rows = [{"name": sample.name, "labels": dict(sample.labels), "value": sample.value} for sample in samples]
            exchange.answer(200, json.dumps({"samples": rows}).encode())
