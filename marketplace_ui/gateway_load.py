"""What the gateway of this machine says of its load, for the operator's page; counting is left to the gateway."""

from dataclasses import dataclass, field
from typing import Any

import httpx

from hub.settings import Settings

_TIMEOUT_S = 1.0
_SERIES = {"running": "running", "waiting": "waiting", "queue_wait_seconds": "wait_s", "tokens_per_second": "tokens_s"}


@dataclass
class AdapterLoad:
    """One base or adapter by digest: calls running and waiting, the longest wait, generated tokens a second."""

    base: str
    adapter: str
    running: float = 0.0
    waiting: float = 0.0
    wait_s: float = 0.0
    tokens_s: float = 0.0


@dataclass
class Load:
    """Everything at one moment; `replicas` are calls by replica id."""

    replicas: dict[str, int] = field(default_factory=dict)
    adapters: dict[tuple[str, str], AdapterLoad] = field(default_factory=dict)
    turns_waiting: int = 0


def read_load(settings: Settings) -> Load | None:
    """Return the load, or None where no gateway of this machine answers."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{settings.gateway_admin_port}/load", timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPError:
        return None
    return _sum_up(answer.json()["samples"])


def _sum_up(samples: list[dict[str, Any]]) -> Load:
    load = Load()
    for sample in samples:
        name, labels, value = sample["name"], sample["labels"], sample["value"]
        if name == "replica_running":
            load.replicas[labels["replica"]] = int(value)
        elif name == "turns_waiting":
            load.turns_waiting += int(value)
        elif name in _SERIES:
            where = (labels["base"], labels["adapter"])
            row = load.adapters.setdefault(where, AdapterLoad(*where))
            setattr(row, _SERIES[name], getattr(row, _SERIES[name]) + value)
    return load
