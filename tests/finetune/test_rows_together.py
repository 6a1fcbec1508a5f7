"""Rules over rows together: near duplicates, private numbers by their check digits, groups kept on one side."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.chats import ChatMessage, ChatRow
from finetune.issues import IssueLog
from finetune.masking import find_private, is_bank_card, is_identity_number, mask_private
from finetune.near_rows import measure_similarity
from finetune.row_facts import RowFacts
from finetune.rules import keep_rows
from finetune.spec import ColumnRole, FixAction
from finetune.split import Split, split_rows
from tests.finetune.seeded_errors import chat, sound_texts
from tests.finetune.test_seeded_errors import read_findings, run_check


@contextmanager
def _enter(folder: Path, rows: list[ChatRow]) -> Iterator[RowFacts]:
    with closing(RowFacts(folder / "rows.tmp")) as facts:
        for row in rows:
            facts.add(row)
        yield facts


def _row(number: int, question: str, answer: str, group: str | None = None, held: bool = False) -> ChatRow:
    return ChatRow(number, (ChatMessage("user", question), ChatMessage("assistant", answer)), group, held)


LONG = "三号车间数控铣床主轴在高速切削时出现周期性异响并伴随轻微振动，操作员已停机检查刀柄"


@pytest.mark.parametrize(
    ("other", "is_near"),
    [
        (f"{LONG}。", True),
        (f" {LONG.replace('，', ', ')}!", True),
        (LONG.replace("已停机", "停机"), True),
        (LONG.replace("轻微", "明显的").replace("已停机", "停下"), False),
        (LONG.replace("三号车间", "3 号车间"), False),
        ("液压站油温过高报警，冷却水阀没有打开，请检查电磁阀线圈与控制回路的接线端子", False),
    ],
)
def test_near_duplicates_are_told_from_rows_with_other_numbers(tmp_path: Path, other: str, is_near: bool) -> None:
    issues = IssueLog("train")
    rows = [_row(n, f"unrelated text number {n * 7919} of the file", f"reply {n}") for n in range(50)]
    with _enter(tmp_path, [_row(100, LONG, "检查轴承"), *rows, _row(200, other, "检查轴承")]) as facts:
        keep_rows(facts, issues)
    found = {one["code"]: one["sample_rows"] for one in issues.describe()}  # type: ignore[index, call-overload]
    assert found.get("near_duplicate_rows") == ([200] if is_near else None)


def test_numbers_make_rows_different() -> None:
    assert measure_similarity(f"{LONG} 3 号泵", f"{LONG} 4 号泵") == 0.0
    assert measure_similarity(f"{LONG} 3 号泵", f"{LONG}，3 号泵。") == 1.0


def test_recall_of_near_duplicates_is_above_95_percent(tmp_path: Path) -> None:
    rng = random.Random(3)
    words = [
        "主轴",
        "异响",
        "漏油",
        "轴承",
        "冷却",
        "报警",
        "停机",
        "更换",
        "检查",
        "电机",
        "阀门",
        "传感器",
        "温度",
        "压力",
    ]
    texts = ["".join(rng.choice(words) for _ in range(30)) for _ in range(400)]
    twins = [text[:-2] + "处理" for text in texts]
    rows = [_row(n, text, "好的") for n, text in enumerate([*texts, *twins], start=1)]
    issues = IssueLog("train")
    with _enter(tmp_path, rows) as facts:
        keep_rows(facts, issues)
    found = next(one for one in issues.describe() if one["code"] == "near_duplicate_rows")  # type: ignore[index, call-overload]
    assert found["count"] >= 380  # type: ignore[index, call-overload]


def _write_rows(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(chat(*pair)) for pair in pairs) + "\n", encoding="utf-8")
    return path


def _write_two_files(folder: Path) -> tuple[Path, Path]:
    """Rows 31 and 32 of the training file nearly repeat rows 4 and 3 of the other one; row 33 has another number."""
    sound = list(sound_texts(40))
    twins = [(LONG, "查轴承"), (f"{LONG} 7 号", "查轴承")]
    near = [(f"{LONG}，7 号！", "查轴承。"), (LONG.replace("已停机", "停机"), "查轴承"), (f"{LONG} 8 号", "查轴承")]
    source = _write_rows(folder / "rows.jsonl", [*sound[:30], *near])
    return source, _write_rows(folder / "valid.jsonl", [*sound[30:32], *twins, *sound[32:]])


def _by_code(out: Path) -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in _read_report(out)["issues"]}


def test_near_repeats_of_the_validation_file_are_told_with_both_rows(tmp_path: Path) -> None:
    source, valid = _write_two_files(tmp_path)
    out = run_check(tmp_path, source, valid=str(valid))
    found = [one for one in read_findings(out) if one["code"] == "train_valid_near_overlap"]
    assert [(one["file"], one["row"], one["value"]) for one in found] == [
        ("train", 31, "≈ valid 4"),
        ("train", 32, "≈ valid 3"),
    ]
    assert {(one["severity"], one["fix"]) for one in found} == {("W", "review")}
    assert "验证文件第 4 行" in found[0]["message_zh"]
    assert "repeats its row 4" in found[0]["message_en"]
    issue = _by_code(out)["train_valid_near_overlap"]
    assert (issue["count"], sorted(issue["sample_rows"]), issue["fix"]["offers"]) == (2, [31, 32], ["drop"])
    assert _read_report(out)["summary"]["train_rows"] == 33


def test_near_repeats_of_the_validation_file_are_left_out_on_request(tmp_path: Path) -> None:
    source, valid = _write_two_files(tmp_path)
    fixes = {"train_valid_near_overlap": FixAction.DROP}
    out = run_check(tmp_path, source, valid=str(valid), fixes=fixes)
    assert _by_code(out)["train_valid_near_overlap"]["severity"] == "F"
    assert _read_report(out)["summary"]["train_rows"] == 31
    rows = (out / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert ["8 号" in row for row in rows if "刀柄" in row] == [True]


def test_a_search_for_near_repeats_says_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = list(sound_texts(40))
    one = [(f"{LONG}{mark}", "检查轴承") for mark in ("", "。", "！", "？")]
    source = _write_rows(tmp_path / "rows.jsonl", [*sound[:30], *one])
    valid = _write_rows(tmp_path / "valid.jsonl", [*sound[30:], (LONG, "检查轴承!")])
    whole = _by_code(run_check(tmp_path, source, "whole", valid=str(valid)))
    assert not {"near_duplicates_cut", "near_overlap_cut"} & set(whole)
    monkeypatch.setattr("finetune.near_rows.MOST_PAIRS", 2)
    cut = _by_code(run_check(tmp_path, source, "cut", valid=str(valid)))
    assert (cut["near_duplicate_rows"]["count"], cut["train_valid_near_overlap"]["count"]) == (2, 2)
    for code in ("near_duplicates_cut", "near_overlap_cut"):
        issue = cut[code]
        assert (issue["severity"], issue["row"], issue["fix"]["action"]) == ("W", None, "upload_again")
        assert "比较 2 对行后停止（上限 2 对）；还有 1 行" in issue["message_zh"]
        assert re.search(r"stopped after 2 pairs .*the limit is 2\); 1 more rows may", issue["message_en"])


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("11010519491231002X", ["pii_identity_number"]),
        ("110105194912310021", []),
        ("6222020000000000000", ["pii_bank_card"]),
        ("6222020000000000001", []),
        ("订单 20261122000012345", []),
        ("电话 13800138000 联系", ["pii_phone"]),
        ("+86 138-0013-8000", ["pii_phone"]),
        ("138001380001", []),
        ("粤S12345", ["pii_number_plate"]),
        ("粤SD12345", ["pii_number_plate"]),
        ("a@b.cn", ["pii_email"]),
        ("M8@12", []),
        ("密码是 abcd1234", ["secret_found"]),
        ("AKIAIOSFODNN7EXAMPLE", ["secret_found"]),
        ("主轴转速 12000 r/min，压力 0.6 MPa", []),
    ],
)
def test_private_numbers_are_proved_by_their_check_digits(text: str, codes: list[str]) -> None:
    assert find_private(text) == codes
    if codes:
        assert mask_private(text) != text
        assert find_private(mask_private(text)) == []


@given(st.text("0123456789X", min_size=18, max_size=18))
def test_one_wrong_digit_is_no_identity_number(text: str) -> None:
    if text[:17].isdigit() and is_identity_number(text):
        other = str((int(text[3]) + 1) % 10)
        assert not is_identity_number(text[:3] + other + text[4:])


def test_lengths_of_bank_cards() -> None:
    assert not is_bank_card("0" * 15)
    assert is_bank_card("4111 1111 1111 1111")


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=12, max_size=120),
    labels=st.integers(1, 30),
    seed=st.integers(0, 5),
)
def test_no_group_and_no_question_is_on_both_sides(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], labels: int, seed: int
) -> None:
    rows = [_row(n, f"q{n % 40}", f"a{n % labels} {n}", f"g{group}") for n, group in enumerate(groups, start=1)]
    split = _split(tmp_path_factory.mktemp("split"), rows, seed)
    parts = [{rows[i] for i in range(len(rows)) if mask[i]} for mask in (split.train, split.valid)]
    assert not {row.prompt for row in parts[0]} & {row.prompt for row in parts[1]}
    assert parts[1] or len({row.prompt for row in rows}) == 1
    if split.by == "group":
        assert not {row.group for row in parts[0]} & {row.group for row in parts[1]}
    again = _split(tmp_path_factory.mktemp("again"), rows, seed)
    assert (again.valid == split.valid).all()


def test_the_held_out_rows_have_the_labels_of_all(tmp_path: Path) -> None:
    labels = ["故障"] * 300 + ["正常"] * 90 + ["待查"] * 10
    random.Random(1).shuffle(labels)
    rows = [_row(n, f"reading {n} of sensor", label) for n, label in enumerate(labels, start=1)]
    split = _split(tmp_path, rows, 42)
    held = [label for label, is_held in zip(labels, split.valid.tolist(), strict=True) if is_held]
    assert len(held) == 40
    assert [held.count(label) for label in ("故障", "正常", "待查")] == [30, 9, 1]


def test_a_column_of_assets_is_guessed_shown_and_can_be_changed(tmp_path: Path) -> None:
    lines = ["设备编号,问题,答案", *(f"M{n % 30},泵 {n} 漏油 {n * 7},更换 {n} 号油封" for n in range(120))]
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(lines), encoding="utf-8")
    summary = _read_report(run_check(tmp_path, source))["summary"]
    assert summary["mapping"]["设备编号"] == "group"
    assert (summary["split"]["by"], summary["split"]["column"], summary["split"]["groups"]) == ("group", "设备编号", 30)
    mapping = {"问题": ColumnRole.PROMPT, "答案": ColumnRole.COMPLETION}
    changed = _read_report(run_check(tmp_path, source, "again", mapping=mapping))["summary"]
    assert (changed["split"]["by"], changed["split"]["column"]) == ("prompt", None)


def test_marks_that_cut_through_a_group_are_told(tmp_path: Path) -> None:
    rows = [
        chat(f"q {n} of {n * 3}", f"a {n}", group=f"g{n // 2}", split="valid" if n % 10 == 0 else "train")
        for n in range(60)
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    out = run_check(tmp_path, source)
    assert [one["row"] for one in read_findings(out) if one["code"] == "group_in_both"] == [2, 12, 22, 32, 42, 52]


@pytest.mark.parametrize(
    ("rows", "mapping"),
    [
        (
            [
                {"instruction": f"explain {n}", "input": f"code E{n}" if n % 2 else "", "output": f"means {n * 3}"}
                for n in range(40)
            ],
            {"instruction": "prompt", "input": "prompt", "output": "completion"},
        ),
        (
            [{"prompt": f"explain {n}", "completion": f"means {n * 3}"} for n in range(40)],
            {"prompt": "prompt", "completion": "completion"},
        ),
        (
            [
                {"conversations": [{"from": "human", "value": f"q {n}"}, {"from": "gpt", "value": f"a {n * 3}"}]}
                for n in range(40)
            ],
            {},
        ),
    ],
)
def test_the_forms_of_jsonl(tmp_path: Path, rows: list[Any], mapping: dict[str, str]) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    report = _read_report(run_check(tmp_path, source))
    assert (report["summary"]["errors"], report["summary"]["mapping"]) == (0, mapping)
    assert report["summary"]["train_rows"] + report["summary"]["valid_rows"] == 40


def _split(folder: Path, rows: list[ChatRow], seed: int) -> Split:
    import numpy

    with _enter(folder, rows) as facts:
        return split_rows(facts, numpy.ones(len(facts), dtype=bool), seed, IssueLog("train"))


def _read_report(out: Path) -> Any:
    return json.loads((out / "report.json").read_text(encoding="utf-8"))
