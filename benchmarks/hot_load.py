"""How long an adapter takes to become callable: the engine's own load call, and a deployment as its owner sees it.

It leaves the adapter deployed, as it was found.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx

from benchmarks.running_market import NotMeasurableError, RunningMarket, find_replica, read_pool

POLL_S = 0.05
TIMEOUT_S = 300.0


def measure_load_call(market: RunningMarket, *, times: int) -> list[float]:
    """Return milliseconds of the engine's load call alone, under a name of its own each time, unloaded after it."""
    replica, took_ms = find_replica(market), []
    with httpx.Client(base_url=replica, timeout=60) as engine:
        for number in range(times):
            body = {"lora_name": f"benchmark-{number}", "lora_path": str(market.folder)}
            began = time.perf_counter()
            engine.post("/v1/load_lora_adapter", json=body).raise_for_status()
            took_ms.append((time.perf_counter() - began) * 1000)
            engine.post("/v1/unload_lora_adapter", json={"lora_name": body["lora_name"]}).raise_for_status()
    return took_ms


def measure_deployment(market: RunningMarket, *, times: int) -> dict[str, list[float]]:
    """Return milliseconds from asking to stop and to serve until it is so, on a replica that keeps running."""
    path = f"/api/v1/versions/{market.version['id']}/deploy"
    took_ms: dict[str, list[float]] = {"undeploy": [], "deploy": []}
    for _ in range(times):
        began = time.perf_counter()
        market.factory.delete(path)
        _wait("the adapter to leave the pool", lambda: not _is_loaded(market))
        took_ms["undeploy"].append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        _wait("the deployment to be ready", partial(_is_ready, market, str(market.factory.post(path)["id"])))
        took_ms["deploy"].append((time.perf_counter() - began) * 1000)
    return took_ms


def describe_spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most with one decimal, and how many."""
    return {
        "median": round(statistics.median(values), 1),
        "min": round(min(values), 1),
        "max": round(max(values), 1),
        "n": len(values),
    }


def _is_loaded(market: RunningMarket) -> bool:
    return any(item["digest"] == market.digest and item["ready_on"] for item in read_pool(market)["adapters"])


def _is_ready(market: RunningMarket, deployment_id: str) -> bool:
    found: list[dict[str, Any]] = market.factory.get("/api/v1/deployments")["deployments"]
    state = next((str(item["state"]) for item in found if item["id"] == deployment_id), "gone")
    if state in ("failed", "stopped", "gone"):
        raise NotMeasurableError(f"the deployment of {market.model} became '{state}'; see 'guanmo logs pool'")
    return state == "ready"


def _wait(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        if time.monotonic() > deadline:
            raise NotMeasurableError(f"waited {TIMEOUT_S:.0f} s for {what}; see 'guanmo logs pool'")
        time.sleep(POLL_S)
