"""`guanmo top`: replicas, adapters, queues and tokens a second of this installation, live.

The numbers are the gateway's and the pool controller's own; how they are counted is left to them.
"""

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from hub.errors import GuanmoError
from hub.settings import Settings, read_settings

_TIMEOUT_S = 5.0
_WHOLE = ("calls_total", "running", "waiting")


class NotRunningError(GuanmoError):
    """Nobody answers at the operator's door."""

    code = "gateway_not_running"


@dataclass(frozen=True)
class Look:
    """What gateway and pool said at one moment; `samples` are name, labels, value."""

    at_s: float
    samples: list[dict[str, Any]]
    pool: dict[str, Any]

    def sums(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the sum of a series by some of its labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for sample in self.samples:
            if sample["name"] == name:
                found[tuple(sample["labels"].get(label, "") for label in labels)] += sample["value"]
        return found


def show(
    every_s: Annotated[float, typer.Option(min=0.2, help="seconds between two looks")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="print once and end")] = False,
) -> None:
    """Show replicas, adapters, queues and tokens a second until Ctrl-C."""
    settings = read_settings(os.environ)
    before = look(settings)
    time.sleep(min(every_s, 1.0))
    now = look(settings)
    if once:
        Console().print(draw(before, now))
        return
    with Live(draw(before, now), auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            before, now = now, look(settings)
            live.update(draw(before, now), refresh=True)


def look(settings: Settings) -> Look:
    """Ask gateway and pool. Raises: NotRunningError."""
    load = _ask(f"http://127.0.0.1:{settings.gateway_admin_port}/load")
    pool = _ask(f"http://127.0.0.1:{settings.pool_port}/status")
    return Look(time.monotonic(), load["samples"], pool)


def draw(before: Look, now: Look) -> Group:
    """Return the tables of one moment; rates are between the two looks."""
    return Group(_draw_replicas(now), _draw_adapters(before, now), _summary(now))


def _draw_replicas(now: Look) -> Table:
    table = Table("replica", "state", "calls", title="replicas / 副本")
    running = now.sums("replica_running", "replica")
    for replica in now.pool.get("replicas", ()):
        name = str(replica.get("replica_id", ""))
        table.add_row(name, str(replica.get("state", "")), f"{running[name,]:.0f}")
    return table


def _draw_adapters(before: Look, now: Look) -> Table:
    title = "adapters and bases / 适配器与基座"
    table = Table("base", "adapter", "running", "waiting", "queue s", "tokens/s", "calls", title=title)
    keys = ("base", "adapter")
    took_s = max(0.001, now.at_s - before.at_s)
    tokens, tokens_before = (one.sums("tokens_total", *keys, "kind") for one in (now, before))
    calls, running, waiting = (now.sums(name, *keys) for name in _WHOLE)
    wait_s = now.sums("queue_wait_seconds", *keys)
    for name in sorted({*calls, *running, *waiting}):
        made = tokens[*name, "completion"] - tokens_before[*name, "completion"]
        numbers = (f"{running[name]:.0f}", f"{waiting[name]:.0f}", f"{wait_s[name]:.1f}", f"{made / took_s:.0f}")
        table.add_row(*name, *numbers, f"{calls[name]:.0f}")
    return table


def _summary(now: Look) -> str:
    turns, connections, unsent = (
        sum(now.sums(name).values()) for name in ("turns_waiting", "connections", "unsent_records")
    )
    return (
        f"waiting for a turn / 排队: {turns:.0f} · connections / 连接: {connections:.0f} · "
        f"records to send / 待上报用量: {unsent:.0f}"
    )


def _ask(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(url, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        text = f"{url} does not answer ({type(error).__name__}); start everything with 'guanmo up'"
        raise NotRunningError(text, f"{url} 没有应答；请先运行 guanmo up") from error
    found: dict[str, Any] = answer.json()
    return found
