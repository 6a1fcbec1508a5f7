"""The short-text format keeps positions, and the scorer gives what a count by hand gives."""

from pathlib import Path

import pytest

from examples.bases.short_text import MAX_WORDS, read_answer, write_answer, write_letter_prompt, write_prompt
from examples.tasks.maintnorm import (
    PLANS,
    Sentence,
    build_upload,
    learn_most_frequent,
    read_correction,
    read_sentences,
    score_error_reduction,
    score_most_frequent,
)
from finetune.recipe_bounds import BOUNDS

_WORDS = ("XY12", "RPL", "Left", "pump", "w", "shop", "PLC", "=")
_RIGHT = ("<id>", "replace", "left", "pump", "workshop", "", "PLC", "=")


def _write_factory(folder: Path, name: str, lines: str) -> None:
    (folder / f"company_{name}.norm").write_text(lines, encoding="utf-8")


def test_prompt_and_answer_number_each_word() -> None:
    assert write_prompt(_WORDS[:3]) == "① xy12② rpl③ left"
    assert write_answer(_WORDS, _RIGHT) == "① <id>② replace③ =④ =⑤ workshop⑥ ~⑦ ^⑧ ="
    assert write_letter_prompt((*_WORDS[:3], "wIg", "pump")) == '①"xy12②"rpl③\'left④`wig⑤pump'
    assert write_answer(_WORDS, _RIGHT, blank="") == "①<id>②replace③=④=⑤workshop⑥~⑦^⑧="
    assert read_answer(_WORDS, write_answer(_WORDS, _RIGHT)) == list(_RIGHT)


def test_positions_survive_missing_extra_and_disordered_items() -> None:
    assert read_answer(("A", "B", "C"), "③ see④ lost① =") == ["a", "B", "see"]
    assert read_answer(("A",), "no numbers") == ["A"]


def test_a_sentence_too_long_is_refused_with_its_length() -> None:
    with pytest.raises(ValueError, match=f"short_text_too_long: 51 words, at most {MAX_WORDS}"):
        write_prompt(["x"] * 51)


def test_error_reduction_is_what_a_count_by_hand_gives() -> None:
    # had to change: A B C D (right: A B, wrong: C, left as it was: D); had to stay: e f (spoilt: f)
    sentences = [Sentence(("A", "B", "C"), ("a", "", "see saw")), Sentence(("D", "e", "f"), ("d", "e", "f"))]
    corrected = [["a", "", "see"], ["D", "e", "g"]]
    assert score_error_reduction(sentences, corrected) == pytest.approx(100 * (2 - 1) / 4)
    assert score_error_reduction(sentences, [one.right for one in sentences]) == 100
    assert score_error_reduction(sentences, [one.raw for one in sentences]) == 0


def test_misaligned_or_unlabelled_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zip\(\) argument"):
        score_error_reduction([Sentence(("A", "b"), ("a", "b"))], [["a"]])
    with pytest.raises(ValueError, match="nothing_to_correct"):
        score_error_reduction([Sentence(("a",), ("a",))], [["a"]])


def test_files_are_read_scored_and_turned_into_rows(tmp_path: Path) -> None:
    _write_factory(tmp_path, "a.train", "PMP\tpump\nok\n\nPMP\tpump\nLK\t\n\nPMP\tpimp\n")
    _write_factory(tmp_path, "a.val", "PMP\tpump\nLK\t\nok\n\nNEW\tnew\n\n")
    train, val = read_sentences(tmp_path, "A", "train"), read_sentences(tmp_path, "A", "val")
    assert train[0] == Sentence(("PMP", "ok"), ("pump", "ok"))
    assert val[0].right == ("pump", "", "ok")
    assert learn_most_frequent(train) == {"PMP": "pump", "ok": "ok", "LK": ""}
    assert score_most_frequent(tmp_path, "A") == pytest.approx(100 * 2 / 3)
    rows = build_upload(train, valid_rows=1)
    assert [(row.question, row.answer, row.split) for row in rows][-1] == ('①"pmp', "①pimp", "valid")
    assert read_correction(val[0], "① pump② ~③ =") == ["pump", "", "ok"]
    assert val[1].to_messages() == [{"role": "user", "content": '①"new'}]


def test_missing_and_malformed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"company_b\.train\.norm"):
        read_sentences(tmp_path, "B", "train")
    _write_factory(tmp_path, "b.train", "one\ttwo\tthree\n")
    with pytest.raises(ValueError, match=r"line_malformed: company_b\.train\.norm:1 has 3 fields"):
        read_sentences(tmp_path, "B", "train")


@pytest.mark.parametrize("name", PLANS)
def test_the_recipe_of_each_plan_keeps_within_the_bounds(name: str) -> None:
    for setting, value in PLANS[name].recipe.items():
        assert BOUNDS[setting].low <= value <= BOUNDS[setting].high


def test_the_longer_plan_trains_on_more_sentences_and_longer() -> None:
    sentences = [Sentence((f"pump{number}",), ("pump",)) for number in range(400)]
    rows = {
        name: build_upload(sentences, valid_rows=plan.valid_rows, variants=plan.variants)
        for name, plan in PLANS.items()
    }
    held = {name: sum(row.split == "valid" for row in found) for name, found in rows.items()}
    assert held == {"usual": 150, "longer": 75}
    assert PLANS["usual"].recipe["epochs"] < PLANS["longer"].recipe["epochs"]
