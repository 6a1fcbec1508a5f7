"""What the processes of this gateway count, as Prometheus reads it: calls, tokens, times, refusals, load.

Labels come from bounded sets (surfaces, our own codes, the adapters of the snapshot up to a number), never from what a
client wrote. Each process leaves its counts in a folder that all share, and goes on from there after a restart, so that
whoever is asked can add them up and no counter ever falls. Serving them is left to `admin`.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.contract import EndReason
from serving.gateway.access import Target
from serving.gateway.errors import GatewayError

MAX_ADAPTERS = 256
OTHER = "other"
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
# A process that has not written for this long does not run; its gauges are over, its counters stay.
_GONE_AFTER_S = 5.0
_PREFIX = "guanmo_gateway_"
FAMILIES = {
    "calls_total": ("counter", "Calls that ended, by how they ended."),
    "tokens_total": ("counter", "Tokens that engines reported."),
    "refusals_total": ("counter", "Answers that are errors, by code."),
    "first_token_seconds": ("histogram", "From the admission of a call to its first token."),
    "call_seconds": ("histogram", "From the admission of a call to its end."),
    "running": ("gauge", "Calls that an engine works on."),
    "waiting": ("gauge", "Calls that wait for a replica."),
    "queue_wait_seconds": ("gauge", "How long the call that has waited longest for a replica has waited."),
    "tokens_per_second": ("gauge", "Generated tokens a second, averaged over some seconds."),
    "turns_waiting": ("gauge", "Calls that wait for their turn on a busy replica."),
    "replica_running": ("gauge", "Calls on a replica."),
    "connections": ("gauge", "Open client connections."),
    "unsent_records": ("gauge", "Usage records that the hub does not have yet."),
    "snapshot_age_seconds": ("gauge", "How long ago the hub was last heard, by process."),
}
_KINDS = ("prompt", "cached", "completion")
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Sample:
    """One value of one series; `name` has a histogram's suffix."""

    name: str
    labels: Labels
    value: float


