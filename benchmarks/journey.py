"""Measures the journey's figures on a running marketplace; the last line is one JSON object.

    make demo DETACH=1 && python -m benchmarks.journey [--home var]

How to read the figures is in NOTES.md; it leaves the times of `make demo` itself to `benchmarks.demo_times`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import httpx

from benchmarks.answers import Door, measure_first_token, measure_throughput
from benchmarks.hot_load import describe_spread, measure_deployment, measure_load_call
from benchmarks.running_market import NotMeasurableError, RunningMarket, describe_machine, find_market, find_replica
from examples.hub_client import RefusedError

LEAST_TIMES = 30


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 0, or 1 after one line that says what was missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journey", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("var"), help="folder of the installation")
    parser.add_argument("--pool", default="http://127.0.0.1:8090", help="address of the pool controller")
    parser.add_argument("--times", type=int, default=40, help=f"calls by each way, at least {LEAST_TIMES}")
    parser.add_argument("--loads", type=int, default=5, help="adapter loads and deployments")
    options = parser.parse_args(arguments)
    if options.times < LEAST_TIMES or options.loads < 1:
        parser.error(f"--times is {options.times}, at least {LEAST_TIMES}; --loads is {options.loads}, at least 1")
    try:
        figures = measure(find_market(options.home, options.pool), times=options.times, loads=options.loads)
    except (NotMeasurableError, RefusedError, httpx.HTTPError) as error:
        sys.stderr.write(f"benchmarks.journey: {error}\n")
        return 1
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def measure(market: RunningMarket, *, times: int, loads: int) -> dict[str, Any]:
    """Return all figures; milliseconds unless the name says otherwise. Prints each as it is known."""
    figures: dict[str, Any] = {"machine": describe_machine(), "model": market.model}
    tell(figures, "accept_to_first_step_ms", market.run["accept_to_first_step_ms"])
    tell(figures, "adapter_load_call_ms", describe_spread(measure_load_call(market, times=loads)))
    for name, values in measure_deployment(market, times=loads).items():
        tell(figures, f"{name}_ms", describe_spread(values))
    doors = [
        Door("gateway", market.gateway, market.model, market.key),
        Door("direct", f"{find_replica(market)}/v1", market.engine_model, "none"),
    ]
    first = {name: describe_spread(values) for name, values in measure_first_token(doors, times=times).items()}
    tell(figures, "first_token_ms", first)
    tell(figures, "first_token_added_ms", round(first["gateway"]["median"] - first["direct"]["median"], 1))
    for at_once in (1, 8):
        rates = measure_throughput(doors, calls=times, at_once=at_once)
        tell(figures, f"tokens_per_s_at_{at_once}", {name: round(rate, 1) for name, rate in rates.items()})
    return figures


def tell(figures: dict[str, Any], name: str, value: Any) -> None:
    """Keep a figure and show it."""
    figures[name] = value
    print(f"{name:28} {json.dumps(value)}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
