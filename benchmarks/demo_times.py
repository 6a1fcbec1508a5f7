"""Measures `guanmo demo` cold (fresh folder, bases trained) and warm, and `guanmo down`; the last line is JSON.

    python -m benchmarks.demo_times [--with-setup] [--keep]

With `--with-setup` it clones this checkout beside the fresh folder and measures `make demo DETACH=1` there, environment
included. It leaves the figures of the running marketplace to `benchmarks.journey`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.running_market import ROOT, describe_machine


class DemoFailedError(Exception):
    """A measured command failed; the message names it."""


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 0, or 1 after one line that says which command failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_times", description=__doc__)
    parser.add_argument("--with-setup", action="store_true", help="measure set-up too, in a fresh clone")
    parser.add_argument("--keep", action="store_true", help="keep the folder with installation and clone")
    options = parser.parse_args(arguments)
    # A short path: the supervisor's socket lives in it.
    folder = Path(tempfile.mkdtemp(prefix="gm-times-"))
    try:
        figures = measure(folder, with_setup=options.with_setup)
    except DemoFailedError as error:
        sys.stderr.write(f"benchmarks.demo_times: {error}\n")
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures, ensure_ascii=False))
    return 0


def measure(folder: Path, *, with_setup: bool) -> dict[str, Any]:
    """Return seconds of each command. Whatever happens, nothing is left running.

    Raises:
        DemoFailedError: a command ended with another exit than 0.
    """
    figures: dict[str, Any] = {"machine": describe_machine(), "with_setup": with_setup}
    checkout = clone_checkout(folder) if with_setup else ROOT
    guanmo = str(checkout / ".venv" / "bin" / "guanmo")
    if not with_setup and not Path(guanmo).is_file():
        raise DemoFailedError(f"{guanmo} is missing; run 'make setup' first, or give --with-setup")
    demo = ["make", "demo", "DETACH=1"] if with_setup else [guanmo, "demo", "--detach"]
    environment = {**os.environ, "GUANMO_HOME": str(folder / "var")}
    try:
        for name, command in (("cold_s", demo), ("down_s", [guanmo, "down"]), ("warm_s", demo)):
            figures[name] = time_command(command, checkout, environment)
            print(f"{name:8} {figures[name]:8.1f}  {' '.join(command)}", flush=True)
    finally:
        if Path(guanmo).is_file():
            subprocess.run([guanmo, "down"], cwd=checkout, env=environment, stdout=sys.stderr, check=False)
    return figures


def clone_checkout(folder: Path) -> Path:
    """Return a fresh clone of what is committed here. Raises: DemoFailedError."""
    clone = folder / "guanmo"
    time_command(["git", "clone", "--quiet", str(ROOT), str(clone)], folder, dict(os.environ))
    return clone


def time_command(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Run a command with its output on our stderr and return its seconds. Raises: DemoFailedError."""
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False
    )
    if done.returncode != 0:
        raise DemoFailedError(f"'{' '.join(command)}' ended with exit {done.returncode}; its message is above")
    return round(time.monotonic() - began, 1)


if __name__ == "__main__":
    raise SystemExit(main())
