"""Sixty different errors, each sown into sound rows of one format at a known row; the check has to find every one.

It leaves checking to `test_seeded_errors`. A seed is (code, row as its maker sees it, column where there is one).
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl

Cells = dict[str, Any]
_PARTS = ("pump", "valve", "belt", "motor", "spindle", "guide rail", "cooler")
_ACTS = ("replace the seal", "tighten the bolts", "clean the filter", "call the electrician", "renew the grease")


@dataclass(frozen=True)
class Seed:
    """One error: its code, what it is sown as, the column that the finding names, and the file format."""

    code: str
    format: str
    sow: Any
    column: str | None = None


def chat(question: str, answer: str, **more: Any) -> Cells:
    """A sound chat row with these texts."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def sound_texts(count: int) -> Iterator[tuple[str, str]]:
    """Yield questions and answers in which nothing is wrong and nothing repeats."""
    for number in range(count):
        part, act = _PARTS[number % 7], _ACTS[number % 5]
        yield f"{part} {number} makes noise {number * 31} at station {number % 11}", f"{act} of unit {number * 17}"


def _messages(*turns: Any) -> Cells:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def _weighted(*turns: tuple[str, Any]) -> Cells:
    """Question and answer in turn, each with a weight; None for none."""
    rows = [
        {"role": ("user", "assistant")[at % 2], "content": content} | ({} if weight is None else {"weight": weight})
        for at, (content, weight) in enumerate(turns)
    ]
    return {"messages": rows}


