"""Finds what is to be measured on the marketplace that `make demo DETACH=1` left running.

It leaves measuring to the modules beside it.
"""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from examples import steps
from examples.entry import read_market
from examples.hub_client import Hub
from finetune.artifact import read_processor
from serving.contract import engine_name

ROOT = Path(__file__).resolve().parent.parent


class NotMeasurableError(Exception):
    """What is to be measured is not there; the message names the next step."""


@dataclass(frozen=True)
class RunningMarket:
    """Addresses, the factory's view of the hub, and its newest fine-tuned version."""

    home: Path
    gateway: str
    pool: str
    key: str
    factory: Hub
    run: dict[str, Any]
    version: dict[str, Any]

    @property
    def digest(self) -> str:
        """Digest of the adapter's artefact."""
        return str(self.run["artifact_digest"])

    @property
    def model(self) -> str:
        """The adapter's name in the gateway."""
        return str(self.version["name"])

    @property
    def engine_model(self) -> str:
        """The adapter's name in the engine."""
        return engine_name(self.digest)

    @property
    def folder(self) -> Path:
        """The adapter's files."""
        return self.home / "artifacts" / self.digest


def find_market(home: Path, pool: str) -> RunningMarket:
    """Return the running marketplace.

    Raises:
        NotMeasurableError: nothing runs, or no fine-tune has finished on it.
    """
    try:
        market = read_market(home)
        factory = steps.sign_in(market.hub, market.home, "factory")
    except FileNotFoundError as error:
        raise NotMeasurableError(str(error)) from error
    except httpx.TransportError as error:
        raise NotMeasurableError(f"nothing answers at {market.hub}; run 'make demo DETACH=1' first") from error
    runs = [run for run in factory.get("/api/v1/runs")["runs"] if run["version_id"] and run["accept_to_first_step_ms"]]
    if not runs:
        raise NotMeasurableError("no fine-tune has finished here; run 'make demo DETACH=1' first")
    newest = max(runs, key=lambda run: str(run["accepted_at"]))
    version = factory.get(f"/api/v1/versions/{newest['version_id']}")
    return RunningMarket(home.absolute(), market.gateway, pool, read_key(home), factory, newest, version)


def find_replica(market: RunningMarket) -> str:
    """Return the address of a vLLM replica on which the adapter answers.

    Raises:
        NotMeasurableError: the pool is silent or the adapter is on no replica.
    """
    status = read_pool(market)
    ready = {name for item in status["adapters"] if item["digest"] == market.digest for name in item["ready_on"]}
    for replica in status["replicas"]:
        if replica["replica_id"] in ready:
            return str(replica["url"])
    raise NotMeasurableError(f"{market.model} is loaded on no replica; deploy it first")


def read_pool(market: RunningMarket) -> dict[str, Any]:
    """Return the pool's status. Raises: NotMeasurableError."""
    try:
        found: dict[str, Any] = httpx.get(f"{market.pool}/status", timeout=10).raise_for_status().json()
    except httpx.HTTPError as error:
        raise NotMeasurableError(f"the pool at {market.pool} does not answer ({error}); give --pool URL") from error
    return found


def read_key(home: Path) -> str:
    """Return the factory's API key that the demonstration made."""
    lines = (home / "demo.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["OPENAI_API_KEY"]


def describe_machine() -> dict[str, Any]:
    """Return what a figure means nothing without: date, commit, processor, cores, load before measuring."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "processor": read_processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_1_min": round(os.getloadavg()[0], 2),
    }
