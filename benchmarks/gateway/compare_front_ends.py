"""Compares servers and engine clients around the same core by the processor time that each request costs.

    PYTHONPATH=…/granian python -m benchmarks.gateway.compare_front_ends [--rounds 5]

Processor time, unlike a rate, is hardly moved by what else the machine does. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import psutil

from benchmarks.gateway.__main__ import Scenario, measure
from benchmarks.gateway.contenders import Contender, Cores, started_variant, started_world
from benchmarks.running_market import describe_machine

VARIANTS = ("own-own", "granian-own", "aiohttp-own", "uvicorn-own", "own-aiohttp", "uvicorn-aiohttp")
LOADS = (Scenario("json_c64", 64, False, ()), Scenario("stream_c64", 64, True, ()))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.compare_front_ends", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    cores, machine = Cores.of_machine(), describe_machine()
    costs: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        hub, _ = started_world(stack, Path(folder), cores)
        for number in range(options.rounds):
            for variant in VARIANTS if number % 2 == 0 else VARIANTS[::-1]:
                with started_variant(Path(folder) / f"{variant}-{number}", cores, variant, hub=hub) as one:
                    for load in LOADS:
                        cost_us = measure_cost(one, load, core=cores.client, seconds=options.seconds)
                        costs[f"{variant} {load.name}"].append(cost_us)
                        print(f"{number} {load.name:12} {variant:16} {cost_us:8.1f}", flush=True)
    figures = {name: round(statistics.median(values), 1) for name, values in sorted(costs.items())}
    print(json.dumps({"machine": machine, "processor_us": figures}))
    return 0


def measure_cost(one: Contender, load: Scenario, *, core: int, seconds: float) -> float:
    """Return processor microseconds a request, for a stream a chunk, of the whole run."""
    if one.process is None:
        raise ValueError(f"{one.name} is no process of ours")
    process = psutil.Process(one.process.pid)
    before = process.cpu_times()
    run = measure(one, load, core=core, seconds=seconds)
    after = process.cpu_times()
    if run["errors"]:
        sys.stderr.write(f"{one.name}: {run['errors']:.0f} errors\n")
    used_s = after.user + after.system - before.user - before.system
    return 1e6 * used_s / max(1.0, run["all_events"] if load.stream else run["all_answers"])


if __name__ == "__main__":
    raise SystemExit(main())
