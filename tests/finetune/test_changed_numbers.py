"""Numbers that a spreadsheet changed are found at their rows, and what languages a file is in is told."""

import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.languages import find_language
from tests.finetune.seeded_errors import chat, sound_texts
from tests.finetune.test_seeded_errors import read_findings, run_check

CODE = "id_like_numbers_changed"
Cells = list[list[Any]]


def _rows(answers: list[Any], heading: str = "answer") -> Cells:
    return [
        ["question", heading],
        *([question, answer] for (question, _), answer in zip(sound_texts(len(answers)), answers, strict=True)),
    ]


def _write(folder: Path, kind: str, rows: Cells) -> Path:
    path = folder / f"rows.{kind}"
    if kind == "csv":
        path.write_text("\n".join(",".join(str(cell) for cell in row) for row in rows), encoding="utf-8")
        return path
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    for row in rows:
        sheet.append(row)
    book.save(path)
    return path


def _find(folder: Path, kind: str, rows: Cells) -> list[tuple[int, str, str]]:
    out = run_check(folder, _write(folder, kind, rows))
    return [(one["row"], one["column"], one["value"]) for one in read_findings(out) if one["code"] == CODE]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_numbers_without_their_leading_zeros_are_told_by_row_and_column(tmp_path: Path, kind: str) -> None:
    answers: list[Any] = [f"{n * 37:05d}" for n in range(1, 31)]
    answers[4], answers[20] = 123, 9_999
    rows = _rows(answers)
    assert _find(tmp_path, kind, rows) == [(6, "answer", "123"), (22, "answer", "9999")]
    issues = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["issues"]
    told = next(one for one in issues if one["code"] == CODE)
    assert (told["severity"], told["fix"]["action"], told["sample_rows"]) == ("W", "upload_again", [6, 22])
    assert "00000" in told["message_zh"]
    assert "look like 00000" in told["message_en"]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_days_counted_by_a_spreadsheet_are_told_among_dates(tmp_path: Path, kind: str) -> None:
    answers: list[Any] = [f"2025-03-{n:02d}" for n in range(1, 31)]
    answers[7] = 45_292
    assert _find(tmp_path, kind, _rows(answers)) == [(9, "answer", "45292")]


def test_a_column_of_dates_is_known_by_its_heading(tmp_path: Path) -> None:
    answers = [45_292 + n for n in range(30)]
    assert len(_find(tmp_path, "csv", _rows(answers, heading="结果日期"))) == 30


@pytest.mark.parametrize(
    "answers",
    [
        [n * 37 for n in range(1, 31)],
        [45_292 + n for n in range(30)],
        ["007", "008", *range(28)],
        [f"{n:05d}" if n % 2 else 123_456 + n for n in range(30)],
        [f"seal {n:03d} of {n}" for n in range(30)],
        ["0", "1", *range(2, 30)],
        ["0603", "0402", "0805", 48, 100, *(f"pack {n}" for n in range(25))],
        ["2025-03-01", "2025-03-02", "2025-03-03", 48_000, 36_527, *(f"lot {n}" for n in range(25))],
    ],
    ids=[
        "plain numbers",
        "counts that are no dates",
        "two odd cells",
        "longer numbers",
        "texts",
        "a label 0",
        "sizes",
        "few dates",
    ],
)
def test_numbers_that_nothing_speaks_against_are_left_alone(tmp_path: Path, answers: list[Any]) -> None:
    assert _find(tmp_path, "csv", _rows(answers)) == []


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("泵 E-17 漏油", "zh"),
        ("pump 3 leaks at 5 Ω, 80 °C", "en"),
        ("насос течёт", "other"),
        ("ポンプ漏れ", "other"),
        ("펌프", "other"),
        ("更换型号为 насос 的泵，检查油封并复位", "zh"),
        ("更换 ПУМП 泵", "other"),
        ("阀门с型号 А 漏油", "zh"),
        ("Жpump leaks at the seal", "en"),
        ("卡尔・马克思路 ー 号", "zh"),
        ("・ー", None),
        ("OK", None),
        ("E-204", None),
        ("12.5 mm", None),
        ("restart", None),
        ('{"fault": "E-204", "part": "seal", "count": 3}', None),
        ("Check the oil level", "en"),
        ("vérifier la pompe", "en"),
        ("1 " * 100 + "泵漏油", None),
        ("17 / 4", None),
        ("", None),
    ],
)
def test_the_writing_of_a_text(text: str, language: str | None) -> None:
    assert find_language(text) == language


@pytest.mark.parametrize(("foreign", "is_told"), [(0, False), (1, False), (4, True)])
def test_a_mix_of_languages_is_told_for_information(tmp_path: Path, foreign: int, is_told: bool) -> None:
    rows = [chat(*texts) for texts in sound_texts(40)]
    rows[:foreign] = [chat(f"泵 {n} 漏油", f"更换 {n} 号油封") for n in range(foreign)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    report = json.loads((run_check(tmp_path, source) / "report.json").read_text(encoding="utf-8"))
    found = [one for one in report["issues"] if one["code"] == "language_mix"]
    assert bool(found) is is_told
    if is_told:
        assert (found[0]["severity"], found[0]["fix"]) == ("I", None)
        assert "Chinese 10%, Latin letters (English and others) 90%, other 0%" in found[0]["message_en"]
