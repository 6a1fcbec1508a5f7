"""kind=check: raw uploads in three formats, reported by line in one pass."""

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.__main__ import main
from finetune.spec import ColumnRole, Data, Kind, RunSpec, SourceFormat
from tests.finetune.conftest import read_result


def _check(tmp_path: Path, source: Path, **data: Any) -> tuple[int, dict[str, Any], Path]:
    form = SourceFormat(source.suffix[1:])
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(source=str(source), format=form, **data))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    out = tmp_path / "out"
    code = main([str(tmp_path / "spec.json"), str(out)])
    return code, json.loads((out / "report.json").read_text(encoding="utf-8")), out


def _chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _by_code(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {issue["code"]: issue for issue in report["issues"]}


def test_good_chat_file_is_split_and_digested(tmp_path: Path) -> None:
    rows = [_chat(f"泵 {n} 漏油", f"更换油封 {n % 9}") for n in range(300)]
    code, report, out = _check(tmp_path, _write_jsonl(tmp_path / "a.jsonl", rows))
    result = read_result(out)
    train, valid = ((out / name).read_text(encoding="utf-8").splitlines() for name in ("train.jsonl", "valid.jsonl"))
    assert (code, result.state, report["summary"]["ok"]) == (0, "succeeded", True)
    assert (len(train), len(valid)) == (270, 30)
    assert not set(train) & set(valid)
    assert json.loads(train[0]) == rows[0]
    assert set(result.digests) == {
        "train.jsonl",
        "valid.jsonl",
        "train.rows.bin",
        "valid.rows.bin",
        "findings.jsonl",
        "report.json",
    }


def test_bad_jsonl_is_reported_by_line_in_one_pass(tmp_path: Path) -> None:
    good = [_chat(f"q{n}", f"a{n % 5}") for n in range(40)]
    bad = [
        "{not json",
        "[1]",
        {"messages": [{"role": "user", "content": "only a question"}]},
        {"messages": [{"role": "boss", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"messages": [{"role": "assistant", "content": "y"}, {"role": "user", "content": "x"}]},
        {"messages": [{"role": "user"}, {"role": "assistant", "content": "y"}]},
        {"messages": []},
        {"prompt": "other", "completion": "format"},
        _chat("empty", "  "),
        _chat("q0", "another answer"),
        _chat("q1", "a1"),
        _chat("call 13812345678", "ok \ufffd"),
    ]
    code, report, out = _check(tmp_path, _write_jsonl(tmp_path / "a.jsonl", good + bad))
    found = {code: (issue["severity"], issue["row"]) for code, issue in _by_code(report).items()}
    assert code == 78
    assert (read_result(out).fault, read_result(out).reason_code) == ("user", "data_invalid")
    assert not (out / "train.jsonl").exists()
    assert found == {
        "invalid_json": ("E", 41),
        "row_not_object": ("E", 42),
        "example_missing_assistant_message": ("E", 43),
        "unrecognized_role": ("E", 44),
        "role_order": ("E", 45),
        "message_missing_key": ("E", 46),
        "missing_messages_list": ("E", 47),
        "mixed_formats": ("E", 48),
        "empty_answer": ("F", 49),
        "contradictory_answers": ("W", 50),
        "duplicate_rows": ("F", 51),
        "pii_phone": ("W", 52),
        "garbled_text": ("W", 52),
        "few_examples": ("W", None),
    }


def test_row_text_stays_out_of_log_and_result(tmp_path: Path) -> None:
    rows = [_chat(f"secretword {n}", f"secretword {n % 3}") for n in range(30)] + ['{"secretword']
    _, _, out = _check(tmp_path, _write_jsonl(tmp_path / "a.jsonl", rows))
    for name in ("progress.jsonl", "result.json", "report.json"):
        assert "secretword" not in (out / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_csv_columns_are_recognised_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    lines = ["问题描述,处理措施"] + [f'"泵{n}，漏油",更换油封{n % 7}' for n in range(40)]
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode(encoding))
    code, report, out = _check(tmp_path, tmp_path / "a.csv")
    assert code == 0
    assert report["summary"]["mapping"] == {"问题描述": "prompt", "处理措施": "completion"}
    assert ("encoding_not_utf8" in _by_code(report)) == (encoding in ("gb18030", "utf-16"))
    assert "泵0，漏油" in "".join((out / name).read_text(encoding="utf-8") for name in ("train.jsonl", "valid.jsonl"))


def test_bad_csv_names_rows_and_columns(tmp_path: Path) -> None:
    lines = ["a,b,c"] + [f"x{n},y{n},z{n}" for n in range(20)] + ["too,few"]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    code, report, _ = _check(tmp_path, tmp_path / "a.csv", mapping={"d": ColumnRole.PROMPT})
    issues = _by_code(report)
    assert code == 78
    assert (issues["csv_column_count"]["row"], issues["mapping_column_missing"]["column"]) == (22, "d")


def test_xlsx_with_mapping_and_groups_keeps_groups_together(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["设备", "现场", "结论", "备注"])
    for n in range(120):
        sheet.append([f"设备{n % 30}", n, f"结论{n % 6}", None])
    book.save(tmp_path / "a.xlsx")
    mapping = {"设备": ColumnRole.GROUP, "现场": ColumnRole.PROMPT, "结论": ColumnRole.COMPLETION}
    code, report, out = _check(tmp_path, tmp_path / "a.xlsx", mapping=mapping)
    questions = [
        {int(json.loads(line)["messages"][0]["content"]) % 30 for line in (out / name).read_text().splitlines()}
        for name in ("train.jsonl", "valid.jsonl")
    ]
    assert code == 0
    assert report["summary"]["valid_rows"] == 20
    assert not questions[0] & questions[1]


def test_bad_xlsx_is_reported(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["question", "answer"])
    for n in range(20):
        sheet.append([f"q{n}", "#N/A" if n == 4 else f"a{n}"])
    book.create_sheet("second")
    book.save(tmp_path / "a.xlsx")
    code, report, _ = _check(tmp_path, tmp_path / "a.xlsx")
    issues = _by_code(report)
    assert code == 78
    assert (issues["xlsx_formula_error"]["row"], issues["xlsx_formula_error"]["column"]) == (6, "answer")
    assert "xlsx_multiple_sheets" in issues
    (tmp_path / "b.xlsx").write_bytes(b"PK not a workbook")
    code, report, _ = _check(tmp_path, tmp_path / "b.xlsx")
    assert (code, [issue["code"] for issue in report["issues"]]) == (78, ["file_unreadable", "too_few_examples"])


def test_own_validation_file_wins_over_the_split(tmp_path: Path) -> None:
    train = _write_jsonl(tmp_path / "t.jsonl", [_chat(f"q{n}", f"a{n % 5}") for n in range(50)])
    valid = _write_jsonl(tmp_path / "v.jsonl", [_chat(f"q{n}", f"a{n % 5}") for n in range(45, 60)])
    code, report, _ = _check(tmp_path, train, valid=str(valid))
    assert (code, report["summary"]["train_rows"], report["summary"]["valid_rows"]) == (0, 45, 15)
    assert _by_code(report)["train_valid_overlap"]["count"] == 5


def _unscored(row: dict[str, Any]) -> dict[str, Any]:
    row["messages"][1]["weight"] = 0
    return row


@pytest.mark.parametrize(
    ("held", "code", "rows"),
    [
        ([_chat(f"v{n}", "same") for n in range(12)], "valid_answers_identical", 12),
        ([_chat("v", f"a{n}") for n in range(12)], "valid_prompts_identical", 12),
        ([_chat(f"v{n}", "same" if n < 9 else f"a{n}") for n in range(12)], "valid_label_imbalance", 12),
        ([*(_chat(f"v{n}", f"a{n}") for n in range(12)), _unscored(_chat("v99", "a99"))], "valid_row_not_scored", 12),
    ],
)
def test_what_only_lowers_the_worth_of_a_validation_file_warns_and_does_not_block(
    tmp_path: Path, held: list[Any], code: str, rows: int
) -> None:
    train = _write_jsonl(tmp_path / "t.jsonl", [_chat(f"q{n}", f"a{n % 5}") for n in range(50)])
    exit_code, report, _ = _check(tmp_path, train, valid=str(_write_jsonl(tmp_path / "v.jsonl", held)))
    issue = _by_code(report)[code]
    assert (exit_code, issue["severity"], issue["file"]) == (0, "W", "valid")
    assert issue["fix"]["action"] in ("add_rows", "review")
    assert (report["summary"]["train_rows"], report["summary"]["valid_rows"]) == (50, rows)
    assert not {"all_answers_identical", "all_prompts_identical", "label_imbalance"} & set(_by_code(report))


def test_marks_of_a_split_say_nothing_in_a_validation_file(tmp_path: Path) -> None:
    train = _write_jsonl(tmp_path / "t.jsonl", [_chat(f"q{n}", f"a{n % 5}") for n in range(50)])
    held = [_chat(f"v{n}", f"a{n % 5}") | {"split": "test" if n % 2 else "train"} for n in range(12)]
    code, report, _ = _check(tmp_path, train, valid=str(_write_jsonl(tmp_path / "v.jsonl", held)))
    assert (code, report["summary"]["valid_rows"]) == (0, 12)
    assert "split_unrecognized" not in _by_code(report)


def test_a_validation_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    train = _write_jsonl(tmp_path / "t.jsonl", [_chat(f"q{n}", f"a{n % 5}") for n in range(50)])
    held = _write_jsonl(tmp_path / "v.jsonl", [_chat(f"v{n}", " ") for n in range(12)])
    code, report, _ = _check(tmp_path, train, valid=str(held))
    assert (code, _by_code(report)["no_valid_rows"]["severity"]) == (78, "E")


def test_a_group_in_both_files_is_told(tmp_path: Path) -> None:
    def write(name: str, numbers: range) -> Path:
        rows = [_chat(f"q{n}", f"a{n % 5}") | {"group": f"pump {n // 10}"} for n in numbers]
        return _write_jsonl(tmp_path / name, rows)

    train, valid = write("t.jsonl", range(50)), write("v.jsonl", range(100, 115))
    code, report, _ = _check(tmp_path, train, valid=str(valid))
    assert (code, "group_in_both" in _by_code(report)) == (0, False)
    shared = write("s.jsonl", range(45, 60))
    valid.write_text("".join(line.replace('"q', '"other q') for line in shared.read_text().splitlines(keepends=True)))
    code, report, _ = _check(tmp_path, train, valid=str(valid))
    assert _by_code(report)["group_in_both"]["count"] == 10


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([], "file_empty"),
        ([_chat(f"q{n}", "x") for n in range(30)], "all_answers_identical"),
        ([_chat("q", f"a{n}") for n in range(30)], "all_prompts_identical"),
        ([_chat(f"q{n}", f"a{n}") for n in range(5)], "too_few_examples"),
        ([{"colour": f"q{n}", "size": 1, "weight": 2} for n in range(30)], "no_format_match"),
    ],
)
def test_unlearnable_files_are_refused(tmp_path: Path, rows: list[Any], code: str) -> None:
    exit_code, report, _ = _check(tmp_path, _write_jsonl(tmp_path / "a.jsonl", rows))
    assert exit_code == 78
    assert _by_code(report)[code]["severity"] == "E"


def test_changed_or_missing_upload_is_a_data_error(tmp_path: Path) -> None:
    source = _write_jsonl(tmp_path / "a.jsonl", [_chat("q", "a")])
    spec = RunSpec(
        kind=Kind.CHECK,
        run_id="r",
        data=Data(source=str(source), format=SourceFormat.JSONL, digests={"source": "0" * 64}),
    )
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == 78
    assert read_result(tmp_path / "out").reason_code == "data_changed"


def test_wrong_usage_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.json").write_text('{"kind": "check"}', encoding="utf-8")
    assert main([]) == 2
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == 2
    assert "missing_field: run_id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "reason", "fault"),
    [
        (MemoryError(), 70, "out_of_memory", "platform"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 70, "out_of_memory", "platform"),
        (OSError(28, "No space left on device", "x"), 1, "storage_failed", "platform"),
        (ZeroDivisionError("boom"), 1, "internal", "platform"),
    ],
)
def test_every_end_has_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, reason: str, fault: str
) -> None:
    def fail(_job: object) -> None:  # the machine cannot be made to run out of memory or disk here
        raise error

    monkeypatch.setattr("finetune.__main__.execute", fail)
    spec = RunSpec(kind=Kind.CHECK, run_id="r", data=Data(source="a", format=SourceFormat.CSV))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out")]) == code
    result = read_result(tmp_path / "out")
    assert (result.state, result.reason_code, result.fault) == ("failed", reason, fault)
