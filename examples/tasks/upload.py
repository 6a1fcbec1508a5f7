"""Writes question and answer rows as the file a factory uploads: chat JSONL, CSV or XLSX with a split column.

What the rows say is left to the tasks.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UploadRow:
    """One example; `split` is train or valid, and the data check holds out exactly the valid ones."""

    question: str
    answer: str
    split: str

    def to_chat(self) -> dict[str, object]:
        """The row as one JSONL line's value."""
        messages = [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]
        return {"messages": messages, "split": self.split}


def write_upload(path: Path, rows: Sequence[UploadRow], *, question: str = "question", answer: str = "answer") -> None:
    """Write `rows` in the format of the file name's ending; tables get the columns `question`, `answer`, split.

    Raises:
        ValueError: another ending than .jsonl, .csv or .xlsx.
    """
    header = (question, answer, "split")
    if path.suffix == ".jsonl":
        lines = (json.dumps(row.to_chat(), ensure_ascii=False) for row in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as stream:  # the mark makes spreadsheets read UTF-8
            csv.writer(stream).writerows([header, *_tabulate(rows)])
    elif path.suffix == ".xlsx":
        _write_xlsx(path, header, rows)
    else:
        raise ValueError(f"unsupported_format: {path.suffix or path.name}; use .jsonl, .csv or .xlsx")


def _tabulate(rows: Iterable[UploadRow]) -> Iterable[tuple[str, str, str]]:
    return ((row.question, row.answer, row.split) for row in rows)


def _write_xlsx(path: Path, header: tuple[str, str, str], rows: Sequence[UploadRow]) -> None:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet("rows")
    for line in (header, *_tabulate(rows)):
        sheet.append(line)
    book.save(path)
