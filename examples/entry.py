"""How an example program starts: addresses from `var/demo.env` or the command line, one line for a failure.

It leaves the story to the program.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.hub_client import RefusedError
from examples.screen import console
from examples.steps import StoryError


@dataclass(frozen=True)
class Market:
    """Where the marketplace is: hub, gateway (`/v1`), and the installation's folder for the demo's credentials."""

    hub: str
    gateway: str
    home: Path


def run_story(story: Callable[[Market], None], description: str | None) -> int:
    """Run a story against the marketplace that `make demo` started; return the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var"), help="folder of the installation")
    options = parser.parse_args()
    try:
        story(read_market(options.home))
    except (StoryError, RefusedError, TimeoutError, FileNotFoundError) as error:
        console.print(f"[red]The story stopped: {error}[/red]")
        return 1
    return 0


def write_environment(market: Market, *, key: str, model: str, base: str) -> None:
    """Write `demo.env`, what scripts need, readable by the owner alone."""
    values = {
        "GUANMO_URL": market.hub,
        "OPENAI_BASE_URL": market.gateway,
        "OPENAI_API_KEY": key,
        "GUANMO_MODEL": model,
        "GUANMO_BASE_MODEL": base,
    }
    handle = os.open(market.home / "demo.env", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())


def read_market(home: Path) -> Market:
    """Read the addresses that `make demo` left.

    Raises:
        FileNotFoundError: the demonstration has not been run here.
    """
    path = home / "demo.env"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run 'make demo DETACH=1' first")
    values = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return Market(values["GUANMO_URL"], values["OPENAI_BASE_URL"], home)
