"""Findings of a data check: counted by code and column for the report, and one by one, by row, for the findings file.

Leaves finding them to the readers and rules. The report holds no row text; the findings hold short values with
everything private masked, and lie in the owner's folder alone.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune.codec import Json
from finetune.kinds_of_files import KINDS_OF_FILES, Kind, Remedy, Severity
from finetune.kinds_of_rows import KINDS_OF_ROWS
from finetune.masking import mask_private
from finetune.spec import FixAction

KINDS: Mapping[str, Kind] = {**KINDS_OF_FILES, **KINDS_OF_ROWS}
MOST_FINDINGS_OF_A_CODE = 100_000
"""More of one code are counted but not listed one by one, so that a check's memory and disk stay bounded."""
_MOST_COLUMNS_OF_A_CODE = 100
_SAMPLE_ROWS = 20
_MOST_HELD = 1_000
"""More findings of one row are not held back until all of it is known: a line of a megabyte may have a million."""
_LEFT_OUT = frozenset({"empty_answer", "empty_prompt"})
"""Of rows that a check leaves out by itself: nothing else in them is a reason to block the file."""
_SHORT_CHARS = 80
_INDEX = re.compile(r"\[\d+\]")
_Finding = tuple[str, int, str | None, object, Mapping[str, object]]
"""Code, row, column, value, and what goes into the message."""


@dataclass
class _Group:
    count: int = 0
    rows: list[int] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)


class IssueLog:
    """Collects findings; `file` says which upload they are about (train or valid).

    With `fixes` a finding of such a code counts as corrected. With `spool` each finding of a row is kept there, all of
    them once `settle` was called after the last one.
    """

    def __init__(
        self, file: str, *, fixes: Mapping[str, FixAction] | None = None, spool: "Spool | None" = None
    ) -> None:
        self.fixes = dict(fixes or {})
        self._file = file
        self._groups: dict[tuple[str, str | None], _Group] = {}
        self._places: Counter[str] = Counter()
        self._row: int | None = None
        self._held: list[_Finding] = []
        self._spool = spool

    @property
    def is_held_out(self) -> bool:
        """Whether the findings are about a validation file: it is scored on, and nothing of it is learned."""
        return self._file == "valid"

    def add(
        self, code: str, *, row: int | None = None, column: str | None = None, value: object = None, **values: object
    ) -> None:
        """Count one finding; `value` is what stands there, the others go into the message of its code and column."""
        if row is None:
            self._enter(code, row, column, value, values)
            return
        if row != self._row or len(self._held) >= _MOST_HELD:
            self.settle()
            self._row = row
        self._held.append((code, row, column, value, values))

    def settle(self) -> None:
        """Count what was found in the row at hand; of a row left out on request only why it is, the rest is moot.

        Of one that is left out without a request all that does not block the file: no one has to correct it.
        """
        held, self._held = self._held, []
        asked = [one for one in held if self.fixes.get(one[0]) is FixAction.DROP]
        if any(one[0] in _LEFT_OUT for one in held):
            held = [one for one in held if self.severity_of(one[0]) is not Severity.ERROR]
        for one in asked or held:
            self._enter(*one)

    def _enter(
        self, code: str, row: int | None, column: str | None, value: object, values: Mapping[str, object]
    ) -> None:
        place = None if column is None else shorten(_INDEX.sub("[]", column))
        if (code, place) not in self._groups:
            place = self._find_place(code, place)
        group = self._groups.get((code, place))
        if group is None:
            group = self._groups[(code, place)] = _Group(values=dict(values))
        group.count += 1
        if row is None:
            return
        if len(group.rows) < _SAMPLE_ROWS and row not in group.rows:
            group.rows.append(row)
        if self._spool is not None and group.count <= MOST_FINDINGS_OF_A_CODE:
            shown = None if value is None else mask_private(shorten(value))
            texts = {name: _write(text) for name, text in values.items()}
            self._spool.add(
                row,
                [
                    self._file,
                    code,
                    None if column is None else shorten(column),
                    shown,
                    texts,
                    str(self.severity_of(code)),
                ],
            )

    def _find_place(self, code: str, place: str | None) -> str | None:
        """The column of a new group; None once a code has too many: keys made up per row must not fill the report."""
        self._places[code] += 1
        return place if self._places[code] <= _MOST_COLUMNS_OF_A_CODE else None

    def fix_of(self, code: str) -> FixAction | None:
        """The correction that the customer asked for, if any."""
        return self.fixes.get(code)

    def severity_of(self, code: str) -> Severity:
        """The severity of a code; corrected on request counts as corrected."""
        return Severity.FIXED if code in self.fixes else KINDS[code].severity

    def count(self, severity: Severity) -> int:
        """Number of codes found with this severity."""
        self.settle()
        return len({code for code, _ in self._groups if self.severity_of(code) is severity})

    def count_findings(self) -> int:
        """Number of findings of all codes."""
        self.settle()
        return sum(group.count for group in self._groups.values())

    def describe(self) -> list[Json]:
        """All findings for report.json by code and column, errors first."""
        self.settle()
        order = list(Severity)
        found = sorted(self._groups.items(), key=lambda item: order.index(self.severity_of(item[0][0])))
        return [self._describe(code, column, group) for (code, column), group in found]

    def _describe(self, code: str, column: str | None, group: _Group) -> Json:
        rows = ", ".join(str(row) for row in group.rows[:5]) + (" …" if group.count > 5 else "")
        texts = {name: _write(value) for name, value in group.values.items()}
        texts |= {"rows": rows, "count": str(group.count), "column": column or ""}
        asked = self.fix_of(code)
        return {
            "code": code,
            "severity": str(self.severity_of(code)),
            "file": self._file,
            "row": group.rows[0] if group.rows else None,
            "column": column,
            "count": group.count,
            "listed": min(group.count, MOST_FINDINGS_OF_A_CODE) if group.rows else 0,
            "sample_rows": [*group.rows],
            "message_zh": KINDS[code].zh.format(**texts),
            "message_en": KINDS[code].en.format(**texts),
            "fix": _describe_fix(KINDS[code], asked, self.severity_of(code)),
        }


