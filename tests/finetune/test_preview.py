"""kind=check with a base: trained spans, rows that are too long, and proof that the stop token is trained."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.__main__ import main
from finetune.files import read_row_numbers
from finetune.spec import Base, Data, FixAction, Kind, Limits, RunSpec, SpecError
from tests.finetune.conftest import read_result
from tests.finetune.seeded_errors import chat
from tests.finetune.test_seeded_errors import run_check
from tests.finetune.tiny_base import STOPLESS_TEMPLATE, TEMPLATE

CANARY = "QZCANARY"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checked")
    rows = [chat(f"{CANARY} 泵 {n} 漏油", f"更换 {n} 号油封") for n in range(40)]
    rows[6] = chat(f"{CANARY} " + "very long log " * 60, "restart")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "rows.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    return run_check(folder, folder / "rows.jsonl")


def _preview(folder: Path, base: Path, checked: Path) -> tuple[int, Path]:
    data = Data(train=str(checked / "train.jsonl"), valid=str(checked / "valid.jsonl"))
    spec = RunSpec(kind=Kind.CHECK, run_id="prv_1", base=Base(str(base)), data=data)
    (folder / "spec.json").write_text(spec.to_json(), encoding="utf-8")
    return main([str(folder / "spec.json"), str(folder / "out")]), folder / "out"


def test_tokens_are_shown_with_what_is_trained(tmp_path: Path, base: Path, checked: Path) -> None:
    code, out = _preview(tmp_path, base, checked)
    shown = json.loads((out / "preview.json").read_text(encoding="utf-8"))
    assert code == 0
    assert (shown["stop_token_trained"], shown["stop_token"]) == (True, "<|im_end|>")
    assert shown["train"]["rows"] + shown["valid"]["rows"] == 40
    pieces = shown["samples"][0]["pieces"]
    text = "".join(piece[0] for piece in pieces)
    trained = "".join(piece[0] for piece in pieces if piece[2])
    assert CANARY in text
    assert trained.startswith("更换 ")
    assert trained.endswith(" 号油封<|im_end|>")
    assert sum(piece[1] for piece in pieces) == shown["samples"][0]["count"]


def test_s4_03_rows_that_are_too_long_have_the_number_that_their_owner_sees(
    tmp_path: Path, base: Path, checked: Path
) -> None:
    _, out = _preview(tmp_path, base, checked)
    shown = json.loads((out / "preview.json").read_text(encoding="utf-8"))
    part = next(shown[name] for name in ("train", "valid") if shown[name]["over_length"])
    assert (part["over_length_rows"], part["longest_row"]) == ([13], 13)
    assert part["longest_tokens"] > shown["limit"] == 256


def test_a_template_without_a_trained_stop_is_refused(tmp_path: Path, base: Path, checked: Path) -> None:
    stopless = _copy_base(base, tmp_path / "base", STOPLESS_TEMPLATE)
    code, out = _preview(tmp_path, stopless, checked)
    assert (code, read_result(out).reason_code) == (1, "stop_token_not_trained")


def test_a_preview_needs_a_base(checked: Path) -> None:
    data = Data(train=str(checked / "train.jsonl"), valid=str(checked / "valid.jsonl"))
    with pytest.raises(SpecError, match="base"):
        RunSpec(kind=Kind.CHECK, run_id="prv_1", data=data)
    with pytest.raises(SpecError, match="format"):
        RunSpec(kind=Kind.CHECK, run_id="prv_1", data=Data(source="x"))


def test_s4_10_no_row_text_in_log_result_or_plan(
    tmp_path: Path, base: Path, checked: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = Data(train=str(checked / "train.jsonl"), valid=str(checked / "valid.jsonl"))
    spec = RunSpec(kind=Kind.CHECK, run_id="prv_1", base=Base(str(base)), data=data)
    for kind in (Kind.CHECK, Kind.PLAN):
        out, path = tmp_path / kind, tmp_path / f"{kind}.json"
        path.write_text(replace(spec, kind=kind, limits=Limits(tokens_per_s=1000.0)).to_json(), encoding="utf-8")
        assert main([str(path), str(out)]) == 0
        assert [one.name for one in out.iterdir() if CANARY.encode() in one.read_bytes()] == []
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err


def test_an_answer_of_weight_0_is_shown_but_not_trained(tmp_path: Path, base: Path) -> None:
    rows = [chat(f"泵 {n} 漏油", f"错答 {n}") for n in range(40)]
    for n, row in enumerate(rows):
        row["messages"][1]["weight"] = 0
        row["messages"] += [
            {"role": "user", "content": "再查"},
            {"role": "assistant", "content": f"更换 {n}", "weight": 1},
        ]
        row["messages"] += [
            {"role": "user", "content": "谢谢"},
            {"role": "assistant", "content": "不客气", "weight": 0},
        ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    folder = run_check(tmp_path, tmp_path / "rows.jsonl", "checked")
    code, out = _preview(tmp_path, base, folder)
    (sample, *_) = json.loads((out / "preview.json").read_text(encoding="utf-8"))["samples"]
    text = "".join(piece[0] for piece in sample["pieces"])
    trained = "".join(piece[0] for piece in sample["pieces"] if piece[2])
    assert code == 0
    assert "错答" in text
    assert "不客气" not in text
    assert (trained[:3], trained[-10:]) == ("更换 ", "<|im_end|>")
    assert "<|im_end|>" not in trained[:-10]


def _write_tool_rows(folder: Path) -> Path:
    """Checked rows, in some of which a tool is asked and answers."""
    rows = [chat(f"泵 {n} 漏油", f"更换 {n} 号油封") for n in range(40)]
    for n, row in enumerate(rows[::2]):
        row["messages"] += [
            {"role": "tool", "content": f'{{"pump": "{n}"}}'},
            {"role": "assistant", "content": f"已查 {n}"},
        ]
    (folder / "rows.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return run_check(folder, folder / "rows.jsonl", "checked")


def _copy_base(base: Path, folder: Path, template: str) -> Path:
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.mark.parametrize("content", ["message['content']", "message['content'] | tojson"])
def test_what_a_tool_said_is_read_and_not_trained_where_the_template_shows_it(
    tmp_path: Path, base: Path, content: str
) -> None:
    told = "{% if message['role'] == 'tool' %}{{ " + content + " }}{% else %}{{ message['content'] }}{% endif %}"
    template = TEMPLATE.replace("{{ message['content'] + '<|im_end|>\n' }}", told + "{{ '<|im_end|>\n' }}")
    checked = _write_tool_rows(tmp_path)
    code, out = _preview(tmp_path, _copy_base(base, tmp_path / "base", template), checked)
    assert code == 0
    samples = json.loads((out / "preview.json").read_text(encoding="utf-8"))["samples"]
    texts = ["".join(piece[0] for piece in one["pieces"]) for one in samples]
    (at, *_) = [index for index, text in enumerate(texts) if "<|im_start|>tool" in text]
    trained = "".join(piece[0] for piece in samples[at]["pieces"] if piece[2])
    assert "pump" in texts[at]
    assert "pump" not in trained
    assert "已查" in trained


@pytest.mark.parametrize(
    "unless",
    [
        "{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}",
        "{% if message['role'] == 'tool' %}{% continue %}{% endif %}",
    ],
    ids=["a template that refuses", "a template that drops"],
)
def test_tool_rows_are_refused_with_the_fix_where_the_template_has_no_place_for_them(
    tmp_path: Path, base: Path, unless: str
) -> None:
    template = TEMPLATE.replace("{% for message in messages %}", "{% for message in messages %}" + unless)
    other = _copy_base(base, tmp_path / "base", template)
    checked = _write_tool_rows(tmp_path)
    code, out = _preview(tmp_path, other, checked)
    result = read_result(out)
    assert (code, result.reason_code, result.fault) == (78, "tool_role_not_rendered", "user")
    assert "leave such rows out: the data report offers it at 'tool_role'" in result.message
    lines = (checked / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = zip(read_row_numbers(checked / "train.jsonl"), lines, strict=True)
    first = next(number for number, line in rows if '"tool"' in line)
    assert f"(first in row {first} of the data)" in result.message
    assert '"tool"' in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()[first - 1]
    fixed = run_check(tmp_path, tmp_path / "rows.jsonl", "fixed", fixes={"tool_role": FixAction.DROP})
    assert _preview(tmp_path, other, fixed)[0] == 0
