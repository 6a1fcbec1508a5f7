"""A row with several faults tells all of them in one pass, each with its column, value, rule and fix."""

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.spec import ColumnRole, FixAction
from tests.finetune.seeded_errors import chat, sound_texts
from tests.finetune.test_seeded_errors import read_findings, run_check

PHONE, PLATE = "13812345678", "粤S12345"
LONG = "log of the mixer " * 2_500
MAPPING = {
    "question": ColumnRole.PROMPT,
    "answer": ColumnRole.COMPLETION,
    "note": ColumnRole.SYSTEM,
    "split": ColumnRole.SPLIT,
}


def _write_jsonl(path: Path, rows: list[Any]) -> Path:
    sound = [chat(*texts) for texts in sound_texts(40)]
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in [*sound, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _write_csv(path: Path, rows: list[str | bytes]) -> Path:
    lines = ["question,answer,note,split", *(f"{one},{other},泵,train" for one, other in sound_texts(40))]
    content = [line.encode() if isinstance(line, str) else line for line in [*lines, *rows]]
    path.write_bytes(b"\n".join(content) + b"\n")
    return path


def _write_xlsx(path: Path) -> Path:
    """Row 42 is merged from question to answer; its note and its mark have faults of their own."""
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    sheet.append(["question", "answer", "note", "split"])
    for one, other in sound_texts(40):
        sheet.append([one, other, "pump", "train"])
    sheet.append(["over both", None, "#N/A", "sometimes"])
    sheet.merge_cells("A42:B42")
    book.save(path)
    return path


def _places(out: Path, row: int) -> list[tuple[str, str | None]]:
    return sorted((one["code"], one["column"]) for one in read_findings(out) if one["row"] == row)


@pytest.mark.parametrize(
    ("row", "places"),
    [
        (
            {"messages": [{"role": "boss", "content": f"ring {PHONE}"}, {"role": "assistant"}], "split": "some"},
            [
                ("message_missing_key", "messages[1].content"),
                ("pii_phone", "messages[0].content"),
                ("split_unrecognized", "split"),
                ("unrecognized_role", "messages[0].role"),
            ],
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": f"{LONG} {PHONE}"},
                    {"role": "assistant", "content": " ", "weight": 3},
                    {"role": "user", "content": ""},
                    {"role": "assistant", "content": PLATE, "weight": 0},
                ]
            },
            [
                ("empty_answer", "messages[1].content"),
                ("empty_prompt", "messages[2].content"),
                ("pii_number_plate", "messages[3].content"),
                ("pii_phone", "messages[0].content"),
                ("untrained_end", "messages[2]"),
                ("very_long_text", "messages[0].content"),
            ],
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": "done", "weight": 0},
                    {"role": "user", "content": 7},
                    {"role": "user", "content": PHONE},
                ]
            },
            [
                ("example_missing_trained_message", "messages"),
                ("message_missing_key", "messages[1].content"),
                ("pii_phone", "messages[2].content"),
                ("role_order", "messages"),
            ],
        ),
        ({"messages": [], "split": "never"}, [("missing_messages_list", "messages"), ("split_unrecognized", "split")]),
        (
            '{"messages": [{"role": "user", "role": "user", "content": "' + PHONE + '"}], "split": "", "split": "x"}',
            [
                ("duplicate_key", "role"),
                ("duplicate_key", "split"),
                ("example_missing_assistant_message", "messages"),
                ("pii_phone", "messages[0].content"),
            ],
        ),
    ],
)
def test_a_chat_row_tells_all_its_faults(tmp_path: Path, row: Any, places: list[tuple[str, str]]) -> None:
    out = run_check(tmp_path, _write_jsonl(tmp_path / "rows.jsonl", [row]))
    assert _places(out, 41) == places
    assert [one["row"] for one in read_findings(out)] == [41] * len(places)


@pytest.mark.parametrize(
    ("row", "places"),
    [
        (
            f"{LONG} {PHONE},,{PLATE},sometimes",
            [
                ("empty_answer", "answer"),
                ("pii_number_plate", "note"),
                ("pii_phone", "question"),
                ("very_long_text", "question"),
            ],
        ),
        (",,,sometimes", [("empty_answer", "answer"), ("empty_prompt", "question")]),
        (
            f"{LONG}x,seal 9,{PLATE},sometimes",
            [("pii_number_plate", "note"), ("split_unrecognized", "split"), ("very_long_text", "question")],
        ),
        (
            f"#N/A,同上,{PHONE},",
            [("pii_phone", "note"), ("placeholder_answer", "answer"), ("xlsx_formula_error", "question")],
        ),
        (
            b"press \xff\xfe 5,,13812345678,sometimes",
            [
                ("empty_answer", "answer"),
                ("garbled_text", "question"),
                ("pii_phone", "note"),
            ],
        ),
    ],
)
def test_a_row_of_a_table_tells_all_its_faults(tmp_path: Path, row: str | bytes, places: list[Any]) -> None:
    out = run_check(tmp_path, _write_csv(tmp_path / "rows.csv", [row]), mapping=MAPPING)
    assert _places(out, 42) == sorted(places, key=lambda place: (place[0], place[1] or ""))


