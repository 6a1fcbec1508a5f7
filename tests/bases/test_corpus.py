"""The generated text is deterministic, and the example task's names and shapes are nowhere in it."""

import re
from itertools import chain

from examples.bases.corpus import WRITERS, generate_rows
from examples.bases.faults import FAULT_KINDS
from examples.bases.recipes import DEMO_BASES
from examples.bases.rows import Row
from examples.tasks import work_order_words as words
from examples.tasks.work_orders import generate_rows as generate_task_rows

_LEAST_TEXTS = 4000


def _text_of(row: Row) -> str:
    return row.text + "\n".join(message.content for message in row.messages)


def _all_text() -> str:
    rows = list(generate_rows(dict.fromkeys(WRITERS, 1.0), seed=5, count=_LEAST_TEXTS))
    assert len(rows) == _LEAST_TEXTS
    return "\n".join(_text_of(row) for row in rows)


def _fixed_parts(shapes: tuple[str, ...]) -> set[str]:
    """The longest literal stretch of each sentence shape."""
    return {max(re.split(r"\{\w+\}", shape), key=len).strip() for shape in shapes}


def test_same_seed_gives_same_rows_and_another_seed_others() -> None:
    mix = DEMO_BASES[0].mix
    first, again, other = (list(generate_rows(mix, seed=seed, count=200)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_every_writer_gives_text_and_chats_end_with_an_answer() -> None:
    for name in WRITERS:
        for row in generate_rows({name: 1.0}, seed=3, count=30):
            assert bool(row.text) != bool(row.messages), name
            assert not row.messages or row.messages[-1].role == "assistant"
            assert all(message.content for message in row.messages)


def test_recipes_mix_known_writers_and_have_distinct_names() -> None:
    assert len({recipe.folder_name for recipe in DEMO_BASES}) == len(DEMO_BASES) >= 3
    for recipe in DEMO_BASES:
        assert set(recipe.mix) <= set(WRITERS)
        assert recipe.hidden_size // recipe.heads in (32, 64)
        assert recipe.intermediate_size % 64 == 0
        assert recipe.max_position >= 1024


def test_the_tasks_equipment_is_unknown_to_the_bases_and_held_out_names_to_training() -> None:
    text = _all_text()
    train = set(chain.from_iterable(words.TRAIN_EQUIPMENT))
    valid = set(chain.from_iterable(words.VALID_EQUIPMENT))
    assert len(train) >= 30
    assert len(valid) >= 24
    assert not train & valid
    assert [name for name in train | valid if name in text] == []
    train_text = "\n".join(row.question for row in generate_task_rows() if row.split == "train")
    assert [name for name in valid if name in train_text] == []


def test_the_tasks_sentence_shapes_are_unknown_to_the_bases_and_held_out_shapes_to_training() -> None:
    text = _all_text()
    train = _fixed_parts(words.TRAIN_SHAPES_ZH + words.TRAIN_SHAPES_EN)
    valid = _fixed_parts(words.VALID_SHAPES_ZH + words.VALID_SHAPES_EN)
    assert not train & valid
    assert [part for part in train | valid if len(part) > 2 and part in text] == []
    train_text = "\n".join(row.question for row in generate_task_rows() if row.split == "train")
    assert [part for part in valid if len(part) > 2 and part in train_text] == []


def test_no_text_ties_a_fault_to_a_code() -> None:
    rows = [_text_of(row) for row in generate_rows(dict.fromkeys(WRITERS, 1.0), seed=5, count=_LEAST_TEXTS)]
    symptoms = [phrase for kind in FAULT_KINDS for phrase in kind.symptoms_zh + kind.symptoms_en]
    with_fault = [text for text in rows if any(symptom in text for symptom in symptoms)]
    assert len(with_fault) > 1000
    assert [text for text in with_fault if re.search(r"=\s?[A-Z]\d?", text)] == []
    answers = {row.answer for row in generate_task_rows()}
    assert len(answers) == 24
    assert [answer for answer in answers if any(answer in text for text in rows)] == []
