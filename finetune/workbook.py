"""XLSX workbooks to records, streaming: guarded against bombs, merged cells filled, values as a person sees them.

Leaves columns and their meaning to `finetune.sources`. First sheet only, computed values, never macros or links.
"""

import datetime as dt
import errno
import posixpath
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from finetune.records import Problem, Record

MOST_UNPACKED_BYTES = 1 << 30
_MOST_TEXT_TABLE_BYTES = 256 << 20
_MOST_RATIO, _RATIO_FROM_BYTES = 200, 64 << 20
_MOST_PARTS = 10_000
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s+ref=[\"']([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})[\"']")
_MOST_ROWS, _MOST_COLUMNS, _MOST_MERGED_AT_ONCE = 1_048_576, 2_000, 2_000
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    ElementTree.ParseError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
)
"""What zipfile and openpyxl were seen to raise on workbooks with bytes changed at random."""
_BLOCK_BYTES, _OVERLAP_BYTES = 1 << 20, 128
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
FORMULA_ERRORS = frozenset({"#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!", "#CALC!"})


class WorkbookError(Exception):
    """A workbook that is not read; `problem` is what the report says."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


@dataclass(frozen=True)
class SheetRecord(Record):
    """A row; `filled` are cells with the value of a merged one above, `spread` (first, last) of merges sideways."""

    filled: tuple[int, ...] = ()
    spread: tuple[tuple[int, int], ...] = ()
    mangled: tuple[int, ...] = ()


@dataclass
class Merged:
    """Merged ranges by their first row: (first column, last row, last column), columns from 0."""

    starts: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Sheet:
    """Name of the sheet that is read and how many there are."""

    name: str
    sheets: int


def open_sheet(path: Path) -> tuple[Sheet, Generator[SheetRecord, None, None]]:
    """The first sheet and its rows. Raises: WorkbookError."""
    import openpyxl

    with _translating():
        merged = _look_inside(path)
        book: Any = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some writers store a wrong extent
    return Sheet(sheet.title, len(book.sheetnames)), _read_rows(book, sheet, merged)


def _read_rows(book: Any, sheet: Any, merged: Merged) -> Generator[SheetRecord, None, None]:
    active: list[tuple[int, int, int, str]] = []
    with _translating(), closing(book):
        for number, cells in enumerate(sheet.iter_rows(), start=1):
            active = [one for one in active if one[1] >= number]
            _refuse_extent(number, len(cells), len(active))
            values = [write_cell(cell) for cell in cells]
            mangled = tuple(index for index, cell in enumerate(cells) if _is_mangled(cell.value))
            filled = _fill(values, active)
            spread = []
            for first, last_row, last in merged.starts.pop(number, []):
                if first < len(values):
                    active.append((first, last_row, last, values[first]))
                    if last > first and values[first]:
                        spread.append((first, last))
            yield SheetRecord(number, values, None, filled, tuple(spread), mangled)


@contextmanager
def _translating() -> Iterator[None]:
    """Whatever the archive and sheet readers raise on a broken file is the file's fault; the disk's errors are not."""
    try:
        yield
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise WorkbookError(Problem("file_unreadable", {"format": "XLSX", "why": type(error).__name__})) from error


def _refuse_extent(row: int, columns: int, merged: int) -> None:
    """A few bytes can claim a sheet of any size: what no program writes is not read."""
    if row > _MOST_ROWS or columns > _MOST_COLUMNS or merged > _MOST_MERGED_AT_ONCE:
        why = f"row {row} with {columns} columns and {merged} merged ranges is beyond what is read"
        raise WorkbookError(Problem("file_unreadable", {"format": "XLSX", "why": why}))


def _fill(values: list[str], active: list[tuple[int, int, int, str]]) -> tuple[int, ...]:
    """Put the value of a range merged downwards into its lower cells."""
    filled = []
    for first, _, last, value in active:
        if last == first and value:
            values += [""] * (first + 1 - len(values))
            if not values[first]:
                values[first] = value
                filled.append(first)
    return tuple(filled)


def write_cell(cell: Any) -> str:
    """A cell as a person sees it: whole numbers without a point, leading zeros of a format of zeros, ISO dates."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | float):
        return _write_number(value, cell.number_format)
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(sep=" ")
    return str(value)


def _write_number(value: int | float, number_format: str) -> str:
    if isinstance(value, float) and not value.is_integer():
        return repr(value)
    text = str(int(value))
    zeros = number_format if number_format and set(number_format) == {"0"} else ""
    return text.zfill(len(zeros))


def _is_mangled(value: object) -> bool:
    """A number of more than 15 digits: the sheet holds doubles, so its last digits are already lost."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 10**15


def _look_inside(path: Path) -> Merged:
    """Refuse what would unpack beyond bounds or brings its own entities; find the merged ranges of the first sheet."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        packed = max(1, path.stat().st_size)
        texts = sum(part.file_size for part in parts if part.filename.endswith("sharedStrings.xml"))
        is_bomb = unpacked > _RATIO_FROM_BYTES and unpacked > _MOST_RATIO * packed
        if unpacked > MOST_UNPACKED_BYTES or texts > _MOST_TEXT_TABLE_BYTES or is_bomb or len(parts) > _MOST_PARTS:
            sizes = {"size": unpacked // 1_000_000, "ratio": unpacked // packed}
            raise WorkbookError(Problem("archive_suspicious", sizes))
        for part in parts:
            if part.filename.endswith((".xml", ".rels")):
                with archive.open(part) as stream:
                    if b"<!DOCTYPE" in stream.read(4096):
                        why = {"format": "XLSX", "why": f"{posixpath.basename(part.filename)} declares a DOCTYPE"}
                        raise WorkbookError(Problem("file_unreadable", why))
        return _find_merged(archive, _find_sheet(archive))


def _find_sheet(archive: zipfile.ZipFile) -> str:
    """The part of the first sheet. Raises: KeyError."""
    book = ElementTree.fromstring(archive.read("xl/workbook.xml"))  # noqa: S314  entities were refused above
    relation = next((one.get(_RELATION) for one in book.iter() if one.tag.endswith("}sheet")), None)
    relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))  # noqa: S314
    target = next((one.get("Target", "") for one in relations if one.get("Id") == relation), "")
    return posixpath.normpath(target[1:] if target.startswith("/") else f"xl/{target}")


def _find_merged(archive: zipfile.ZipFile, part: str) -> Merged:
    """The ranges stand behind the rows and openpyxl's streaming reader drops them: look into the part's bytes."""
    merged = Merged()
    with archive.open(part) as stream:
        tail = b""
        while block := stream.read(_BLOCK_BYTES):
            text = tail + block
            end = 0
            for found in _MERGED.finditer(text):
                first, last = _number_column(found[1]), _number_column(found[3])
                merged.starts[int(found[2])].append((first, int(found[4]), last))
                end = found.end()
            tail = text[max(end, len(text) - _OVERLAP_BYTES) :]
    return merged


def _number_column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + letter - ord("A") + 1
    return number - 1
