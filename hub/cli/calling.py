"""Calls the hub's HTTP from the terminal with a session token: one refusal, one line, the hub's own code with it.

It leaves every rule to the service and what is printed to `showing`; nothing here reads this machine's database.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from werkzeug.http import parse_options_header

from hub.cli.showing import choose, speaks_chinese
from hub.errors import GuanmoError, InvalidValueError

DEFAULT_HUB = "http://127.0.0.1:8000"
_TIMEOUT_S = 30.0
Key = Annotated[
    str,
    typer.Option("--key", envvar="GUANMO_TOKEN", help="session token, as `guanmo sign-in` prints", show_default=False),
]
Hub = Annotated[str, typer.Option("--hub", help="address of the hub")]
AsJson = Annotated[bool, typer.Option("--json", help="print the hub's answer as one JSON object")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask before money moves or an offer goes")]
Firm = Annotated[
    str | None, typer.Option("--organisation", help="org_…; the own one, others' only for operator and auditor")
]
Period = Annotated[str, typer.Argument(help="2026-11, 2026-Q4, 2026 or the days 2026-11-03--2026-12-15")]
Target = Annotated[Path | None, typer.Option("--to", help="new file; the hub's name for it when left out")]
Retry = Annotated[
    str, typer.Option("--idempotency-key", help="give the same on a retry: it counts once; made when left out")
]


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
    files: Mapping[str, Any] | None = None,
) -> Any:
    """Return the JSON that the hub answers below /api/v1; query values that are None are left out.

    Raises:
        HubCallError: the hub refused, with its code, or does not answer.
    """
    with _ask(hub, key, method, path, body=body, query=query, files=files) as answer:
        answer.read()
        told: Any = answer.json()
    return told


def download(
    hub: str, key: str, path: str, target: Path | None = None, *, query: Mapping[str, Any] | None = None
) -> Path:
    """Write the file that the hub answers below /api/v1 and return where; it is whole or not there.

    Raises:
        HubCallError: as `call`. InvalidValueError: the file is there already, or its folder is not.
    """
    with _ask(hub, key, "GET", path, query=query) as answer:
        place = target or Path(_read_name(answer, path))
        try:
            _write_new(place, answer.iter_bytes())
        except FileExistsError as error:
            raise InvalidValueError(
                f"{place} is there already; name another file with --to.",
                f"{place} 已存在，请用 --to 指定其他文件。",
                field="to",
            ) from error
        except OSError as error:
            raise InvalidValueError(
                f"{place} cannot be written: {error.strerror}; name another file with --to.",
                f"{place} 无法写入：{error.strerror}。请用 --to 指定其他文件。",
                field="to",
            ) from error
    return place


def segment(text: str) -> str:
    """Return an id as one segment of a path, whatever was typed."""
    return quote(text, safe="")


def confirm(zh: str, en: str, *, yes: bool) -> None:
    """Ask on the terminal before a step that cannot be taken back; no, or no answer, ends the command with 1."""
    if not yes:
        typer.confirm(choose(zh, en), abort=True, err=True)


def make_key(given: str) -> str:
    """Return the idempotency key that was given, else a new one, told beside the answer for the case of a retry."""
    if given:
        return given
    made = uuid.uuid4().hex
    typer.echo(choose(f"重试请加 --idempotency-key {made}", f"for a retry: --idempotency-key {made}"), err=True)
    return made


@contextmanager
def _ask(
    hub: str,
    key: str,
    method: str,
    path: str,
    *,
    query: Mapping[str, Any] | None = None,
    body: Mapping[str, Any] | None = None,
    files: Mapping[str, Any] | None = None,
) -> Iterator[httpx.Response]:
    """Yield the hub's answer before its body is read; what fails while it is read counts too. Raises: as `call`."""
    headers = {"Accept-Language": "zh" if speaks_chinese() else "en"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    wanted = {name: value for name, value in (query or {}).items() if value is not None}
    address = f"{hub}/api/v1/{path}"
    try:
        with httpx.stream(
            method, address, json=body, files=files, headers=headers, params=wanted, timeout=_TIMEOUT_S
        ) as answer:
            _check_answer(answer)
            yield answer
    except (httpx.HTTPError, ValueError) as error:
        raise HubCallError(
            f"The hub at {hub} does not answer: {error}. Check --hub, and that `guanmo status` shows it up.",
            f"hub {hub} 无应答：{error}。请检查 --hub 以及 guanmo status。",
        ) from error


def _check_answer(answer: httpx.Response) -> None:
    if answer.is_error:
        answer.read()
        told: dict[str, Any] = answer.json()
        detail = str(told.get("detail") or told.get("title") or answer.status_code)
        raise HubCallError(detail, detail, code=str(told.get("code") or HubCallError.code), field=told.get("field"))


def _write_new(place: Path, chunks: Iterable[bytes]) -> None:
    """Write a file whole, under a name that nothing has. Raises: OSError, FileExistsError where something has it."""
    part = place.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as sink:
            for chunk in chunks:
                sink.write(chunk)
        os.link(part, place)  # unlike a rename, never over what came there meanwhile
    finally:
        part.unlink(missing_ok=True)


def _read_name(answer: httpx.Response, path: str) -> str:
    """Return a plain file name: the hub's, else the last segment of the path."""
    _, options = parse_options_header(answer.headers.get("Content-Disposition", ""))
    return PurePath(options.get("filename", "").replace("\\", "/")).name or PurePath(path).name
