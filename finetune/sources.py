"""Raw uploads to rows: JSON lines, CSV and XLSX, streaming, with the row numbers that the customer sees.

Leaves the meaning of columns and messages to `finetune.chats`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from finetune.codec import Json
from finetune.issues import IssueLog
from finetune.records import MOST_ROWS, Record, find_delimiter, read_csv_records, read_line_records
from finetune.spec import SourceFormat
from finetune.text_lines import LineProblem, detect_encoding, read_text_lines
from finetune.workbook import FORMULA_ERRORS, SheetRecord, WorkbookError, open_sheet

MOST_MB = 1024
_MOST_TITLE_ROWS = 10
_MOST_COLUMNS = 500
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_EXPONENT = re.compile(r"\s*\d\.?\d*[Ee]\+?\d{2}\s*")
_NONE_TOLD: frozenset[str] = frozenset()
"""Of nearly every row: one for all of them."""


@dataclass(frozen=True)
class SourceRow:
    """One row as read; `number` is the line of JSONL, the record of CSV or the row of the sheet (the first is 1).

    A row that is lost stays out for what was said of it; its cells are looked at all the same, but for those in `told`.
    """

    number: int
    cells: dict[str, Json]
    told: frozenset[str] = _NONE_TOLD
    is_lost: bool = False


@dataclass(frozen=True)
class Upload:
    """A file that can be read: its records from the start, and for tables the header and the row where it stands."""

    kind: SourceFormat
    read: Callable[[], Iterator[Record]]
    header: tuple[str, ...] = ()
    header_row: int = 0
    delimiter: str = ","


def open_upload(path: Path, kind: SourceFormat, issues: IssueLog) -> Upload | None:
    """Look at the head of a file; None (with an issue) if there is no way to read it."""
    size_mb = path.stat().st_size // 1_000_000
    if size_mb > MOST_MB:
        issues.add("file_too_large", size=size_mb, limit=MOST_MB)
        return None
    try:
        return _open_workbook(path, issues) if kind is SourceFormat.XLSX else _open_text(path, kind, issues)
    except WorkbookError as error:
        issues.add(error.problem.code, **error.problem.values)
        return None


def read_rows(upload: Upload, issues: IssueLog) -> Iterator[SourceRow]:
    """All rows with cells that can be told apart; what cannot be read is added to `issues`."""
    count = 0
    try:
        for record in upload.read():
            is_blank = not record.problem and not any(cell.strip() for cell in record.cells)
            if record.number <= upload.header_row or is_blank:
                continue
            count += 1
            if count > MOST_ROWS:
                issues.add("too_many_rows", limit=MOST_ROWS)
                return
            row = _read_record(record, upload, issues)
            if row is not None:
                yield row
    except WorkbookError as error:
        issues.add(error.problem.code, **error.problem.values)


def _read_record(record: Record, upload: Upload, issues: IssueLog) -> SourceRow | None:
    if record.problem is not None:
        shown = upload.delimiter.join(record.cells)
        issues.add(record.problem.code, row=record.number, value=shown, **record.problem.values)
        # the cells of a table stay apart whatever bytes are in them; of a line of JSON nothing is sure
        if upload.kind is SourceFormat.JSONL or record.problem.code != LineProblem.INVALID_BYTES:
            return None
    if upload.kind is SourceFormat.JSONL:
        return _parse_line(record, issues)
    row = _read_cells(record, upload, issues)
    return row if row is None or record.problem is None else replace(row, is_lost=True)


def _open_text(path: Path, kind: SourceFormat, issues: IssueLog) -> Upload | None:
    encoding = detect_encoding(path)
    if encoding is None:
        issues.add("encoding_unknown")
        return None
    if not encoding.startswith("utf-8"):
        issues.add("encoding_not_utf8", encoding=encoding.upper())
    if kind is SourceFormat.JSONL:
        return Upload(kind, lambda: read_line_records(read_text_lines(path, encoding), encoding))
    first = next(read_text_lines(path, encoding), None)
    delimiter = find_delimiter(first.text if first else "")

    def read() -> Iterator[Record]:
        return read_csv_records(read_text_lines(path, encoding), encoding, delimiter)

    return _add_header(Upload(kind, read, delimiter=delimiter), read(), issues)


def _open_workbook(path: Path, issues: IssueLog) -> Upload | None:
    sheet, records = open_sheet(path)
    if sheet.sheets > 1:
        issues.add("xlsx_multiple_sheets", sheets=sheet.sheets, sheet=sheet.name)
    upload = _add_header(Upload(SourceFormat.XLSX, lambda: open_sheet(path)[1]), records, issues)
    records.close()
    return upload


def _add_header(upload: Upload, records: Iterator[Record], issues: IssueLog) -> Upload | None:
    row, header = _find_header(records)
    if len(header) > _MOST_COLUMNS:
        why = f"{len(header)} columns, limit {_MOST_COLUMNS}"
        issues.add("file_unreadable", format=str(upload.kind).upper(), why=why)
        return None
    if row > 1:
        issues.add("title_rows_skipped", header=row)
    for index, name in enumerate(header):
        if not name or name in header[:index]:
            issues.add("header_invalid", column=name or f"#{index + 1}")
    return replace(upload, header=tuple(header), header_row=row)


def _find_header(records: Iterator[Record]) -> tuple[int, list[str]]:
    """The first row with two names that is not merged sideways; a title above a table has one cell."""
    first: tuple[int, list[str]] = (1, [])
    for record in records:
        cells = [cell.strip() for cell in record.cells]
        while cells and not cells[-1]:
            cells.pop()
        spread = isinstance(record, SheetRecord) and bool(record.spread)
        if not first[1]:
            first = (record.number, cells)
        if len([cell for cell in cells if cell]) >= 2 and not spread:
            return record.number, cells
        if record.number >= _MOST_TITLE_ROWS:
            break
    return first


def _parse_line(record: Record, issues: IssueLog) -> SourceRow | None:
    text = record.cells[0]
    repeated: set[str] = set()
    outer: set[str] = set()

    def build(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        outer.clear()  # the object around all others is built last
        if len(found) != len(pairs):
            outer.update(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            repeated.update(outer)
        return found

    try:
        value = json.loads(text, object_pairs_hook=build, parse_constant=_refuse_constant)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else _explain(error)
        character = getattr(error, "pos", 0) + 1
        near = text[max(0, character - 20) :]
        issues.add("invalid_json", row=record.number, value=near, why=why, character=character)
        return None
    if not isinstance(value, dict):
        issues.add("row_not_object", row=record.number, value=text)
        return None
    for name in sorted(repeated):
        issues.add("duplicate_key", row=record.number, column=name)
    return SourceRow(record.number, value, frozenset(outer) if outer else _NONE_TOLD, bool(repeated))


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON number")


def _explain(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "half of a surrogate pair"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _read_cells(record: Record, upload: Upload, issues: IssueLog) -> SourceRow | None:
    """A row of a table, with what its cells show of the software that wrote them."""
    header, cells = upload.header, record.cells
    told = _NONE_TOLD
    if isinstance(record, SheetRecord):
        cells = (cells + [""] * (len(header) - len(cells)))[: len(header)]
        if not any(cell.strip() for cell in cells):
            return None
        told = _check_sheet_row(record, header, issues)
    elif len(cells) > len(header) and not any(cell.strip() for cell in cells[len(header) :]):
        cells = cells[: len(header)]  # a comma at the end of every line
    elif len(cells) != len(header):
        issues.add("csv_column_count", row=record.number, value=len(cells), wanted=len(header))
        return None
    for index in (index for index, cell in enumerate(cells) if cell in FORMULA_ERRORS):
        issues.add("xlsx_formula_error", row=record.number, column=header[index], value=cells[index])
        told |= {header[index]}
    mangled = record.mangled if isinstance(record, SheetRecord) else ()
    written = (index for index, cell in enumerate(cells) if "+" in cell and _EXPONENT.fullmatch(cell))
    lost = [index for index in chain(mangled, written) if index < len(header)]
    for index in lost:
        issues.add("number_mangled", row=record.number, column=header[index], value=cells[index])
    if lost and issues.fix_of("number_mangled"):
        told |= {header[index] for index in lost}
    named: dict[str, Json] = dict(zip(header, cells, strict=True))
    return SourceRow(record.number, named, told, bool(told))


def _check_sheet_row(record: SheetRecord, header: Sequence[str], issues: IssueLog) -> frozenset[str]:
    """Tell what was merged; returns the columns of which nobody knows what belongs to them."""
    for index in record.filled:
        if index < len(header):
            issues.add("xlsx_merged_cells", row=record.number, column=header[index], value=record.cells[index])
    told = _NONE_TOLD
    for first, last in record.spread:
        if first < len(header):
            issues.add("xlsx_merged_across", row=record.number, column=header[first], value=record.cells[first])
            told |= set(header[first : last + 1])
    return told
