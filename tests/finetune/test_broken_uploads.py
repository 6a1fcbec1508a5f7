"""Uploads with bytes changed at random: whatever they are, the check ends with findings and never with a fault."""

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.chats import ChatReader
from finetune.issues import IssueLog
from finetune.sources import open_upload, read_rows
from finetune.spec import SourceFormat
from tests.finetune.seeded_errors import WRITERS
from tests.finetune.test_seeded_errors import run_check

_ROUNDS = 60


def _read(path: Path) -> int:
    issues = IssueLog("train")
    upload = open_upload(path, SourceFormat(path.suffix[1:]), issues)
    reader = ChatReader({}, issues)
    count = 0
    for row in read_rows(upload, issues) if upload else ():
        reader.read(row)
        count += 1
    assert count or issues.describe()
    return count


def _change_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(changed))
        changed[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
    return bytes(changed)


def _change_parts(content: bytes, rng: random.Random) -> bytes:
    """The same inside the parts of a workbook, whose archive stays whole."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        for part in source.infolist():
            text = source.read(part)
            archive.writestr(part.filename, _change_bytes(text, rng) if rng.random() < 0.3 else text)
    return target.getvalue()


@pytest.mark.parametrize("kind", list(WRITERS))
def test_random_changes_end_in_findings(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    WRITERS[kind](path)
    content = path.read_bytes()
    if kind == "jsonl":
        content = b"\n".join(line for line in content.split(b"\n") if len(line) < 5_000)
    rng = random.Random(11)
    readable = 0
    for round_ in range(_ROUNDS):
        change = _change_parts if kind == "xlsx" and round_ % 2 else _change_bytes
        path.write_bytes(change(content, rng))
        readable += _read(path) > 0
    assert readable >= _ROUNDS // 20


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'<row r="5"', b'<row r="99999999999"'),
        (b'r="B5"', b'r="ZZZ5"'),
        (
            b"</sheetData>",
            b"</sheetData><mergeCells>" + b'<mergeCell ref="A2:A999999"/>' * 3000 + b"</mergeCells>",
        ),
    ],
)
def test_a_sheet_that_claims_to_be_endless_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes
) -> None:
    monkeypatch.setattr("finetune.workbook._MOST_ROWS", 1_000)  # a million empty rows take seconds
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    for number in range(20):
        sheet.append([f"question {number}", f"answer {number}"])
    book.save(tmp_path / "good.xlsx")
    source = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(tmp_path / "good.xlsx") as good, zipfile.ZipFile(source, "w") as bad:
        for part in good.infolist():
            content = good.read(part)
            bad.writestr(part.filename, content.replace(old, new) if "sheet1" in part.filename else content)
    report = json.loads((run_check(tmp_path, source) / "report.json").read_text(encoding="utf-8"))
    refused = next(issue for issue in report["issues"] if issue["code"] == "file_unreadable")
    assert "beyond what is read" in refused["message_en"]


def test_names_made_up_per_row_do_not_fill_the_report(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q {n}", f"key{n}" * 50: 1},
                {"role": "assistant", "content": f"a{n}"},
            ]
        }
        for n in range(400)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    report = run_check(tmp_path, source) / "report.json"
    issues = json.loads(report.read_text(encoding="utf-8"))["issues"]
    assert len(issues) <= 102
    assert sum(one["count"] for one in issues if one["code"] == "message_unrecognized_key") == 400
    assert report.stat().st_size < 200_000


def test_a_table_of_too_many_columns_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(",".join(f"c{n}" for n in range(90_000)) + "\nq,a\n", encoding="utf-8")
    report = json.loads((run_check(tmp_path, source) / "report.json").read_text(encoding="utf-8"))
    assert "file_unreadable" in {one["code"] for one in report["issues"]}


def test_a_comma_at_the_end_of_every_line_is_no_column(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    lines = ["question,answer,", *(f"pump {n} of {n * 7},seal {n}," for n in range(30))]
    source.write_text("\n".join(lines), encoding="utf-8")
    report = json.loads((run_check(tmp_path, source) / "report.json").read_text(encoding="utf-8"))
    assert (report["summary"]["errors"], report["summary"]["train_rows"]) == (0, 23)


@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.csv", "question,answer\na,b\nc,d\n"), ("rows.jsonl", '{"question": "a"}\n{"question": "b"}\n')],
)
def test_rows_of_which_nothing_was_told_share_one_empty_set(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    issues = IssueLog("train")
    upload = open_upload(tmp_path / name, SourceFormat(name.partition(".")[2]), issues)
    assert upload is not None
    first, second = read_rows(upload, issues)
    assert first.told is second.told
    assert not first.told
