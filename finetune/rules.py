"""Rules over all rows together: enough of them, no duplicates or contradictions, answers of more than one kind.

Leaves the shape of single rows to `finetune.chats` and token lengths to plan, which has the tokenizer.
"""

from typing import Any

from finetune.issues import IssueLog
from finetune.near_rows import PairCount, find_near_rows
from finetune.row_facts import RowFacts

LEAST_ROWS = 10
_ADVISED_ROWS = 200
_DOMINANT_SHARE = 0.6
_MIXED_SHARE = 0.05


def keep_rows(facts: RowFacts, issues: IssueLog) -> Any:
    """(n,) bool: the rows that stay, after duplicates and what the customer asked to leave out."""
    import numpy

    kept = numpy.ones(len(facts), dtype=bool)
    if not len(facts):
        return kept
    first = _find_first(facts.rows)
    for index in numpy.flatnonzero(first != numpy.arange(len(facts))).tolist():
        issues.add("duplicate_rows", row=facts.numbers[index], value=f"= {facts.numbers[int(first[index])]}")
        kept[index] = False
    _check_contradictions(facts, kept, issues)
    _check_near_rows(facts, kept, issues)
    _check_variety(facts, kept, issues)
    _check_languages(facts, issues)
    return kept


def check_count(usable: int, issues: IssueLog) -> None:
    """Enough rows to learn from and to hold some out."""
    if usable < LEAST_ROWS:
        issues.add("too_few_examples", usable=usable, least=LEAST_ROWS)
    elif usable < _ADVISED_ROWS:
        issues.add("few_examples", usable=usable)


def _find_first(values: Any) -> Any:
    """(n,) int64: index of the first row with the same value."""
    import numpy

    _, first, group = numpy.unique(values, return_index=True, return_inverse=True)
    return first[group]


def _check_contradictions(facts: RowFacts, kept: Any, issues: IssueLog) -> None:
    import numpy

    usable = numpy.flatnonzero(kept)
    first = usable[_find_first(facts.prompts[usable])]
    answers = facts.answers
    for index, earlier in zip(usable.tolist(), first.tolist(), strict=True):
        if index != earlier and answers[index] != answers[earlier]:
            issues.add("contradictory_answers", row=facts.numbers[index], value=f"≠ {facts.numbers[earlier]}")
            kept[index] = not issues.fix_of("contradictory_answers")


def _check_near_rows(facts: RowFacts, kept: Any, issues: IssueLog) -> None:
    count = PairCount()
    for index, earlier in find_near_rows(facts.read_band, kept, facts.read_text, count=count):
        issues.add("near_duplicate_rows", row=facts.numbers[index], value=f"≈ {facts.numbers[earlier]}")
        kept[index] = not issues.fix_of("near_duplicate_rows")
    if count.left:
        issues.add("near_duplicates_cut", **count.describe())


def _check_variety(facts: RowFacts, kept: Any, issues: IssueLog) -> None:
    """Nothing is learned from a file that is held out: there the same only makes the score say less."""
    import numpy

    usable = numpy.flatnonzero(kept)
    if len(usable) < 2:
        return
    held = issues.is_held_out
    if len(numpy.unique(facts.prompts[usable])) == 1:
        issues.add("valid_prompts_identical" if held else "all_prompts_identical")
    _, first, counts = numpy.unique(facts.answers[usable], return_index=True, return_counts=True)
    most = int(counts.argmax())
    if counts[most] == len(usable):
        issues.add("valid_answers_identical" if held else "all_answers_identical")
    elif counts[most] > _DOMINANT_SHARE * len(usable):
        number = facts.numbers[int(usable[first[most]])]
        percent = round(100 * int(counts[most]) / len(usable))
        issues.add("valid_label_imbalance" if held else "label_imbalance", row=number, percent=percent)


def _check_languages(facts: RowFacts, issues: IssueLog) -> None:
    """For information: the shares of questions and answers, where more than one writing has a share of weight."""
    total = sum(facts.languages.values())
    if sum(count >= _MIXED_SHARE * total for count in facts.languages.values()) > 1:
        zh, en, other = (round(100 * facts.languages[name] / total) for name in ("zh", "en", "other"))
        issues.add("language_mix", zh=zh, en=en, other=other)
