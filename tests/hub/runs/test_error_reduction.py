"""Error reduction by position: numbered words, aligned words, marks that mean "stays", and what is no normalisation."""

import pytest

from examples.bases.short_text import write_answer, write_prompt
from examples.tasks.maintnorm import Sentence, read_correction, score_error_reduction
from hub.tuning.error_reduction import align_words, count_words, error_reduction, read_corrections

RAW = ("chg", "hyd", "hose", "on", "t/hoist", "asap")
RIGHT = ("change", "hydraulic", "hose", "on", "telehoist", "")
ANSWERS = (
    write_answer(RAW, RIGHT),
    write_answer(RAW, RAW),
    write_answer(RAW, ("change", "hyd", "house", "on", "tele hoist", "")),
)


def test_it_counts_as_the_tasks_own_scorer_does() -> None:
    """The bench of the real-input task and the gate, which knows no task, agree word for word."""
    plain = ("the", "pump", "leaks", "oil", "at", "the", "seal", "again")
    sentences = [Sentence(RAW, RIGHT), *[Sentence(plain, plain)] * 3]
    kept = write_answer(plain, plain)
    for answer in ANSWERS:
        rows = read_corrections(
            [(write_prompt(RAW), ANSWERS[0], ANSWERS[0], answer), *[(write_prompt(plain), kept, kept, kept)] * 3]
        )
        ours = 100 * error_reduction([count_words(row.raw, row.right, row.adapter) for row in rows])
        told = [
            read_correction(sentence, text) for sentence, text in zip(sentences, [answer, *[kept] * 3], strict=True)
        ]
        assert ours == pytest.approx(score_error_reduction(sentences, told))


@pytest.mark.parametrize(
    ("question", "expected", "answer", "rate"),
    [
        ("Correct:\nchg the oil now", "change the oil now", "change the oil now", 1.0),
        ("chg the oil now", "change the oil now", "change the oil soon", 0.0),
        ("1. chg 2. oil", "1. change 2. oil", "1. change", 1.0),
        ("pls chg oil now", "change oil now", "change oil now", 1.0),
        ("chk t/hoist oil now", "check tele hoist oil now", "check tele hoist oil now", 1.0),
    ],
)
def test_words_without_numbers_are_aligned(question: str, expected: str, answer: str, rate: float) -> None:
    (row,) = read_corrections([(question, expected, "", answer)])
    assert error_reduction([count_words(row.raw, row.right, row.adapter)]) == rate


def test_one_word_may_become_none_or_several() -> None:
    assert align_words(["a", "b", "t/h", "c"], ["a", "b", "tele", "hoist", "c"]) == ["a", "b", "tele hoist", "c"]
    assert align_words(["a", "b", "x", "c"], ["a", "b", "c"]) == ["a", "b", "", "c"]
    assert align_words(["a", "b"], ["quite", "other", "words", "here"]) is None


def test_a_task_that_writes_new_text_has_no_rate() -> None:
    assert read_corrections([("the pump leaks", "replace the seal at once", "x", "y")] * 5) == []
    assert read_corrections([("same words here", "same words here", "x", "y")]) == []
    assert read_corrections([]) == []
