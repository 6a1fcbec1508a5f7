"""Takes the state of a gateway's parts as gauges, once a second.

Counting what happened is left to `metrics`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from serving.contract import BASE_ENGINE_NAME, engine_name
from serving.gateway.fair_share import FairShare
from serving.gateway.journal_file import Journal
from serving.gateway.metrics import Labels, Metrics, Sample
from serving.gateway.routing import Router
from serving.gateway.view import CurrentView

_AVERAGED_S = 5.0


@dataclass
class Gauges:
    """The parts that are looked at; `connections` counts the client connections of this process."""

    metrics: Metrics
    router: Router
    fair_share: FairShare
    journal: Journal
    current: CurrentView
    seat: int
    connections: Callable[[], int]
    _looked_at_s: float = field(default_factory=time.monotonic)
    _tokens: dict[Labels, int] = field(default_factory=dict)
    _rates: dict[Labels, float] = field(default_factory=dict)

    async def write(self) -> None:
        """Leave counters and gauges where the other processes find them."""
        self.metrics.write(self._look())

    def _look(self) -> Iterator[Sample]:
        self._update_rates(time.monotonic())
        for labels, rate in self._rates.items():
            yield Sample("tokens_per_second", labels, round(rate, 1))
        process = (("process", str(self.seat)),)
        yield Sample("connections", (), self.connections())
        yield Sample("turns_waiting", (), self.fair_share.waiting)
        yield Sample("unsent_records", (), len(self.journal.state.unsent))
        yield Sample("snapshot_age_seconds", process, round(self.current.age_s, 3))
        for replica_id, count in self.router.on_replicas():
            yield Sample("replica_running", (("replica", replica_id),), count)
        bases = self.router.base_of
        for row in self.router.demand():
            base = bases.get(row.digest, row.digest)
            name = BASE_ENGINE_NAME if base == row.digest else engine_name(row.digest)
            labels = self.metrics.labels_of(base, name)
            yield Sample("running", labels, row.in_flight)
            yield Sample("waiting", labels, row.queued)
            yield Sample("queue_wait_seconds", labels, row.queue_wait_ms / 1000)

    def _update_rates(self, now_s: float) -> None:
        """Average the tokens that calls reported at their end; a call's tokens count when it ends."""
        took_s, self._looked_at_s = max(0.001, now_s - self._looked_at_s), now_s
        tokens = self.metrics.completion_tokens()
        for labels, count in tokens.items():
            rate = (count - self._tokens.get(labels, count)) / took_s
            before = self._rates.get(labels, 0.0)
            self._rates[labels] = before + (rate - before) * min(1.0, took_s / _AVERAGED_S)
        self._tokens = tokens