def test_a_merged_row_tells_the_faults_of_its_other_cells_and_blames_none_that_the_merge_hides(tmp_path: Path) -> None:
    out = run_check(tmp_path, _write_xlsx(tmp_path / "rows.xlsx"), mapping=MAPPING)
    assert _places(out, 42) == [
        ("split_unrecognized", "split"),
        ("xlsx_formula_error", "note"),
        ("xlsx_merged_across", "question"),
    ]


def test_json_values_that_are_no_text_are_told_column_by_column(tmp_path: Path) -> None:
    rows = [{"question": one, "answer": other} for one, other in sound_texts(40)]
    source = tmp_path / "rows.jsonl"
    lines = [json.dumps(row) for row in [*rows, {"question": ["a"], "answer": {"b": 1}}]]
    source.write_text("\n".join(lines), encoding="utf-8")
    assert _places(run_check(tmp_path, source), 41) == [("cell_not_text", "answer"), ("cell_not_text", "question")]


def test_the_annotated_row_says_all_its_faults_with_rule_and_value(tmp_path: Path) -> None:
    out = run_check(tmp_path, _write_csv(tmp_path / "rows.csv", [f"{PHONE},同上,泵,sometimes"]), mapping=MAPPING)
    found = [one for one in read_findings(out) if one["row"] == 42]
    copy = (out / "annotated.csv").read_text(encoding="utf-8-sig").splitlines()[41]
    assert len(found) == 3
    for one in found:
        assert one["message_zh"] in copy
        assert one["fix"]
    assert {one["value"] for one in found} == {"[手机号]", "同上", "sometimes"}


def test_a_row_left_out_anyway_blocks_nothing(tmp_path: Path) -> None:
    rows: list[str | bytes] = ["seal 9,,泵,sometimes", ",,,never"]
    out = run_check(tmp_path, _write_csv(tmp_path / "rows.csv", rows), mapping=MAPPING)
    summary = json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]
    assert (summary["ok"], summary["errors"], summary["train_rows"] + summary["valid_rows"]) == (True, 0, 40)
    chats = [
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "weight": 0}]},
        {"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "y"}], "split": "never"},
    ]
    out = run_check(tmp_path, _write_jsonl(tmp_path / "rows.jsonl", chats), "chats")
    assert _places(out, 41) == [("empty_answer", "messages[1].content")]
    assert _places(out, 42) == [("empty_prompt", "messages[0].content")]
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["summary"]["ok"] is True


def test_a_row_left_out_on_request_is_told_for_that_alone(tmp_path: Path) -> None:
    rows: list[str | bytes] = [f"#N/A,seal 9,{PHONE},sometimes"]
    source = _write_csv(tmp_path / "rows.csv", rows)
    before = json.loads((run_check(tmp_path, source, mapping=MAPPING) / "report.json").read_text(encoding="utf-8"))
    fixes = {"xlsx_formula_error": FixAction.DROP}
    out = run_check(tmp_path, source, "again", mapping=MAPPING, fixes=fixes)
    after = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (before["summary"]["errors"], after["summary"]["errors"]) == (2, 0)
    assert _places(out, 42) == [("xlsx_formula_error", "question")]
    assert after["summary"]["train_rows"] + after["summary"]["valid_rows"] == 40


def test_one_row_with_a_fault_in_every_message_fills_no_more_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.issues.MOST_FINDINGS_OF_A_CODE", 500)  # the real bound takes many rows
    row = {"messages": [{"role": "boss", "content": PHONE} for _ in range(9_000)]}
    source = _write_jsonl(tmp_path / "rows.jsonl", [row])
    fixes = {"xlsx_formula_error": FixAction.DROP}  # findings are held back row by row, not without end
    for name, asked in (("plain", {}), ("held", fixes)):
        out = run_check(tmp_path, source, name, fixes=asked)
        issues = json.loads((out / "report.json").read_text(encoding="utf-8"))["issues"]
        told = {one["code"]: (one["count"], one["listed"]) for one in issues if one["row"] == 41}
        assert told == {"unrecognized_role": (9_000, 500), "pii_phone": (9_000, 500)}
        assert len(read_findings(out)) == 1_000
