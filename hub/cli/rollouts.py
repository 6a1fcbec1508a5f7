"""`guanmo rollout`: let a new version take over a name bit by bit, over the hub's address with a session token.

It leaves every rule to the service; nothing here reads this machine's database.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hub.cli.calling import DEFAULT_HUB, Hub, Key, call

rollout = typer.Typer(no_args_is_help=True)
RolloutId = Annotated[str, typer.Argument(help="rollout rol_…")]
Percent = Annotated[int, typer.Option("--percent", min=1, max=99, help="share of the name's calls")]


@rollout.callback()
def describe() -> None:
    """Rollouts: start, shift, promote, take back, list."""


@rollout.command("start")
def start(
    version_id: Annotated[str, typer.Argument(help="the new version ver_…")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    percent: Percent = 5,
    cases: Annotated[Path | None, typer.Option(help="JSON lines with prompt and expected, asked of both")] = None,
) -> None:
    """Deploy a version and give it a share of its name's calls once it is ready."""
    body = {"version_id": version_id, "percent": percent, "cases": _read_cases(cases)}
    _show([call(hub, key, "POST", "rollouts", body)])


@rollout.command("shift")
def shift(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB, percent: Percent = 25) -> None:
    """Give the new version another share of the calls."""
    _show([call(hub, key, "POST", f"rollouts/{rollout_id}/share", {"percent": percent})])


@rollout.command("promote")
def promote(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """Let the name stand for the new version."""
    _show([call(hub, key, "POST", f"rollouts/{rollout_id}/promote")])


@rollout.command("take-back")
def take_back(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """Send every call to the stable version again, at once."""
    _show([call(hub, key, "POST", f"rollouts/{rollout_id}/take-back")])


@rollout.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """List the newest rollouts."""
    _show(call(hub, key, "GET", "rollouts")["rollouts"])


def _read_cases(path: Path | None) -> list[dict[str, str]]:
    if path is None:
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{"prompt": row["prompt"], "expected": row["expected"]} for row in map(json.loads, filter(None, lines))]


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("rollout", "name", "state", "share", "new version", "stable version", "reason", "probe new/stable")
    for row in rows:
        probe = row["probe"] or {}
        scores = f"{probe['candidate']:.2f}/{probe['stable']:.2f}" if probe.get("cases") else ""
        share, reason = f"{row['percent']} %", row["reason_code"] or ""
        names = (row["version_id"], row["stable_version_id"])
        table.add_row(row["id"], row["public_name"], row["state"], share, *names, reason, scores)
    Console(width=180).print(table)
