"""Uploads meant to break a check: cases S4-01 to S4-03 and S4-10 of the threat list, and archives that explode."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.__main__ import main
from finetune.annotate import quote_formula
from finetune.spec import Data, Kind, RunSpec, SourceFormat
from tests.finetune.conftest import ROOT, read_result
from tests.finetune.seeded_errors import chat
from tests.finetune.test_seeded_errors import read_findings, run_check

MEBI = 1 << 20


def _lines(count: int) -> list[bytes]:
    return [json.dumps(chat(f"pump {n} at {n * 7}", f"seal {n * 3}")).encode() for n in range(count)]


def _codes(out: Path) -> dict[str, Any]:
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {issue["code"]: issue for issue in report["issues"]}


def test_s4_01_a_line_of_100_mb_is_reported_in_flat_memory(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    with source.open("wb") as stream:
        stream.write(b"\xef\xbb\xbf" + b"\r\n".join(_lines(20)) + b"\r\n\r\n")
        for _ in range(100):
            stream.write(b"x" * MEBI)
        stream.write(b"\n" + b"\n".join(_lines(40)[20:]) + b"\n")
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(str(source), SourceFormat.JSONL))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({900 * MEBI}, {900 * MEBI})); "
    # VmHWM is that program's own; ru_maxrss of a child begins with what its parent had when it forked.
    told = "; print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    code = f"{limit}import sys; from finetune.__main__ import main; main(sys.argv[1:]){told}"
    command = [sys.executable, "-c", code, str(tmp_path / "spec.json"), str(tmp_path / "out")]
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout.split()[-1]) < 200 * 1024
    found = _codes(tmp_path / "out")
    assert (found["line_too_long"]["row"], found["line_too_long"]["severity"]) == (22, "E")
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["summary"]["train_rows"] + report["summary"]["valid_rows"] == 40


def test_s4_01_a_wrong_byte_is_told_by_line_and_place(tmp_path: Path) -> None:
    lines = _lines(20)
    lines[7] = '{"messages": "泵'.encode() + b"\xff"
    lines[8] = json.dumps(chat("泵 8 漏油", "换油封 8"), ensure_ascii=False).encode()
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(lines))
    found = _codes(run_check(tmp_path, source))["invalid_bytes"]
    assert found["row"] == 8
    assert "byte 18 of the line" in found["message_en"]


def test_s4_01_utf8_with_one_wrong_byte_is_not_read_as_gb18030(tmp_path: Path) -> None:
    lines = ["问题,答案", *(f"泵{n}漏油,换油封{n}" for n in range(30))]
    content = [line.encode() for line in lines]
    content[5] = "泵".encode() + b"\xb1\xc3,abc"
    source = tmp_path / "rows.csv"
    source.write_bytes(b"\n".join(content))
    out = run_check(tmp_path, source)
    assert "encoding_not_utf8" not in _codes(out)
    assert _codes(out)["invalid_bytes"]["row"] == 6


def test_s4_02_formula_cells_are_quoted_in_the_copy_to_download(tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    evil = ["=cmd|' /C calc'!A0", "+1+cmd|x", "@SUM(A1)", "-2+3+cmd|x", '=HYPERLINK("http://x","y")']
    with source.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(
            [("question", "answer"), *((f"{text} {n}", text) for n, text in enumerate(evil * 4)), ("cell", "")]
        )
    out = run_check(tmp_path, source)
    with (out / "annotated.csv").open(encoding="utf-8-sig", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert len(cells) > 50
    assert [cell for cell in cells if cell.startswith(("=", "+", "@", "-"))] == []
    assert (quote_formula("-12.5"), quote_formula("=1")) == ("-12.5", "'=1")


def test_s4_02_formulas_in_a_workbook_stay_text(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    sheet.append(["question", "answer"])
    for n in range(20):
        sheet.append([f"pump {n} leaks", f"seal {n}"])
    sheet.append(["call 13812345678", "x"])
    sheet["A22"].data_type = "s"
    sheet.append(["text", None])
    cell = sheet["B23"]
    cell.value = "=1+1"
    cell.data_type = "s"
    book.save(tmp_path / "rows.xlsx")
    out = run_check(tmp_path, tmp_path / "rows.xlsx")
    copy: Any = openpyxl.load_workbook(out / "annotated.xlsx").worksheets[0]
    assert copy["B23"].data_type == "s"


@pytest.mark.parametrize(
    ("rows", "code"), [([], "file_empty"), ([b"\n", b"   "], "file_empty"), (_lines(1), "too_few_examples")]
)
def test_s4_03_no_row_and_one_row_are_refused(tmp_path: Path, rows: list[bytes], code: str) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(rows))
    out = run_check(tmp_path, source)
    assert _codes(out)[code]["severity"] == "E"
    assert read_result(out).reason_code == "data_invalid"


def test_s4_03_too_many_rows_end_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.sources.MOST_ROWS", 50)  # the real bound takes minutes to write
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(_lines(80)))
    out = run_check(tmp_path, source)
    assert _codes(out)["too_many_rows"]["severity"] == "E"
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]["rows"] == 50


def test_s4_10_no_row_text_leaves_the_findings_and_the_copies(tmp_path: Path) -> None:
    canary = "QZ-CANARY-88"
    rows: list[Any] = [chat(f"{canary} pump {n} at {n * 7}", f"{canary} {n % 3}") for n in range(40)]
    rows += [chat(f"{canary} 13812345678", f"{canary}\ufffd"), chat("x", canary) | {"split": canary}, {canary: 1}]
    lines = [json.dumps(row) for row in rows] + [f'{{"{canary}', f'["{canary}"]']
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(str(source), SourceFormat.JSONL))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    command = [sys.executable, "-m", "finetune", str(tmp_path / "spec.json"), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    holding = {path.name for path in (tmp_path / "out").iterdir() if canary.encode() in path.read_bytes()}
    assert holding == {"findings.jsonl", "annotated.jsonl"}
    assert canary not in done.stdout + done.stderr
    assert not list((tmp_path / "out").glob(".*"))


def test_s4_10_no_row_text_reaches_the_log_with_an_error_that_nobody_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = "QZ-CANARY-88"

    def fail(_job: object) -> None:  # whatever a library may say of the row at hand
        try:
            int(canary)
        except ValueError as error:
            raise KeyError(canary) from error

    monkeypatch.setattr("finetune.__main__.execute", fail)
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data("rows.jsonl", SourceFormat.JSONL))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert canary not in told
    assert told.endswith("KeyError\n")
    assert told.index("int(canary)") < told.index("ValueError\nwhich led to:\n") < told.index("raise KeyError")


def test_an_archive_that_explodes_is_refused_unread(tmp_path: Path) -> None:
    source = tmp_path / "rows.xlsx"
    part = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(part, "w") as stream:
        for _ in range(80):
            stream.write(b" " * MEBI)
    found = _codes(run_check(tmp_path, source))
    assert found["archive_suspicious"]["severity"] == "E"


def test_entities_in_a_workbook_are_refused(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].append(["question", "answer"])
    book.save(tmp_path / "good.xlsx")
    source = tmp_path / "rows.xlsx"
    with zipfile.ZipFile(tmp_path / "good.xlsx") as good, zipfile.ZipFile(source, "w") as bad:
        for part in good.infolist():
            content = good.read(part)
            if part.filename == "xl/worksheets/sheet1.xml":
                content = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]>' + content.partition(b"?>")[2]
            bad.writestr(part, content)
    found = _codes(run_check(tmp_path, source))["file_unreadable"]
    assert "DOCTYPE" in found["message_en"]


def test_a_quote_that_nobody_closes_costs_one_row(tmp_path: Path) -> None:
    lines = ["question,answer", *(f"pump {n} of {n * 7},seal {n}" for n in range(600))]
    lines[300] = '"pump 300 leaks,seal'
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(lines), encoding="utf-8")
    out = run_check(tmp_path, source)
    assert [(one["row"], one["code"]) for one in read_findings(out)] == [(301, "csv_quotes")]
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]["train_rows"] == 539
