"""Raw uploads to rows: JSON lines, CSV and XLSX, with the row numbers that the customer sees.

Leaves the meaning of columns and messages to `finetune.chats`.
"""

import csv
import datetime as dt
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.codec import Json
from finetune.issues import IssueLog
from finetune.spec import SourceFormat

_LARGEST_MB = 512
_LARGEST_UNPACKED_BYTES = 2 << 30
_FORMULA_ERRORS = frozenset({"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!"})


@dataclass(frozen=True)
class SourceRow:
    """One row as read; `number` is the line of JSONL, the record of CSV or the row of the sheet (header is 1)."""

    number: int
    cells: dict[str, Json]


def read_source(path: Path, kind: SourceFormat, issues: IssueLog) -> list[SourceRow]:
    """All readable rows; what cannot be read is added to `issues` and left out."""
    size_mb = path.stat().st_size // 1_000_000
    if size_mb > _LARGEST_MB:
        issues.add("file_too_large", size=size_mb, limit=_LARGEST_MB)
        return []
    if kind is SourceFormat.XLSX:
        return _read_xlsx(path, issues)
    text = _decode_text(path.read_bytes(), issues)
    if text is None:
        return []
    return list(_read_jsonl(text, issues) if kind is SourceFormat.JSONL else _read_csv(text, issues))


def _decode_text(content: bytes, issues: IssueLog) -> str | None:
    """UTF-8 with or without mark, UTF-16 with mark, GB18030; None if none of them fits."""
    has_utf16_mark = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    encodings = ["utf-16"] if has_utf16_mark else ["utf-8-sig", "gb18030"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "utf-8-sig":
            issues.add("encoding_not_utf8", encoding=encoding.upper())
        return text
    issues.add("encoding_unknown")
    return None


def _read_jsonl(text: str, issues: IssueLog) -> Iterator[SourceRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            issues.add("invalid_json", row=number, why=why, character=getattr(error, "pos", 0) + 1)
            continue
        if isinstance(value, dict):
            yield SourceRow(number, value)
        else:
            issues.add("row_not_object", row=number)


def _read_csv(text: str, issues: IssueLog) -> Iterator[SourceRow]:
    head = text.split("\n", 1)[0]
    delimiter = max((",", "\t", ";"), key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        records = list(reader)
    except csv.Error as error:
        issues.add("file_unreadable", format="CSV", why=f"{error}, line {reader.line_num}")
        return
    header = _read_header(records[0] if records else [], issues)
    for number, record in enumerate(records[1:], start=2):
        if not any(cell.strip() for cell in record):
            continue
        if len(record) != len(header):
            issues.add("csv_column_count", row=number, wanted=len(header))
            continue
        yield SourceRow(number, dict(zip(header, record, strict=True)))


def _read_xlsx(path: Path, issues: IssueLog) -> list[SourceRow]:
    """First sheet only, computed values, never macros or links."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _LARGEST_UNPACKED_BYTES:
            issues.add("file_too_large", size=unpacked // 1_000_000, limit=_LARGEST_UNPACKED_BYTES // 1_000_000)
            return []
        with path.open("rb") as stream:
            book: Any = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            rows = list(_read_sheet(book, issues))
            book.close()
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError) as error:
        issues.add("file_unreadable", format="XLSX", why=type(error).__name__)
        return []
    return rows


def _read_sheet(book: Any, issues: IssueLog) -> Iterator[SourceRow]:
    if len(book.sheetnames) > 1:
        issues.add("xlsx_multiple_sheets", sheets=len(book.sheetnames), sheet=book.sheetnames[0])
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # some writers store a wrong extent
    rows = sheet.iter_rows(values_only=True)
    first = [_write_cell(value) for value in next(rows, ())]
    while first and not first[-1]:
        first.pop()
    header = _read_header(first, issues)
    for number, values in enumerate(rows, start=2):
        cells = [_write_cell(value) for value in values][: len(header)]
        cells += [""] * (len(header) - len(cells))
        if not any(cells):
            continue
        broken = [index for index, cell in enumerate(cells) if cell in _FORMULA_ERRORS]
        for index in broken:
            issues.add("xlsx_formula_error", row=number, column=header[index], value=cells[index])
        if not broken:
            yield SourceRow(number, dict(zip(header, cells, strict=True)))


def _read_header(cells: list[str], issues: IssueLog) -> list[str]:
    header = [cell.strip() for cell in cells]
    for index, name in enumerate(header):
        if not name or name in header[:index]:
            issues.add("header_invalid", column=name or f"#{index + 1}")
    return header


def _write_cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(sep=" ")
    return str(value).strip()