class _Times:
    """A histogram: how many values fell between two bounds, and their sum."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(BUCKETS_S, value_s)] += 1
        self.total_s += value_s

    def samples(self, name: str, labels: Labels) -> Iterator[Sample]:
        below = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self.counts, strict=True):
            below += count
            yield Sample(f"{name}_bucket", (*labels, ("le", bound)), below)
        yield Sample(f"{name}_sum", labels, self.total_s)
        yield Sample(f"{name}_count", labels, below)


class _Adapter:
    """What is counted of one adapter; cheap to count, made into series when they are written."""

    __slots__ = ("call_seconds", "ends", "first_token_seconds", "tokens")

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, EndReason]] = Counter()
        self.tokens = [0, 0, 0]
        self.call_seconds = _Times()
        self.first_token_seconds = _Times()

    def samples(self, labels: Labels) -> Iterator[Sample]:
        for (surface, reason), count in self.ends.items():
            yield Sample("calls_total", (("surface", surface), *labels, ("end", reason.value)), count)
        for kind, amount in zip(_KINDS, self.tokens, strict=True):
            yield Sample("tokens_total", (*labels, ("kind", kind)), amount)
        yield from self.call_seconds.samples("call_seconds", labels)
        yield from self.first_token_seconds.samples("first_token_seconds", labels)


class Metrics:
    """The counters of this process, kept in `folder` under the number of its `seat`."""

    def __init__(self, folder: Path, seat: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / f"{seat}.json"
        self._labels: dict[tuple[str, str], Labels] = {}
        self._adapters: dict[Labels, _Adapter] = {}
        self._refusals: Counter[tuple[str, int]] = Counter()
        self._inherited = [sample for sample in _read(self._path) if _kind_of(sample.name) != "gauge"]

    def adapter_labels(self, target: Target) -> Labels:
        """Return the labels of what answers a call: base and adapter by digest, `other` beyond the first 256."""
        return self.labels_of(target.model.base_digest, target.engine_name)

    def labels_of(self, base_digest: str, engine_name: str) -> Labels:
        """Return the labels of an artifact by its base and the name that engines know it by."""
        name = (base_digest, engine_name)
        found = self._labels.get(name)
        if found is None:
            if len(self._labels) >= MAX_ADAPTERS:
                return (("base", OTHER), ("adapter", OTHER))
            found = self._labels[name] = (("base", base_digest[:12]), ("adapter", engine_name))
        return found

    def ended(
        self, surface: str, labels: Labels, reason: EndReason, *, tokens: tuple[int, int, int], took_s: float
    ) -> None:
        """Count a call with its prompt, cached and completion tokens."""
        counted = self._of(labels)
        counted.ends[surface, reason] += 1
        total = counted.tokens
        total[0], total[1], total[2] = total[0] + tokens[0], total[1] + tokens[1], total[2] + tokens[2]
        counted.call_seconds.add(took_s)

    def first_token(self, labels: Labels, took_s: float) -> None:
        """Count the time to a first token."""
        self._of(labels).first_token_seconds.add(took_s)

    def refused(self, error: GatewayError) -> None:
        """Count an error that a client got."""
        self._refusals[error.code, error.status] += 1

    def completion_tokens(self) -> dict[Labels, int]:
        """Return the generated tokens of this process by adapter."""
        return {labels: counted.tokens[2] for labels, counted in self._adapters.items()}

    def write(self, gauges: Iterable[Sample]) -> None:
        """Leave counters and gauges where the other processes find them."""
        rows = [[sample.name, sample.labels, sample.value] for sample in (*_add_up(self._samples()), *gauges)]
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(rows))
        fresh.replace(self._path)

    def collect(self) -> list[Sample]:
        """Return what all processes count, added up."""
        found: list[Sample] = []
        for path in sorted(self._folder.glob("*.json")):
            running = time.time() - path.stat().st_mtime < _GONE_AFTER_S
            found += [sample for sample in _read(path) if running or _kind_of(sample.name) != "gauge"]
        return _add_up(found)

    def _of(self, labels: Labels) -> _Adapter:
        counted = self._adapters.get(labels)
        if counted is None:
            counted = self._adapters[labels] = _Adapter()
        return counted

    def _samples(self) -> Iterator[Sample]:
        yield from self._inherited
        for labels, counted in self._adapters.items():
            yield from counted.samples(labels)
        for (code, status), count in self._refusals.items():
            yield Sample("refusals_total", (("code", code), ("status", str(status))), count)


def _add_up(samples: Iterable[Sample]) -> list[Sample]:
    total: dict[tuple[str, Labels], float] = {}
    for sample in samples:
        series = (sample.name, sample.labels)
        total[series] = total.get(series, 0) + sample.value
    return [Sample(name, labels, value) for (name, labels), value in total.items()]


def render(samples: Iterable[Sample]) -> bytes:
    """Return samples in Prometheus' text format 0.0.4."""
    by_family: dict[str, list[Sample]] = {}
    for sample in samples:
        by_family.setdefault(_family_of(sample.name), []).append(sample)
    lines = []
    for family, (kind, text) in FAMILIES.items():
        lines += [f"# HELP {_PREFIX}{family} {text}", f"# TYPE {_PREFIX}{family} {kind}"]
        lines += map(_line, sorted(by_family.get(family, ()), key=_order))
    return ("\n".join(lines) + "\n").encode()


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escape(value)}"' for name, value in sample.labels)
    return f"{_PREFIX}{sample.name}{'{' + labels + '}' if labels else ''} {sample.value:.10g}"


def _order(sample: Sample) -> tuple[Labels, str, float]:
    bound = dict(sample.labels).get("le")
    return (tuple(pair for pair in sample.labels if pair[0] != "le"), sample.name, float(bound or 0))


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family_of(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        if name.removesuffix(suffix) in FAMILIES:
            return name.removesuffix(suffix)
    return name


def _kind_of(name: str) -> str:
    return FAMILIES.get(_family_of(name), ("gauge", ""))[0]


def _read(path: Path) -> list[Sample]:
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError:
        return []
    return [Sample(name, tuple((key, text) for key, text in labels), value) for name, labels, value in rows]