class Spool:
    """Findings of rows on disk in the order found, read back in the order of rows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._rows = array("L")
        self._offsets = array("Q")
        self._at = 0

    def add(self, row: int, finding: list[object]) -> None:
        """Keep one finding."""
        line = json.dumps([row, *finding], ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._rows.append(row)
        self._offsets.append(self._at)
        self._at += len(line)
        self._stream.write(line)

    def read_sorted(self) -> Iterator[tuple[int, dict[str, Json]]]:
        """Yield (row, finding with its texts) by row, findings of a row in the order found."""
        import numpy

        self._stream.flush()
        order = numpy.argsort(numpy.frombuffer(self._rows, dtype=f"u{self._rows.itemsize}"), kind="stable")
        with self._path.open("rb") as stream:
            at = 0
            for index in order.tolist():
                if self._offsets[index] != at:
                    stream.seek(self._offsets[index])
                line = stream.readline()
                at = self._offsets[index] + len(line)
                row, *found = json.loads(line)
                yield row, _write_finding(row, found)

    def close(self) -> None:
        """Close and remove the file."""
        self._stream.close()
        self._path.unlink(missing_ok=True)


def shorten(value: object) -> str:
    """A short text of any value, on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= _SHORT_CHARS else text[:_SHORT_CHARS] + "…"


def _write_finding(row: int, found: list[Json]) -> dict[str, Json]:
    file, code, column, value, texts, severity = found
    kind = KINDS[str(code)]
    shown: dict[str, str] = {"rows": str(row), "count": "1", "column": str(column or "")}
    if isinstance(texts, dict):
        shown |= {name: str(text) for name, text in texts.items()}
    return {
        "code": code,
        "severity": severity,
        "file": file,
        "row": row,
        "column": column,
        "value": value,
        "message_zh": kind.zh.format(**shown),
        "message_en": kind.en.format(**shown),
        "fix": str(kind.fix) if kind.fix else None,
    }


def _describe_fix(kind: Kind, asked: FixAction | None, severity: Severity) -> Json:
    if kind.fix is None and not kind.offers:
        return None
    return {
        "action": str(kind.fix or Remedy.REVIEW),
        "auto": severity is Severity.FIXED,
        "asked": None if asked is None else str(asked),
        "offers": [str(action) for action in kind.offers],
    }


def _write(value: object) -> str:
    return ", ".join(str(item) for item in value[:20]) if isinstance(value, list) else shorten(value)
