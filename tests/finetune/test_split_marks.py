"""Rows that the customer marks for validation are held out, exactly those."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.__main__ import main
from finetune.spec import ColumnRole, Data, Kind, RunSpec, SourceFormat


def _check(tmp_path: Path, lines: list[str], suffix: str, **data: Any) -> tuple[int, dict[str, Any], Path]:
    source = tmp_path / f"rows.{suffix}"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(str(source), SourceFormat(suffix), **data))
    (tmp_path / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    out = tmp_path / "out"
    code = main([str(tmp_path / "spec.json"), str(out)])
    return code, json.loads((out / "report.json").read_text(encoding="utf-8")), out


def _row(number: int, split: str | None) -> str:
    messages = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number % 7}"}]
    return json.dumps({"messages": messages} | ({} if split is None else {"split": split}))


def _read_questions(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row["messages"][0]["content"] for row in rows]


def test_marked_jsonl_rows_are_the_validation_rows(tmp_path: Path) -> None:
    lines = [_row(n, "valid" if n % 3 == 0 else "train" if n % 3 == 1 else None) for n in range(60)]
    code, report, out = _check(tmp_path, lines, "jsonl")
    assert (code, report["summary"]["train_rows"], report["summary"]["valid_rows"]) == (0, 40, 20)
    assert _read_questions(out / "valid.jsonl") == [f"q{n}" for n in range(0, 60, 3)]


@pytest.mark.parametrize("mapping", [{}, {"现象": "prompt", "标准": "completion", "split": "split"}])
def test_marked_csv_rows_are_the_validation_rows(tmp_path: Path, mapping: dict[str, str]) -> None:
    lines = ["现象,标准,split", *(f"q{n},a{n % 7},{'验证' if n < 15 else 'train'}" for n in range(60))]
    roles = {name: ColumnRole(role) for name, role in mapping.items()}
    code, _, out = _check(tmp_path, lines, "csv", mapping=roles)
    assert code == 0
    assert _read_questions(out / "valid.jsonl") == [f"q{n}" for n in range(15)]


def test_a_training_row_that_asks_a_marked_question_is_left_out(tmp_path: Path) -> None:
    lines = [_row(n, "valid" if n < 20 else None) for n in range(60)]
    twin = json.loads(lines[0]) | {"split": "train"}
    twin["messages"][1]["content"] = "another"
    code, report, out = _check(tmp_path, [*lines, json.dumps(twin)], "jsonl")
    assert code == 0
    assert "train_valid_overlap" in {issue["code"] for issue in report["issues"]}
    assert "q0" not in _read_questions(out / "train.jsonl")


def test_unknown_marks_and_marks_on_all_rows_are_errors(tmp_path: Path) -> None:
    code, report, _ = _check(tmp_path, [_row(n, "test" if n == 7 else None) for n in range(60)], "jsonl")
    assert code == 78
    assert (report["issues"][0]["code"], report["issues"][0]["row"]) == ("split_unrecognized", 8)
    code, report, _ = _check(tmp_path, [_row(n, "valid") for n in range(60)], "jsonl")
    assert code == 78
    assert report["issues"][0]["code"] == "split_leaves_no_train"
