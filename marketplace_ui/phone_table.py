"""Writes each cell's column beside it, so that a phone shows a row as a card of labelled values.

It leaves how a row looks to the styles, and cells that are labelled already as they are.
"""

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

ROW = re.compile(r"(<tr\b.*?</tr>)", re.DOTALL)
CELL = re.compile(r"<t[dh]\b([^>]*)>")
SPAN = re.compile(r'colspan="(\d+)"')


def label_cells(rows: Markup, columns: Iterable[tuple[str, str]]) -> Markup:
    """Return the rows of a table with the label of its column on each cell that has none and spans no other."""
    labels = [label for label, _ in columns]
    # The rows are the template's own output: what people gave is escaped in it already.
    return Markup("".join(_label_row(part, labels) for part in ROW.split(rows)))  # noqa: S704


def _label_row(row: str, labels: Sequence[str]) -> str:
    if not row.startswith("<tr"):
        return row
    place = 0

    def label(found: re.Match[str]) -> str:
        nonlocal place
        attributes, at = found[1], place
        span = SPAN.search(attributes)
        place += int(span[1]) if span else 1
        if span or "data-label" in attributes or at >= len(labels) or not labels[at]:
            return found[0]
        return f'{found[0][:-1]} data-label="{escape(labels[at])}">'

    return CELL.sub(label, row)
