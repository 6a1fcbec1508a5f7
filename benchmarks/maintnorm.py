"""Three companies' maintenance short text through the public interfaces, beside the published rows.

    make bench-maintnorm DATA=PATH [SPLIT=val] [PLAN=usual]        (python -m benchmarks.maintnorm PATH [--split val])

One base, one recipe, one adapter each; every answer comes through the gateway. The journey is `examples.factories`; the
last line is its JSON object. Published: ByT5 of the maintnorm paper (WNUT 2024), on the test files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.running_market import ROOT
from examples.tasks.maintnorm import PLANS, score_most_frequent

PUBLISHED_BYT5: Final = {"A": 95.2, "B": 90.0, "C": 89.1}
PUBLISHED_MOST_FREQUENT: Final = {"A": 90.9, "B": 90.2, "C": 78.6}
_GUANMO = ROOT / ".venv" / "bin" / "guanmo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns 0, or 1 after one line that says what failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maintnorm", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of company_{a,b,c}.{train,SPLIT}.norm files")
    parser.add_argument("--split", default="val")
    parser.add_argument("--plan", choices=list(PLANS), default="usual", help="how the training sentences are used")
    options = parser.parse_args(arguments)
    try:
        baseline = {letter: score_most_frequent(options.data, letter, options.split) for letter in PUBLISHED_BYT5}
    except FileNotFoundError as error:
        sys.stderr.write(f"benchmarks.maintnorm: {error}\n")
        return 1
    was_running = subprocess.run([_GUANMO, "status"], cwd=ROOT, capture_output=True, check=False).returncode == 0
    command = [
        _GUANMO,
        "demo",
        "--detach",
        "--data",
        str(options.data.absolute()),
        "--split",
        options.split,
        "--plan",
        options.plan,
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    finally:
        if not was_running:
            subprocess.run([_GUANMO, "down"], cwd=ROOT, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout[-3000:])
        sys.stderr.write(f"benchmarks.maintnorm: 'guanmo demo' ended with exit {done.returncode}; see above\n")
        return 1
    found = read_last_object(done.stdout)
    print(describe(found, baseline, options.split))
    print(json.dumps(found))
    return 0


def read_last_object(text: str) -> dict[str, Any]:
    """The last line that is a JSON object."""
    line = next(line for line in reversed(text.splitlines()) if line.startswith("{"))
    value: dict[str, Any] = json.loads(line)
    return value


def describe(found: dict[str, Any], baseline: dict[str, float], split: str) -> str:
    """The table: error reduction rate in percent, ours and the rest."""
    head = f"{'':10}{'adapter':>9}{'base':>8}{'most freq.':>12}{'ByT5 test':>11}{'most freq. test':>17}{'train s':>9}"
    lines = [
        f"{letter + ' ' + split:10}{row['adapter']:9.1f}{row['base']:8.1f}{baseline[letter]:12.1f}"
        f"{PUBLISHED_BYT5[letter]:11.1f}{PUBLISHED_MOST_FREQUENT[letter]:17.1f}{row['train_s']:9.1f}"
        for letter, row in sorted(found.items())
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
