"""Sixty sown errors are found in one pass per file, each at its own row, in Chinese and English, with a value."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from finetune.__main__ import main
from finetune.issues import KINDS
from finetune.spec import Data, FixAction, Kind, RunSpec, SourceFormat
from tests.finetune.seeded_errors import SEEDS, WRITERS, Sown

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def run_check(folder: Path, source: Path, name: str = "out", **data: Any) -> Path:
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(str(source), SourceFormat(source.suffix[1:]), **data))
    (folder / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    main([str(folder / "spec.json"), str(folder / name)])
    return folder / name


def read_findings(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "findings.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module", params=list(WRITERS))
def checked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sown, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    source = folder / f"rows.{request.param}"
    sown = WRITERS[request.param](source)
    return source, sown, run_check(folder, source)


def test_there_are_sixty_different_seeds() -> None:
    assert len(SEEDS) >= 60
    assert len({(seed.format, seed.code, str(seed.sow)) for seed in SEEDS}) == len(SEEDS)
    assert len({seed.code for seed in SEEDS}) >= 38


def test_s4_01_every_seed_is_found_at_its_row_and_column(checked: tuple[Path, Sown, Path]) -> None:
    _, sown, out = checked
    found = {(one["code"], one["row"]) for one in read_findings(out)}
    hits = sum((seed.code, row) in found for seed, row in sown)
    sys.stdout.write(f"\nseeded errors in {out.parent.name}: {hits} of {len(sown)} found at their rows in one pass\n")
    places = {(one["code"], one["row"], one["column"]) for one in read_findings(out)}
    assert [(seed.code, row) for seed, row in sown if (seed.code, row) not in found] == []
    assert [(s.code, row, s.column) for s, row in sown if s.column and (s.code, row, s.column) not in places] == []


def test_no_sound_row_is_blamed(checked: tuple[Path, Sown, Path]) -> None:
    _, sown, out = checked
    rows = {row for _, row in sown}
    assert [one for one in read_findings(out) if one["row"] not in rows and one["severity"] in ("E", "W")] == []


def test_every_finding_says_what_why_and_what_to_do(checked: tuple[Path, Sown, Path]) -> None:
    _, _, out = checked
    found = read_findings(out)
    assert [one["row"] for one in found] == sorted(one["row"] for one in found)
    for one in found:
        assert CHINESE.search(one["message_zh"])
        assert not CHINESE.search(one["message_en"])
        assert one["fix"] or one["severity"] == "I"
        assert len(one["value"] or "") <= 81
    valued = [one for one in found if one["value"] is not None]
    assert len(valued) > len(found) / 2


def test_private_values_are_masked_in_findings(checked: tuple[Path, Sown, Path]) -> None:
    text = (checked[2] / "findings.jsonl").read_text(encoding="utf-8")
    for private in ("13812345678", "139 1234 5678", "11010519491231002X", "zhang.san@", "粤S12345", "Hunter2345"):
        assert private not in text


def test_the_annotated_copy_has_the_same_rows_and_the_findings(checked: tuple[Path, Sown, Path]) -> None:
    source, sown, out = checked
    copy = out / f"annotated.{source.suffix[1:]}"
    rows = {"jsonl": _read_lines, "csv": _read_csv, "xlsx": _read_sheet}[source.suffix[1:]](copy)
    by_row = {one["row"]: one for one in read_findings(out)}
    for seed, row in sown:
        assert KINDS[seed.code].zh.split("{")[0][:2] in rows[row - 1]
    untouched = [row for row in range(3, len(rows)) if row not in by_row]
    assert len(untouched) > 5
    assert not any("[E]" in rows[row - 1] for row in untouched)


def test_one_click_for_every_offer_leaves_no_error(checked: tuple[Path, Sown, Path], tmp_path: Path) -> None:
    source, _, out = checked
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    offers = {one["code"]: one["fix"]["offers"] for one in report["issues"] if one["fix"] and one["fix"]["offers"]}
    fixes = {code: FixAction(actions[0]) for code, actions in offers.items()}
    fixed = run_check(tmp_path, source, fixes=fixes)
    again = json.loads((fixed / "report.json").read_text(encoding="utf-8"))
    assert report["summary"]["errors"] >= 2
    assert (again["summary"]["errors"], again["summary"]["ok"]) == (0, True)
    text = "".join((fixed / name).read_text(encoding="utf-8") for name in ("train.jsonl", "valid.jsonl"))
    for private in ("13812345678", "139 1234 5678", "11010519491231002X", "zhang.san@", "Hunter2345", "<br>"):
        assert private not in text
    assert all(one["severity"] in ("F", "W", "I") for one in again["issues"])


def _read_lines(copy: Path) -> list[str]:
    return copy.read_text(encoding="utf-8").split("\n")


def _read_csv(copy: Path) -> list[str]:
    with copy.open(encoding="utf-8-sig", newline="") as stream:
        return [" ".join(row) for row in csv.reader(stream)]


def _read_sheet(copy: Path) -> list[str]:
    sheet = openpyxl.load_workbook(copy).worksheets[0]
    return [" ".join(str(value) for value in row if value) for row in sheet.iter_rows(values_only=True)]
