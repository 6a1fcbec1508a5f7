"""Measures the ledger's ratios; the last line is one JSON object.

    python -m benchmarks.ledger [--rounds 5] [--seconds 4]

Each round runs pgbench's TPC-B-like script between the cases, so that a busy moment of the machine hits both; a ratio
is taken within its round and the median of the rounds is printed. How to read the figures is in NOTES.md.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.ledger import embedded, ingest, posting
from benchmarks.ledger.cluster import CLIENTS, Cluster, run_cluster
from benchmarks.ledger.crowd import Make, measure_here, measure_rate
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
LARGE_FEN = 10**14
SMALL_FEN = 3_000
Rounds = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, at least 1")
    parser.add_argument("--seconds", type=float, default=4, help="length of each case")
    options = parser.parse_args(arguments)
    print(json.dumps({"machine": describe_machine()}), flush=True)
    rounds: Rounds = {}
    with run_cluster() as cluster, embedded.open_file() as (embedded_sessions, folder):
        sessions = open_sessions(cluster.url)
        fixture, small = posting.prepare(sessions), posting.prepare(embedded_sessions)
        for _ in range(options.rounds):
            _measure_server(cluster, sessions, fixture, options.seconds, rounds)
            _measure_file(embedded_sessions, small, folder, options.seconds, rounds)
        figures = {name: round(statistics.median(values), 3) for name, values in rounds.items()}
        figures |= {
            "hot_deadlocks": cluster.count_deadlocks(),
            "cap_overspend_fen": _measure_overspend(cluster, sessions),
        }
        posting.verify(sessions)
        posting.verify(embedded_sessions)
        sessions.close()
    print(json.dumps({name: figures[name] for name in KEYS}))
    return 0


def _measure_server(
    cluster: Cluster, sessions: Sessions, fixture: posting.Fixture, seconds: float, rounds: Rounds
) -> None:
    grant, clearing = posting.open_grant(sessions, LARGE_FEN)
    cases: list[tuple[str, Make]] = [
        ("transfer", lambda own, seed: posting.single_transfers(own, fixture, seed)),
        ("batch50", lambda own, seed: posting.batched_transfers(own, fixture, seed)),
        ("hot_batched", lambda own, seed: posting.hot_transfers(own, fixture, seed)),
        ("cap_check", lambda own, seed: posting.capped_holds(own, grant, clearing, seed)),
    ]
    run: Callable[[Make], float] = partial(_run, cluster.url, seconds)
    before = cluster.measure_tpcb(seconds)
    for name, make in cases:
        rate = run(make)
        after = cluster.measure_tpcb(seconds)
        _keep(rounds, name, rate, (before + after) / 2, "tpcb")
        before = after
    copied, accepted, single = run(ingest.copy_batches), run(ingest.accept_batches), run(ingest.insert_singly)
    copied_again = run(ingest.copy_batches)
    _keep(rounds, "ingest_vs_copy", accepted, (copied + copied_again) / 2, "copy")
    _keep(rounds, "ingest_vs_single", accepted, single, "single")


def _measure_file(sessions: Sessions, fixture: posting.Fixture, folder: Any, seconds: float, rounds: Rounds) -> None:
    bare = embedded.bare_inserts(folder)
    before = measure_here(bare, seconds=seconds)
    transfer = measure_here(posting.single_transfers(sessions, fixture, 1), seconds=seconds)
    batched = measure_here(posting.hot_transfers(sessions, fixture, 1), seconds=seconds)
    base = (before + measure_here(bare, seconds=seconds)) / 2
    _keep(rounds, "sqlite_transfer", transfer, base, "bare")
    _keep(rounds, "sqlite_batch100", batched, base, "bare")


def _measure_overspend(cluster: Cluster, sessions: Sessions) -> int:
    grant, clearing = posting.open_grant(sessions, SMALL_FEN)
    _run(cluster.url, 2, lambda own, seed: posting.capped_holds(own, grant, clearing, seed))
    return posting.count_overspend(sessions, grant)


def _run(url: str, seconds: float, make: Make) -> float:
    return measure_rate(url, make, seconds=seconds, processes=CLIENTS)


def _keep(rounds: Rounds, name: str, rate: float, base: float, base_name: str) -> None:
    rounds.setdefault(name, []).append(rate / base)
    print(f"{name:18} {rate:10.0f}/s  {base_name} {base:9.0f}/s  ratio {rate / base:.3f}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
