"""The example task's upload: held-out rows are marked, no question repeats, three formats say the same."""

import csv
import json
from pathlib import Path

import openpyxl
import pytest

from examples.tasks.upload import write_upload
from examples.tasks.work_orders import RECIPE, generate_rows, main
from finetune.recipe_bounds import BOUNDS


def test_rows_are_deterministic_marked_and_distinct() -> None:
    rows = generate_rows()
    assert rows == generate_rows()
    assert len([row for row in rows if row.split == "valid"]) >= 200
    assert {row.split for row in rows} == {"train", "valid"}
    assert len({row.question for row in rows}) == len(rows)


def test_the_three_formats_hold_the_same_rows(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv", "xlsx"):
        assert main([str(tmp_path), "--format", kind]) == 0
    chats = [json.loads(line) for line in (tmp_path / "work_orders.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [(chat["messages"][0]["content"], chat["messages"][1]["content"], chat["split"]) for chat in chats]
    with (tmp_path / "work_orders.csv").open(encoding="utf-8-sig", newline="") as stream:
        table = [tuple(line) for line in csv.reader(stream)]
    book = openpyxl.load_workbook(tmp_path / "work_orders.xlsx", read_only=True)
    sheet = [tuple(line) for line in book.worksheets[0].iter_rows(values_only=True)]
    book.close()
    assert table == sheet
    assert table[0] == ("故障描述", "标准编码", "split")
    assert table[1:] == expected


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unsupported_format: \.txt; use \.jsonl, \.csv or \.xlsx"):
        write_upload(tmp_path / "rows.txt", generate_rows(train_rows=2, valid_rows=1))


def test_the_recipe_keeps_within_the_bounds() -> None:
    for name, value in RECIPE.items():
        assert BOUNDS[name].low <= value <= BOUNDS[name].high
