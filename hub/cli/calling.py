"""Calls the hub's HTTP from the terminal with a session token: one refusal, one line, the hub's own code with it.

It leaves every rule to the service; nothing here reads this machine's database.
"""

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console
from rich.table import Table

from hub.errors import GuanmoError

DEFAULT_HUB = "http://127.0.0.1:8000"
_TIMEOUT_S = 30.0
_WIDTH = 180
Key = Annotated[
    str,
    typer.Option("--key", envvar="GUANMO_TOKEN", help="session token, as `guanmo sign-in` prints", show_default=False),
]
Hub = Annotated[str, typer.Option("--hub", help="address of the hub")]
AsJson = Annotated[bool, typer.Option("--json", help="print the hub's answer as one JSON object")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask before money moves or an offer goes")]


class HubCallError(GuanmoError):
    """The hub refused a call, or does not answer; `code` is the hub's where it gave one."""

    code = "hub_call_failed"

    def __init__(self, en: str, zh: str, *, code: str = "hub_call_failed", field: str | None = None) -> None:
        """Keep both texts and the code that the hub answered."""
        super().__init__(en, zh, field=field)
        self.code = code


def sign_in(email: Annotated[str, typer.Argument(help="your address")], hub: Hub = DEFAULT_HUB) -> None:
    """Ask for the password and print a session token: export GUANMO_TOKEN=$(guanmo sign-in you@firm.example)."""
    password = typer.prompt("Password / 密码", hide_input=True, err=True)
    told = call(hub, "", "POST", "sessions", {"email": email, "password": password})
    print(told["token"])


def call(
    hub: str,
    key: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, Any] | None = None,
) -> Any:
    """Return the JSON that the hub answers below /api/v1; query values that are None are left out.

    Raises:
        HubCallError: the hub refused, with its code, or does not answer.
    """
    headers = {"Accept-Language": "zh" if speaks_chinese() else "en"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    wanted = {name: value for name, value in (query or {}).items() if value is not None}
    try:
        answer = httpx.request(
            method, f"{hub}/api/v1/{path}", json=body, headers=headers, params=wanted, timeout=_TIMEOUT_S
        )
        told: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise HubCallError(
            f"The hub at {hub} does not answer: {error}. Check --hub, and that `guanmo status` shows it up.",
            f"hub {hub} 无应答：{error}。请检查 --hub 以及 guanmo status。",
        ) from error
    if answer.is_error:
        detail = str(told.get("detail") or told.get("title") or answer.status_code)
        raise HubCallError(detail, detail, code=str(told.get("code") or HubCallError.code), field=told.get("field"))
    return told


def segment(text: str) -> str:
    """Return an id as one segment of a path, whatever was typed."""
    return quote(text, safe="")


def confirm(zh: str, en: str, *, yes: bool) -> None:
    """Ask on the terminal before a step that cannot be taken back; no, or no answer, ends the command with 1."""
    if not yes:
        typer.confirm(choose(zh, en), abort=True, err=True)


def show(told: Any, rows: list[list[str]], heads: list[str], *, as_json: bool) -> None:
    """Print the hub's answer as JSON, or its rows as a table; an empty one says so."""
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(width=_WIDTH, highlight=False, markup=False)
    console.print(table if rows else choose("没有记录", "Nothing here."))


def show_facts(told: Any, facts: list[tuple[str, str]], *, as_json: bool) -> None:
    """Print the hub's answer as JSON, or names and values one a line, empty values left out."""
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts:
        if value:
            table.add_row(name, value)
    Console(width=_WIDTH, highlight=False, markup=False).print(table)


def choose(zh: str, en: str) -> str:
    """Return the text in the terminal's language."""
    return zh if speaks_chinese() else en


def speaks_chinese() -> bool:
    """Say whether the terminal's language is Chinese."""
    return os.environ.get("LANG", "").startswith("zh")


def yuan(fen: int) -> str:
    """Return an amount as signed yuan to the fen."""
    return f"{'-' if fen < 0 else ''}¥{abs(fen) // 100:,}.{abs(fen) % 100:02d}"
