"""Reads the names of an uploaded table's columns, so that a page can offer them for mapping.

It leaves reading rows and judging them to the trainer's check: a file that cannot be read simply offers no names.
"""

import csv
import io
import json
import zipfile
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from finetune.spec import SourceFormat

_HEAD_BYTES = 64 * 1024
MAX_COLUMNS = 60


def read_columns(path: Path, source_format: SourceFormat) -> list[str]:
    """Return the column names (keys of the first row for JSON lines), at most 60; empty if there are none to map."""
    try:
        found = _read_sheet(path) if source_format is SourceFormat.XLSX else _read_text(path, source_format)
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, zipfile.BadZipFile, InvalidFileException, KeyError):
        return []
    names = [name.strip() for name in found if name.strip()]
    return list(dict.fromkeys(names))[:MAX_COLUMNS]


def _read_sheet(path: Path) -> list[str]:
    book = load_workbook(path, read_only=True, data_only=True)
    try:
        sheet = book.worksheets[0]
        first = next(sheet.iter_rows(max_row=1, values_only=True), ())
    finally:
        book.close()
    return [str(value) for value in first if value is not None]


def _read_text(path: Path, source_format: SourceFormat) -> list[str]:
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    first = _decode(head).split("\n", 1)[0].rstrip("\r")
    if source_format is SourceFormat.CSV:
        delimiter = max(",;\t", key=first.count)
        return next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
    row = json.loads(first)
    # Rows of chat messages have nothing to map.
    return [] if not isinstance(row, dict) or "messages" in row or "conversations" in row else list(row)


def _decode(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", errors="ignore")
    try:
        return head.decode("utf-8-sig")
    except UnicodeDecodeError:
        return head.decode("gb18030", errors="ignore")
