"""`guanmo rollout`: let a new version take over a name bit by bit, over the hub's address with a session token.

It leaves every rule to the service; nothing here reads this machine's database.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from hub.errors import GuanmoError

rollout = typer.Typer(no_args_is_help=True)
DEFAULT_HUB = "http://127.0.0.1:8000"
_TIMEOUT_S = 30.0
Key = Annotated[
    str, typer.Option("--key", envvar="GUANMO_TOKEN", help="session token of POST /api/v1/sessions", show_default=False)
]
Hub = Annotated[str, typer.Option("--hub", help="address of the hub")]
RolloutId = Annotated[str, typer.Argument(help="rollout rol_…")]
Percent = Annotated[int, typer.Option("--percent", min=1, max=99, help="share of the name's calls")]


class RolloutCallError(GuanmoError):
    """The service refused a call, or does not answer."""

    code = "rollout_call_failed"


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
    _show([_call(hub, key, "POST", "rollouts", body)])


@rollout.command("shift")
def shift(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB, percent: Percent = 25) -> None:
    """Give the new version another share of the calls."""
    _show([_call(hub, key, "POST", f"rollouts/{rollout_id}/share", {"percent": percent})])


@rollout.command("promote")
def promote(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """Let the name stand for the new version."""
    _show([_call(hub, key, "POST", f"rollouts/{rollout_id}/promote")])


@rollout.command("take-back")
def take_back(rollout_id: RolloutId, key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """Send every call to the stable version again, at once."""
    _show([_call(hub, key, "POST", f"rollouts/{rollout_id}/take-back")])


@rollout.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB) -> None:
    """List the newest rollouts."""
    _show(_call(hub, key, "GET", "rollouts")["rollouts"])


def _read_cases(path: Path | None) -> list[dict[str, str]]:
    if path is None:
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{"prompt": row["prompt"], "expected": row["expected"]} for row in map(json.loads, filter(None, lines))]


def _call(hub: str, key: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    language = "zh" if os.environ.get("LANG", "").startswith("zh") else "en"
    headers = {"Authorization": f"Bearer {key}", "Accept-Language": language}
    try:
        answer = httpx.request(method, f"{hub}/api/v1/{path}", json=body, headers=headers, timeout=_TIMEOUT_S)
        told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        text = f"The hub at {hub} does not answer: {error}."
        raise RolloutCallError(text, f"hub {hub} 无应答：{error}。") from error
    if answer.is_error:
        detail = str(told.get("detail") or told.get("title") or answer.status_code)
        raise RolloutCallError(detail, detail)
    return told


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("rollout", "name", "state", "share", "new version", "stable version", "reason", "probe new/stable")
    for row in rows:
        probe = row["probe"] or {}
        scores = f"{probe['candidate']:.2f}/{probe['stable']:.2f}" if probe.get("cases") else ""
        share, reason = f"{row['percent']} %", row["reason_code"] or ""
        names = (row["version_id"], row["stable_version_id"])
        table.add_row(row["id"], row["public_name"], row["state"], share, *names, reason, scores)
    Console(width=180).print(table)
