"""How long from promoting a version to the first token of it, on real vLLM: `python -m benchmarks.pool_promote`.

Every promotion goes the whole way: hub, the gateways' snapshot, the router, the engine. The last line is JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx

TIMES = 100
_GIVE_UP_S = 30.0


class Market(Protocol):
    """A marketplace with at least two versions of one name; `tests.rollouts.market` makes a private one."""

    versions: list[str]

    def start_rollout(self, number: int, percent: int = 5) -> str:
        """Start a rollout of a version and wait until it runs; returns its id."""

    def call(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """Call the hub as the owner."""

    def ask(self, client: httpx.Client) -> tuple[str, int]:
        """Ask for a stream; returns the version that answered, after its first token, and the status."""


def measure_promotions(market: Market, *, times: int = TIMES) -> list[float]:
    """Promote the first two versions in turn; returns seconds from each call to the first token of what it promoted."""
    took_s = []
    with httpx.Client(timeout=_GIVE_UP_S) as client:
        current = _ask_for_stable(market, client)
        for _ in range(times):
            current = 1 if current == 0 else 0
            rollout_id = market.start_rollout(current)
            began_s = time.perf_counter()
            market.call("POST", f"rollouts/{rollout_id}/promote")
            _wait_for_version(market, client, market.versions[current], began_s)
            took_s.append(time.perf_counter() - began_s)
    return took_s


def summarise(took_s: Sequence[float]) -> dict[str, float]:
    """Return median and 99th percentile in seconds and how many; JSON key `promote_p99_s` of the pool's bench."""
    ordered = sorted(took_s)
    p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return {"promote_p50_s": round(statistics.median(ordered), 4), "promote_p99_s": round(p99, 4), "n": len(ordered)}


def main(arguments: Sequence[str]) -> int:
    """Measure on a private marketplace; 0 when the 99th percentile is within 2 s."""
    from tests.pool.tiny_models import make_tiny_models
    from tests.rollouts.market import running_market

    parser = argparse.ArgumentParser(prog="python -m benchmarks.pool_promote", description=__doc__)
    parser.add_argument("--times", type=int, default=TIMES, help="promotions to measure")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="guanmo-promote-") as folder:
        home = Path(folder)
        models = make_tiny_models(home / "models", adapters=2)
        with running_market(models, home) as market:
            found = summarise(measure_promotions(market, times=options.times))
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if found["promote_p99_s"] <= 2.0 else 1


def _ask_for_stable(market: Market, client: httpx.Client) -> int:
    """Return which of the first two versions answers; another one taken back just now may answer for a moment yet."""
    began_s = time.perf_counter()
    while (version_id := market.ask(client)[0]) not in market.versions[:2]:
        if time.perf_counter() - began_s > _GIVE_UP_S:
            raise TimeoutError(f"{version_id or 'nothing'} answers for the name, neither of its first two versions")
    return market.versions.index(version_id)


def _wait_for_version(market: Market, client: httpx.Client, version_id: str, began_s: float) -> None:
    while market.ask(client)[0] != version_id:
        if time.perf_counter() - began_s > _GIVE_UP_S:
            raise TimeoutError(f"{version_id} did not answer within {_GIVE_UP_S:g} s of its promotion")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
