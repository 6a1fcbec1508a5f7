"""The taxonomy as data: axes, codes and titles shipped in `taxonomy.json`, titles that the operator replaced.

It leaves which model carries which code to `models`.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.tables import TaxonomyTitle
from hub.errors import InvalidValueError, NotFoundError

FACETS = ("industry", "scenario", "stage")
"""Axes whose codes a model carries as text; the other axes are enumerations."""


@dataclass(frozen=True)
class Entry:
    """One code of one axis with its titles."""

    code: str
    title_zh: str
    title_en: str


class UnknownCodeError(InvalidValueError):
    """The axis has no such code."""

    code = "unknown_taxonomy_code"


@cache
def shipped_taxonomy() -> dict[str, tuple[Entry, ...]]:
    """Return the taxonomy as shipped, by axis."""
    raw = json.loads(files("hub.catalogue").joinpath("taxonomy.json").read_text(encoding="utf-8"))
    return {axis: tuple(Entry(**item) for item in items) for axis, items in raw.items()}


def read_taxonomy(session: Session) -> dict[str, list[Entry]]:
    """Return every axis with the operator's titles in place."""
    own = {(row.axis, row.code): row for row in session.scalars(select(TaxonomyTitle))}
    merged: dict[str, list[Entry]] = {}
    for axis, entries in shipped_taxonomy().items():
        merged[axis] = [
            Entry(entry.code, row.title_zh, row.title_en) if (row := own.get((axis, entry.code))) else entry
            for entry in entries
        ]
    return merged


def set_title(
    session: Session, actor: Actor, *, axis: str, code: str, title_zh: str, title_en: str, now: datetime
) -> None:
    """Give an entry of industry, scenario or stage its official title (operator).

    Raises:
        NotFoundError: no such axis or code.
    """
    actor.require(Role.OPERATOR)
    if axis not in FACETS or code not in _codes(axis):
        raise NotFoundError.of("taxonomy entry", f"{axis[:40]}/{code[:40]}")
    session.merge(
        TaxonomyTitle(axis=axis, code=code, title_zh=title_zh, title_en=title_en, set_by=actor.user_id, set_at=now)
    )


def check_code(axis: str, code: str | None) -> str | None:
    """Return the code if the axis has it; None stays None.

    Raises:
        UnknownCodeError: names the axis and where its codes are listed.
    """
    if code is None or code in _codes(axis):
        return code
    raise UnknownCodeError(
        f"'{code[:60]}' is no {axis} of the taxonomy. GET /api/v1/taxonomy lists the codes.",
        f"分类“{axis}”中没有“{code[:60]}”。代码见 GET /api/v1/taxonomy。",
        field=axis,
    )


def _codes(axis: str) -> frozenset[str]:
    return frozenset(entry.code for entry in shipped_taxonomy()[axis])
