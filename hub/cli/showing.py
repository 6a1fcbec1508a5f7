"""Prints what the hub answered: a table, names and values, or its JSON as it came; in the terminal's language.

It leaves asking the hub to `calling` and which columns a noun has to the noun's module.
"""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from hub.ledger.periods import SHANGHAI

_WIDTH = 180
_TEXT_WIDTH = 24
"""No text is folded to less than this many columns."""


def show(told: Any, rows: list[list[str]], heads: list[str], *, as_json: bool) -> None:
    """Print the hub's answer as JSON, or its rows as a table; an empty one says so."""
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    _print(_lay_table(rows, heads) if rows else choose("没有记录", "Nothing here."))


def show_facts(told: Any, facts: list[tuple[str, str]], *, as_json: bool) -> None:
    """Print the hub's answer as JSON, or names and values one a line, empty values left out."""
    if as_json:
        print(json.dumps(told, ensure_ascii=False, indent=1))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        if value:
            table.add_row(name, value)
    _print(table)


def show_whole(
    told: Any, facts: list[tuple[str, str]], rows: list[list[str]], heads: list[str], *, as_json: bool
) -> None:
    """Print the hub's answer as JSON, or its facts and below them its rows where it has any."""
    show_facts(told, facts, as_json=as_json)
    if rows and not as_json:
        _print(_lay_table(rows, heads))


def show_file(place: os.PathLike[str], *, as_json: bool) -> None:
    """Print where a file was written."""
    if as_json:
        print(json.dumps({"file": os.fspath(place)}, ensure_ascii=False))
    else:
        print(os.fspath(place))


def choose(zh: str, en: str) -> str:
    """Return the text in the terminal's language."""
    return zh if speaks_chinese() else en


def choose_text(pair: Mapping[str, str] | None) -> str:
    """Return the text of a pair {zh, en} in the terminal's language; empty for none."""
    return choose(pair["zh"], pair["en"]) if pair else ""


def speaks_chinese() -> bool:
    """Say whether the terminal's language is Chinese."""
    return os.environ.get("LANG", "").startswith("zh")


def yuan(fen: int | None) -> str:
    """Return an amount as signed yuan to the fen; empty for none."""
    if fen is None:
        return ""
    return f"{'-' if fen < 0 else ''}¥{abs(fen) // 100:,}.{abs(fen) % 100:02d}"


def local_time(moment: str | None, *, timespec: str = "minutes") -> str:
    """Return an instant of the hub as Shanghai's date and time, for example `2026-11-03 08:00`; empty for none."""
    if moment is None:
        return ""
    return datetime.fromisoformat(moment).astimezone(SHANGHAI).replace(tzinfo=None).isoformat(" ", timespec)


def say_yes(value: bool) -> str:
    """Return yes or no in the terminal's language."""
    return choose("是", "yes") if value else choose("否", "no")


def _lay_table(rows: list[list[str]], heads: list[str]) -> Table:
    """Return a table in which only texts are folded: an id stands whole on one line, to be copied."""
    table = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads):
        cells = [head, *(cell for row in rows for cell in row[place : place + 1])]
        width = max(map(cell_len, cells))
        if all(cell.isascii() and " " not in cell for cell in cells[1:]):
            table.add_column(head, no_wrap=True, min_width=width)
        else:
            table.add_column(head, overflow="fold", min_width=min(width, _TEXT_WIDTH))
    for row in rows:
        table.add_row(*row)
    return table


def _print(content: Table | str) -> None:
    # As wide as its ids need: the terminal itself breaks a longer line, and an id stays one word to copy.
    needed = sum((column.min_width or 0) + 2 for column in content.columns) if isinstance(content, Table) else 0
    Console(width=max(_WIDTH, needed), highlight=False, markup=False).print(content)
