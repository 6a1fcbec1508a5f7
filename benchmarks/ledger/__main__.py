"""Measures the ledger's ratios; the last line is one JSON object.

    python -m benchmarks.ledger [--rounds 5] [--seconds 4] [--flush-ms 1.33]

Each round runs pgbench's TPC-B-like script between the cases, so that a busy moment of the machine hits both; a ratio
is taken within its round and the median of the rounds is printed. A disk that flushes in less than `--flush-ms` is made
to take as long, for the yardsticks too (ADR 31); the same with the disk as it was found stands in the last line under
`as_found`. How to read the figures is in NOTES.md.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.ledger import embedded, flushing, ingest, posting
from benchmarks.ledger.cluster import CLIENTS, Cluster, run_cluster
from benchmarks.ledger.crowd import Make, Step, measure_here, measure_rate, measure_threads, with_flush
from benchmarks.running_market import describe_machine
from hub.database import Sessions, open_sessions

KEYS = (
    "transfer",
    "batch50",
    "hot_batched",
    "hot_deadlocks",
    "cap_check",
    "cap_overspend_fen",
    "ingest_vs_copy",
    "ingest_vs_single",
    "sqlite_transfer",
    "sqlite_batch100",
)
FLUSH_MS = 1.33
"""The flush of the machine on which the wanted ratios were set: 750 bare commits a second on SQLite (ADR 31)."""
LARGE_FEN = 10**14
SMALL_FEN = 3_000
Rounds = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, at least 1")
    parser.add_argument("--seconds", type=float, default=4, help="length of each case")
    parser.add_argument("--flush-ms", type=float, default=FLUSH_MS, help="how long a flush takes at least")
    options = parser.parse_args(arguments)
    print(json.dumps({"machine": describe_machine()}), flush=True)
    with run_cluster() as cluster, embedded.open_file() as (embedded_sessions, folder):
        sessions = open_sessions(cluster.url)
        stage = Stage(
            cluster,
            sessions,
            posting.prepare(sessions),
            embedded_sessions,
            posting.prepare(embedded_sessions),
            folder,
            options.seconds,
        )
        found_ms = flushing.measure_ms(folder)
        added_ms = max(0.0, options.flush_ms - found_ms)
        print(f"a flush takes {found_ms:.2f} ms here", flush=True)
        figures = stage.measure(options.rounds, flush_ms=added_ms)
        as_found = stage.measure(max(1, options.rounds // 3)) if added_ms else {}
        figures |= {
            "hot_deadlocks": cluster.count_deadlocks(),
            "cap_overspend_fen": _measure_overspend(cluster, sessions),
        }
        posting.verify(sessions)
        posting.verify(embedded_sessions)
        sessions.close()
    flush = {"flush_found_ms": round(found_ms, 3), "flush_added_ms": round(added_ms, 3)}
    beside = {name: value for name, value in figures.items() if name not in KEYS}
    print(json.dumps({**{name: figures[name] for name in KEYS}, **beside, **flush, "as_found": as_found}))
    return 0


@dataclass(frozen=True)
class Stage:
    """What all cases work on: a server and a file, both filled."""

    cluster: Cluster
    sessions: Sessions
    fixture: posting.Fixture
    file_sessions: Sessions
    file_fixture: posting.Fixture
    folder: Path
    seconds: float

    def measure(self, count: int, *, flush_ms: float = 0) -> dict[str, float]:
        """Return the medians of that many rounds."""
        rounds: Rounds = {}
        print(f"flush longer by {flush_ms:.2f} ms", flush=True)
        self.cluster.set_flush_ms(flush_ms)
        for _ in range(count):
            _measure_server(self.cluster, self.sessions, self.fixture, self.seconds, rounds)
            _measure_file(self, rounds, flush_ms)
        self.cluster.set_flush_ms(0)
        posting.verify(self.sessions)
        posting.verify(self.file_sessions)
        return {name: round(statistics.median(values), 3) for name, values in rounds.items()}


def _measure_server(
    cluster: Cluster, sessions: Sessions, fixture: posting.Fixture, seconds: float, rounds: Rounds
) -> None:
    grant, clearing = posting.open_grant(sessions, LARGE_FEN)
    cases: list[tuple[str, Make]] = [
        ("transfer", lambda own, seed: posting.single_transfers(own, fixture, seed)),
        ("batch50", lambda own, seed: posting.batched_transfers(own, fixture, seed)),
        ("hot_batched", lambda own, seed: posting.hot_transfers(own, fixture, seed)),
        ("cap_check_processes", lambda own, seed: posting.capped_holds(own, grant, clearing)),
    ]
    run: Callable[[Make], float] = partial(_run, cluster.url, seconds)
    threads = partial(measure_threads, threads=CLIENTS, seconds=seconds)
    holds = posting.capped_holds(sessions, grant, clearing)
    works = posting.capped_holds(sessions, grant, clearing, posting.make_closed_work)
    whole, bare = posting.write_capped_script(grant, clearing), posting.write_statement_script(sessions)
    measures: list[tuple[str, Callable[[], float]]] = [
        *((name, partial(run, make)) for name, make in cases),
        ("cap_check", partial(threads, holds)),
        ("cap_check_works", partial(threads, works)),
        ("cap_check_pgbench", partial(cluster.measure_script, whole, seconds)),
        ("cap_check_statement", partial(cluster.measure_script, bare, seconds)),
    ]
    before = cluster.measure_tpcb(seconds)
    for name, measure in measures:
        rate = measure()
        after = cluster.measure_tpcb(seconds)
        _keep(rounds, name, rate, (before + after) / 2, "tpcb")
        before = after
    copied, accepted, single = run(ingest.copy_batches), run(ingest.accept_batches), run(ingest.insert_singly)
    copied_again = run(ingest.copy_batches)
    _keep(rounds, "ingest_vs_copy", accepted, (copied + copied_again) / 2, "copy")
    _keep(rounds, "ingest_vs_single", accepted, single, "single")


def _measure_file(stage: Stage, rounds: Rounds, flush_ms: float) -> None:
    def run(step: Step) -> float:
        return measure_here(with_flush(step, flush_ms), seconds=stage.seconds)

    bare = embedded.bare_inserts(stage.folder)
    before = run(bare)
    transfer = run(posting.single_transfers(stage.file_sessions, stage.file_fixture, 1))
    batched = run(posting.hot_transfers(stage.file_sessions, stage.file_fixture, 1))
    base = (before + run(bare)) / 2
    _keep(rounds, "sqlite_transfer", transfer, base, "bare")
    _keep(rounds, "sqlite_batch100", batched, base, "bare")


def _measure_overspend(cluster: Cluster, sessions: Sessions) -> int:
    grant, clearing = posting.open_grant(sessions, SMALL_FEN)
    _run(cluster.url, 2, lambda own, seed: posting.capped_holds(own, grant, clearing))
    return posting.count_overspend(sessions, grant)


def _run(url: str, seconds: float, make: Make) -> float:
    return measure_rate(url, make, seconds=seconds, processes=CLIENTS)


def _keep(rounds: Rounds, name: str, rate: float, base: float, base_name: str) -> None:
    rounds.setdefault(name, []).append(rate / base)
    print(f"{name:18} {rate:10.0f}/s  {base_name} {base:9.0f}/s  ratio {rate / base:.3f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
