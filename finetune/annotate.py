"""Findings for people: findings.jsonl by row, and a copy of the upload in its own format with a column of findings.

Leaves finding them to the check. The copy is for a spreadsheet: no cell of it runs as a formula.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from finetune.codec import Json
from finetune.files import digest_file, sync_folder
from finetune.issues import Spool
from finetune.records import Record
from finetune.sources import Upload
from finetune.spec import SourceFormat
from finetune.workbook import WorkbookError

FINDINGS_NAME = "findings.jsonl"
COLUMN = "检查结果 findings"
_MOST_CELL_CHARS = 32_767
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f]")
_Findings = Iterator[tuple[int, list[dict[str, Json]]]]


def write_findings(out: Path, spool: Spool) -> dict[str, str]:
    """Write findings.jsonl, sorted by row; returns its digest by name."""
    path = out / FINDINGS_NAME
    partial = out / f".{FINDINGS_NAME}.tmp"
    found = hashlib.sha256()
    with partial.open("wb") as stream:
        for _, finding in spool.read_sorted():
            line = json.dumps(finding, ensure_ascii=False).encode() + b"\n"
            found.update(line)
            stream.write(line)
        _settle(stream)
    partial.replace(path)
    return {FINDINGS_NAME: found.hexdigest()}


def write_annotated(out: Path, upload: Upload) -> dict[str, str]:
    """Write annotated.<format> beside findings.jsonl; nothing where no row has a finding. Returns its digest."""
    if not (out / FINDINGS_NAME).stat().st_size:
        return {}
    name = f"annotated.{upload.kind}"
    path, partial = out / name, out / f".{name}.tmp"
    write = {SourceFormat.JSONL: _write_lines, SourceFormat.CSV: _write_csv, SourceFormat.XLSX: _write_workbook}
    try:
        with partial.open("wb") as stream:
            write[upload.kind](stream, upload, _read_by_row(out))
            _settle(stream)
    except WorkbookError:  # a sheet that breaks off midway: its report says so, and a copy cannot be made
        partial.unlink()
        return {}
    partial.replace(path)
    sync_folder(out)
    return {name: digest_file(path)}


def quote_formula(text: str) -> str:
    """A cell that no spreadsheet runs: a quote in front of what it would take for a formula (OWASP CSV injection)."""
    is_number = text[:1] in ("+", "-") and text[1:].replace(".", "", 1).isdigit()
    return f"'{text}" if text.startswith(_DANGEROUS) and not is_number else text


def _settle(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _read_by_row(out: Path) -> _Findings:
    with (out / FINDINGS_NAME).open("rb") as stream:
        found = (json.loads(line) for line in stream)
        for row, findings in groupby((one for one in found if one["file"] == "train"), key=lambda one: int(one["row"])):
            yield row, list(findings)


def _join(upload: Upload, findings: _Findings) -> Iterator[tuple[Record, list[dict[str, Json]]]]:
    """Each record with its findings; both come in the order of rows."""
    row, found = next(findings, (0, []))
    for record in upload.read():
        while row and row < record.number:
            row, found = next(findings, (0, []))
        yield record, found if row == record.number else []


def _describe(findings: list[dict[str, Json]]) -> str:
    texts = [f"[{one['severity']}] {one['column'] or ''} {one['message_zh']} {one['message_en']}" for one in findings]
    return " | ".join(" ".join(text.split()) for text in texts)[:_MOST_CELL_CHARS]


def _write_lines(stream: BinaryIO, upload: Upload, findings: _Findings) -> None:
    for record, found in _join(upload, findings):
        text = record.cells[0]
        if found:
            shown: dict[str, Json] = {"findings": _describe(found)}
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = None
            row = value if isinstance(value, dict) else {"line": text.strip()}
            text = json.dumps(row | shown, ensure_ascii=False)
        stream.write(text.rstrip("\r\n").encode("utf-8", "replace") + b"\n")


def _write_csv(stream: BinaryIO, upload: Upload, findings: _Findings) -> None:
    # with a mark, so that a spreadsheet reads Chinese; newline="" leaves the line ends to the writer
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="", write_through=True)
    writer: Any = csv.writer(text, delimiter=upload.delimiter)
    for cells in _list_rows(upload, findings):
        writer.writerow([quote_formula(cell) for cell in cells])
    text.detach()


def _write_workbook(stream: BinaryIO, upload: Upload, findings: _Findings) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    sheet: Any = book.create_sheet("findings")
    for cells in _list_rows(upload, findings):
        row: list[Any] = []
        for cell in cells:
            text: Any = _UNWRITABLE.sub("", cell[:_MOST_CELL_CHARS])
            if text.startswith("="):
                text = WriteOnlyCell(sheet, value=text)
                text.data_type = "s"
            row.append(text)
        sheet.append(row)
    book.save(stream)


def _list_rows(upload: Upload, findings: _Findings) -> Iterator[list[str]]:
    """Rows of the copy: the findings stand right of the last column of the header."""
    width = len(upload.header)
    for record, found in _join(upload, findings):
        cells = record.cells + [""] * (width - len(record.cells))
        last = COLUMN if record.number == upload.header_row else _describe(found)
        yield [*cells, last] if last else cells