_Q, _A = "pump 9001 is loud near the door", "oil bearing 9001 at once"
LINES = (
    Seed("invalid_json", "jsonl", '{"messages": [}'),
    Seed("invalid_json", "jsonl", '{"messages": NaN}'),
    Seed("invalid_json", "jsonl", '{"messages": [{"role": "user", "content": "half \\ud83d"}]}'),
    Seed("invalid_json", "jsonl", "[" * 100_000),
    Seed("row_not_object", "jsonl", "[1, 2]"),
    Seed("row_not_object", "jsonl", '"just a text"'),
    Seed("duplicate_key", "jsonl", '{"messages": [], "messages": []}', "messages"),
    Seed("invalid_bytes", "jsonl", json.dumps(chat(_Q, "XX")).encode().replace(b"XX", b"bad \xff\xfe byte")),
    Seed("line_too_long", "jsonl", json.dumps(chat("x" * 1_100_000, "y"))),
    Seed("mixed_formats", "jsonl", {"prompt": "other", "completion": "format"}),
    Seed("missing_messages_list", "jsonl", {"messages": []}, "messages"),
    Seed("missing_messages_list", "jsonl", {"messages": "text"}, "messages"),
    Seed("message_not_object", "jsonl", {"messages": ["text"]}, "messages[0]"),
    Seed("message_missing_key", "jsonl", {"messages": [{"content": "x"}, {"role": "assistant", "content": "y"}]}),
    Seed("message_missing_key", "jsonl", {"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    Seed(
        "message_unrecognized_key",
        "jsonl",
        {
            "messages": [
                {"role": "user", "content": "lathe 1 stops", "name": "x"},
                {"role": "assistant", "content": "reset lathe 1"},
            ]
        },
        "messages[0].name",
    ),
    Seed("weight_invalid", "jsonl", _weighted(("loom 3 jams", None), ("stop loom 3", 2)), "messages[1].weight"),
    Seed("weight_invalid", "jsonl", _weighted(("loom 4 jams", None), ("stop loom 4", True)), "messages[1].weight"),
    Seed("weight_invalid", "jsonl", _weighted(("loom 5 jams", "0"), ("stop loom 5", 1)), "messages[0].weight"),
    Seed("weight_ignored", "jsonl", _weighted(("loom 6 jams", 1), ("stop loom 6", 1)), "messages[0].weight"),
    Seed("example_missing_trained_message", "jsonl", _weighted(("loom 7 jams", 0), ("stop loom 7", 0)), "messages"),
    Seed(
        "untrained_end",
        "jsonl",
        _weighted(("loom 8 jams", None), ("stop loom 8", 1), ("thanks", None), ("welcome", 0)),
        "messages[2]",
    ),
    Seed("unrecognized_role", "jsonl", _messages(("boss", "x"), ("assistant", "y")), "messages[0].role"),
    Seed(
        "tool_role",
        "jsonl",
        _messages(
            ("user", "how hot is oven 7"), ("assistant", "read(7)"), ("tool", "81"), ("assistant", "oven 7 has 81")
        ),
        "messages[2].role",
    ),
    Seed("role_order", "jsonl", _messages(("tool", "x"), ("assistant", "y")), "messages"),
    Seed(
        "tool_calls_without_text",
        "jsonl",
        {
            "messages": [
                {"role": "user", "content": "how hot is oven 8"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "82", "tool_call_id": "1"},
                {"role": "assistant", "content": "oven 8 has 82"},
            ]
        },
        "messages[1].tool_calls",
    ),
    Seed("role_order", "jsonl", _messages(("user", "a"), ("user", "b"), ("assistant", "c")), "messages"),
    Seed("role_order", "jsonl", _messages(("assistant", "y"), ("user", "x")), "messages"),
    Seed("role_order", "jsonl", _messages(("user", "a"), ("system", "s"), ("assistant", "c")), "messages"),
    Seed("example_missing_assistant_message", "jsonl", _messages(("user", "only")), "messages"),
    Seed(
        "role_renamed", "jsonl", _messages(("human", "crane 5 squeaks"), ("gpt", "grease crane 5")), "messages[0].role"
    ),
    Seed("split_unrecognized", "jsonl", chat(_Q, _A, split="test"), "split"),
    Seed("empty_answer", "jsonl", chat("press 8 jams", "  "), "messages[1].content"),
    Seed("empty_prompt", "jsonl", chat("\t", "open press 8"), "messages[0].content"),
    Seed("placeholder_answer", "jsonl", chat("drill 12 breaks", "同上"), "messages[1].content"),
    Seed("answer_repeats_prompt", "jsonl", chat("saw 44 is blunt", "saw 44 is blunt"), "messages[1].content"),
    Seed("garbled_text", "jsonl", chat("oven 3 \ufffd\ufffd hot", "cool oven 3"), "messages[0].content"),
    Seed("invisible_characters", "jsonl", chat("fan\u200b 6 stops", "wipe fan 6"), "messages[0].content"),
    Seed("very_long_text", "jsonl", chat("log " * 9000 + "of mixer 2", "restart mixer 2"), "messages[0].content"),
    Seed("secret_found", "jsonl", chat("PLC 7 locked", "password: Hunter2345"), "messages[1].content"),
    Seed("secret_found", "jsonl", chat("key of gateway 8", "use sk-" + "a1B2" * 8), "messages[1].content"),
)
TABLE_CSV = (
    Seed("csv_column_count", "csv", "too few"),
    Seed("csv_column_count", "csv", "one,two,three,four"),
    Seed("csv_quotes", "csv", '"never closed,answer,A1'),
    Seed("csv_quotes", "csv", '"closed"early,answer,A1'),
    Seed("invalid_bytes", "csv", b"press \xff\xfe 5,answer,A1"),
    Seed("xlsx_formula_error", "csv", "press 77 counts,#REF!,A1", "answer"),
    Seed("number_mangled", "csv", "which part is worn in press 31,6.22848E+18,A1", "answer"),
    Seed("number_mangled", "csv", "6.22848E+18,order the part anew 6,A1", "question"),
    Seed("empty_answer", "csv", "roller 66 slips,,A1", "answer"),
    Seed("empty_prompt", "csv", ",tighten roller 66,A1", "question"),
    Seed("outer_blanks", "csv", "  hoist 31 stuck  ,release hoist 31,A1", "question"),
    Seed("pii_phone", "csv", "call 13812345678 about hoist,done hoist call 1,A1", "question"),
    Seed(
        "pii_identity_number",
        "csv",
        "operator 11010519491231002X at press 2,note the operator of press 2,A1",
        "question",
    ),
    Seed("pii_bank_card", "csv", "refund for order 21,pay to 6222 0200 0000 0000 000 now,A1"),
    Seed("pii_email", "csv", "who services robot 4,mail zhang.san@example.com,A1", "answer"),
    Seed("pii_number_plate", "csv", "truck 粤S12345 blocks gate 2,move the truck from gate 2,A1", "question"),
    Seed("formula_text", "csv", "=cmd|' /C calc'!A0,do not open file 91,A1", "question"),
    Seed("markup_left", "csv", "line 9 stops<br>again,restart line 9,A1", "question"),
    Seed("full_width_characters", "csv", "泵Ａ１２漏油,更换泵油封 71,A1", "question"),
)
SHEET = (
    Seed("xlsx_formula_error", "xlsx", ["axis 5 drifts", "#N/A", "A1"], "answer"),
    Seed("xlsx_merged_across", "xlsx", ["axis 6 drifts", None, "A1"], "question"),
    Seed("xlsx_merged_cells", "xlsx", ["axis 7 drifts", "adjust axis 7 again", None], "asset"),
    Seed("number_mangled", "xlsx", [6228480402564890018, "order the bearing 6", "A1"], "question"),
    Seed("empty_answer", "xlsx", ["axis 8 drifts", None, "A1"], "answer"),
    Seed("pii_phone", "xlsx", ["ring 139 1234 5678 for axis 9", "rang about axis 9", "A1"], "question"),
    Seed("placeholder_answer", "xlsx", ["axis 10 drifts", "N/A", "A1"], "answer"),
    Seed("duplicate_rows", "xlsx", "first"),
    Seed("contradictory_answers", "xlsx", "question"),
    Seed("near_duplicate_rows", "xlsx", "nearly"),
)
SEEDS = (*LINES, *TABLE_CSV, *SHEET)
Sown = list[tuple[Seed, int]]


def write_jsonl(path: Path) -> Sown:
    """Sound rows with one seed after every second; returns the seeds with their line numbers."""
    lines: list[bytes] = []
    sown = []
    rows = sound_texts(3 * len(LINES))
    for seed in LINES:
        lines += [json.dumps(chat(*next(rows))).encode() for _ in range(2)]
        raw = seed.sow if isinstance(seed.sow, str | bytes) else json.dumps(seed.sow, ensure_ascii=False)
        lines.append(raw if isinstance(raw, bytes) else raw.encode())
        sown.append((seed, len(lines)))
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    return sown


def write_csv(path: Path) -> Sown:
    """The same as a table with three columns; a blank line is a row, as a spreadsheet counts."""
    lines = [b"question,answer,asset", b""]
    sown = []
    rows = sound_texts(3 * len(TABLE_CSV))
    for seed in TABLE_CSV:
        for _ in range(2):
            text = io.StringIO()
            csv.writer(text).writerow([*next(rows), "A1"])
            lines.append(text.getvalue().strip().encode())
        lines.append(seed.sow if isinstance(seed.sow, bytes) else seed.sow.encode())
        sown.append((seed, len(lines)))
    # Chinese rows in UTF-8 outvote the one line with wrong bytes
    path.write_bytes(b"\n".join([*lines, "泵漏油 5,更换油封 5,甲".encode(), "阀卡住 6,清洗阀芯 6,甲".encode()]) + b"\n")
    return sown


def write_xlsx(path: Path) -> Sown:
    """The same as a workbook with merged cells under a title."""
    book = openpyxl.Workbook()
    sheet: Any = book.worksheets[0]
    sheet.append(["Repairs of 2026"])
    sheet.merge_cells("A1:C1")
    sheet.append(["question", "answer", "asset"])
    sown = []
    rows = sound_texts(40)
    long = "the coolant of the machine in the second hall smells and the level is low after the weekend shift"
    sheet.append([long, "change the coolant and check the pump for leaks, then fill up to the mark", "A1"])
    for seed in SHEET:
        first = next(rows)
        sheet.append([*first, "A1"])
        sheet.append([*next(rows), "A1"])
        made = {
            "first": [*first, "A1"],
            "question": [first[0], "quite another answer", "A1"],
            "nearly": [f"{long}!", "change the coolant and check the pump for leaks; then fill up to the mark.", "A1"],
        }
        sheet.append(made[seed.sow] if isinstance(seed.sow, str) else seed.sow)
        row = sheet.max_row
        sown.append((seed, row))
        if seed.code == "xlsx_merged_across":
            sheet.merge_cells(start_row=row, end_row=row, start_column=1, end_column=2)
        if seed.code == "xlsx_merged_cells":
            sheet.merge_cells(start_row=row - 1, end_row=row, start_column=3, end_column=3)
    book.save(path)
    return sown


WRITERS: dict[str, Callable[[Path], Sown]] = {"jsonl": write_jsonl, "csv": write_csv, "xlsx": write_xlsx}
