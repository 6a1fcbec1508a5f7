"""Documents that stand behind applications and grants: read as KIND=FILE, kept at the hub, named by their digest.

It leaves which documents are allowed to the service.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.calling import call
from hub.errors import InvalidValueError

KINDS = ("contract", "invoice", "payment", "delivery", "filing", "other")
Papers = Annotated[
    list[str] | None, typer.Option("--paper", help=f"KIND=FILE, again for more; kinds: {', '.join(KINDS)}")
]


def keep_papers(hub: str, key: str, given: list[str] | None) -> list[dict[str, Any]]:
    """Send each document to the hub and return them as evidence {kind, name, digest}; every one is read first.

    Raises:
        InvalidValueError: not KIND=FILE, or a file that cannot be read. HubCallError: the hub refused one.
    """
    read = [_read_paper(text) for text in given or []]
    return [{"kind": kind, **_keep(hub, key, file, content)} for kind, file, content in read]


def keep_paper(hub: str, key: str, file: Path) -> dict[str, Any]:
    """Send one document to the hub and return {name, digest}. Raises: as `keep_papers`."""
    return _keep(hub, key, file, _read_file(file))


def _keep(hub: str, key: str, file: Path, content: bytes) -> dict[str, Any]:
    kept: dict[str, Any] = call(hub, key, "POST", "papers", files={"paper": (file.name, content)})
    return kept


def _read_paper(text: str) -> tuple[str, Path, bytes]:
    kind, _, name = text.partition("=")
    if kind not in KINDS or not name:
        raise InvalidValueError(
            f"'{text[:80]}' is no paper; give KIND=FILE, the kind one of {', '.join(KINDS)}.",
            f"“{text[:80]}”格式不对，应为 类型=文件，类型可用 {'、'.join(KINDS)}。",
            field="paper",
        )
    return kind, Path(name), _read_file(Path(name))


def _read_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidValueError(
            f"{file} cannot be read: {error.strerror}; check its name.",
            f"{file} 无法读取：{error.strerror}，请核对文件名。",
            field="paper",
        ) from error
