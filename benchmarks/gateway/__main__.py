"""Compares our gateway with the way straight to the engine and with LiteLLM; the last line is one JSON object.

    make bench-gateway        (python -m benchmarks.gateway [--rounds 5] [--seconds 3])

All take turns in every round before the same fake engine; each figure is the median over the rounds. How to read the
figures is in ../NOTES.md under "Gateway".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.contenders import Contender, Cores, started
from benchmarks.gateway.litellm_setup import install_litellm
from benchmarks.running_market import describe_machine

LEAST_ROUNDS = 5
Runs = dict[tuple[str, str], list[dict[str, float]]]


@dataclass(frozen=True)
class Scenario:
    """One kind of load and who takes part."""

    name: str
    at_once: int
    stream: bool
    contenders: tuple[str, ...]
    max_tokens: int = 64
    usage: bool = False


SCENARIOS = (
    Scenario("json_c1", 1, False, ("direct", "ours", "litellm")),
    Scenario("json_c16", 16, False, ("direct", "ours")),
    Scenario("json_c64", 64, False, ("direct", "ours", "ours_unmetered", "litellm")),
    Scenario("stream_c64", 64, True, ("direct", "ours")),
    Scenario("stream_c256", 256, True, ("direct", "ours")),
    # Beside the keys: an engine that answers requests of one token at once, so that only what stands before it is
    # measured, and clients that ask for the usage of a stream.
    Scenario("json_c1_at_once", 1, False, ("direct", "ours", "litellm"), max_tokens=1),
    Scenario("json_c64_at_once", 64, False, ("ours", "litellm"), max_tokens=1),
    Scenario("stream_c64_usage", 64, True, ("direct", "ours"), usage=True),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 0, or 1 when an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help=f"at least {LEAST_ROUNDS}")
    parser.add_argument("--seconds", type=float, default=3.0, help="counted seconds of each run")
    parser.add_argument("--venv", type=Path, default=Path("var/bench/litellm"), help="where LiteLLM is installed")
    parser.add_argument("--only", default="", help="the scenario to run, for tuning")
    options = parser.parse_args(arguments)
    if options.rounds < LEAST_ROUNDS and not options.only:
        parser.error(f"--rounds is {options.rounds}, at least {LEAST_ROUNDS}")
    litellm, cores, machine = install_litellm(options.venv), Cores.of_machine(), describe_machine()
    scenarios = [one for one in SCENARIOS if options.only in ("", one.name)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started(Path(folder), cores, litellm=litellm) as contenders,
    ):
        runs: Runs = defaultdict(list)
        for number in range(options.rounds):
            for scenario in scenarios:
                measure_scenario(scenario, contenders, runs, cores=cores, seconds=options.seconds, number=number)
        memory = {name: round(one.rss_mib(), 1) for name, one in contenders.items()}
    figures = {"machine": machine, "cores": vars(cores), "rss_mib": memory, **report(runs)}
    if not options.only:
        figures |= compare(runs, memory)
    print(json.dumps(figures))
    return 1 if any(run["errors"] for (name, _), taken in runs.items() for run in taken if name != "litellm") else 0


def measure_scenario(
    scenario: Scenario, contenders: dict[str, Contender], runs: Runs, *, cores: Cores, seconds: float, number: int
) -> None:
    """Let every contender of a scenario run once; who begins alternates."""
    order = scenario.contenders if number % 2 == 0 else scenario.contenders[::-1]
    for name in order:
        run = measure(contenders[name], scenario, core=cores.client, seconds=seconds)
        runs[name, scenario.name].append(run)
        rounded = {key: round(value, 2) for key, value in run.items()}
        print(f"{number} {scenario.name:12} {name:15} {json.dumps(rounded)}", flush=True)


def measure(contender: Contender, scenario: Scenario, *, core: int, seconds: float) -> dict[str, float]:
    """Run the load client once, in its own process on its own core."""
    asked: dict[str, Any] = {"port": contender.port, "model": contender.model, "key": contender.key}
    asked |= {"at_once": scenario.at_once, "stream": scenario.stream, "seconds": seconds}
    asked |= {"max_tokens": scenario.max_tokens, "usage": scenario.usage}
    argv = ["taskset", "-c", str(core), sys.executable, "-m", "benchmarks.gateway.load", json.dumps(asked)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(ended.stdout)
    return measured


def report(runs: Runs) -> dict[str, Any]:
    """Return the median of each measured value."""
    return {
        f"{scenario}_{name}": {key: round(_median(taken, key), 2) for key in taken[0]}
        for (name, scenario), taken in runs.items()
    }


def compare(runs: Runs, memory: dict[str, float]) -> dict[str, float]:
    """Return the ratios; each is a ratio of medians over the same rounds."""

    def median(name: str, scenario: str, key: str = "rps") -> float:
        return _median(runs[name, scenario], key)

    def ratio(scenario: str, key: str) -> float:
        return round(median("ours", scenario, key) / median("direct", scenario, key), 3)

    def added_ratio(scenario: str) -> float:
        direct_ms = median("direct", scenario, "p50_ms")
        ours_ms, litellm_ms = (median(name, scenario, "p50_ms") - direct_ms for name in ("ours", "litellm"))
        return round(ours_ms / litellm_ms, 5)

    return {
        "json_c16": ratio("json_c16", "rps"),
        "json_c64": ratio("json_c64", "rps"),
        "stream_c64": ratio("stream_c64", "events_per_s"),
        "stream_c256": ratio("stream_c256", "events_per_s"),
        "added_p50_vs_litellm": added_ratio("json_c1"),
        "json_rps_vs_litellm": round(median("ours", "json_c64") / median("litellm", "json_c64"), 1),
        "journal_on_off": round(median("ours", "json_c64") / median("ours_unmetered", "json_c64"), 3),
        "rss_vs_litellm": round(memory["ours"] / memory["litellm"], 4),
        "added_p50_vs_litellm_at_once": added_ratio("json_c1_at_once"),
        "json_rps_vs_litellm_at_once": round(
            median("ours", "json_c64_at_once") / median("litellm", "json_c64_at_once"), 1
        ),
        "stream_c64_usage": ratio("stream_c64_usage", "events_per_s"),
    }


def _median(taken: list[dict[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in taken)


if __name__ == "__main__":
    raise SystemExit(main())
