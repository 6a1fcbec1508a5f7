"""Hold rows out for validation: by group, in the proportions of the answers, the same rows for the same seed.

Leaves what is measured on them to train.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.issues import IssueLog
from finetune.near_rows import PairCount, find_near_rows
from finetune.row_facts import RowFacts

_SHARE = 0.1
_LEAST, _MOST = 20, 500
_MOST_LABELS, _LABEL_SHARE = 50, 0.1
_LENGTH_PARTS = 4


@dataclass(frozen=True)
class Split:
    """`train` and `valid` (n,) bool; `by` says how: marked, group or prompt; `strata` how many kinds of rows."""

    train: Any
    valid: Any
    by: str
    strata: int = 1
    groups: int = 0


def split_rows(facts: RowFacts, kept: Any, seed: int, issues: IssueLog) -> Split:
    """The rows marked by the customer; without marks 10 %, 20 to 500 rows, at most a quarter.

    Rows of a group stay together; a training row that asks what a held-out row asks is left out.
    """
    import numpy

    marked = facts.held & kept
    if marked.any():
        if marked.sum() == kept.sum():
            issues.add("split_leaves_no_train", marked=int(marked.sum()))
        train = check_groups(facts, kept & ~marked, facts.groups[marked], issues)
        return Split(remove_overlap(facts, train, facts.prompts[marked], issues), marked, "marked")
    rows = int(kept.sum())
    wanted = min(_MOST, max(_LEAST, round(_SHARE * rows)), max(1, rows // 4))
    strata = _find_strata(facts, kept)
    by, keys = ("group" if facts.has_groups else "prompt"), facts.groups
    held = _choose(keys, strata, kept, wanted=wanted, seed=seed)
    if not held and rows:
        if facts.has_groups:
            issues.add("group_too_large")
        by, keys = "prompt", facts.prompts
        held = _choose(keys, strata, kept, wanted=wanted, seed=seed)
    valid = numpy.zeros(len(facts), dtype=bool)
    valid[held] = True
    train = remove_overlap(facts, kept & ~valid, facts.prompts[valid], issues)
    return Split(train, valid, by, len(numpy.unique(strata[kept])), len(numpy.unique(keys[kept])))


def remove_overlap(facts: RowFacts, train: Any, asked: Any, issues: IssueLog) -> Any:
    """(n,) bool: training rows without those whose question is also asked in validation (digests `asked`)."""
    import numpy

    overlap = train & numpy.isin(facts.prompts, asked)
    for index in numpy.flatnonzero(overlap).tolist():
        issues.add("train_valid_overlap", row=facts.numbers[index])
    return train & ~overlap


def check_groups(facts: RowFacts, train: Any, held: Any, issues: IssueLog) -> Any:
    """Training rows of groups (digests `held`) that the customer put on both sides: said, left out on request."""
    import numpy

    if not facts.has_groups:
        return train
    both = train & numpy.isin(facts.groups, held)
    for index in numpy.flatnonzero(both).tolist():
        issues.add("group_in_both", row=facts.numbers[index])
    return train & ~both if issues.fix_of("group_in_both") else train


def check_near_overlap(facts: RowFacts, train: Any, issues: IssueLog, *, valid: RowFacts, held: Any) -> Any:
    """Training rows that nearly repeat a row of the validation file (`held` (m,) bool): said, left out on request."""
    import numpy

    start = len(valid)
    kept = numpy.concatenate((held, train))
    count = PairCount()
    near = find_near_rows(
        lambda band: numpy.concatenate((valid.read_band(band), facts.read_band(band))),
        kept,
        lambda index: valid.read_text(index) if index < start else facts.read_text(index - start),
        count=count,
        others=start,
    )
    for index, twin in near:
        row, valid_row = facts.numbers[index - start], valid.numbers[twin]
        issues.add("train_valid_near_overlap", row=row, value=f"≈ valid {valid_row}", valid_row=valid_row)
        kept[index] = not issues.fix_of("train_valid_near_overlap")
    if count.left:
        issues.add("near_overlap_cut", **count.describe())
    return kept[start:]


def _find_strata(facts: RowFacts, kept: Any) -> Any:
    """(n,) int64: kinds of rows that are held out in proportion: the answer where few differ, else a length class."""
    import numpy

    labels, kinds = numpy.unique(facts.answers, return_inverse=True)
    if len(labels) <= min(_MOST_LABELS, _LABEL_SHARE * kept.sum()):
        return kinds
    edges = numpy.quantile(facts.chars[kept], numpy.linspace(0, 1, _LENGTH_PARTS + 1)[1:-1]) if kept.any() else []
    return numpy.digitize(facts.chars, edges)


def _choose(keys: Any, strata: Any, kept: Any, *, wanted: int, seed: int) -> list[int]:
    """Indices held out: group by group, always from the kind that lacks most, until enough are held."""
    import numpy

    members: dict[int, list[int]] = defaultdict(list)
    lacking: dict[int, float] = defaultdict(float)
    rows = int(kept.sum())
    for index in numpy.flatnonzero(kept).tolist():
        members[int(keys[index])].append(index)
        lacking[int(strata[index])] += wanted / rows
    waiting: dict[int, list[int]] = defaultdict(list)
    for key in sorted(members, key=lambda key: _order(seed, key), reverse=True):
        if len(members[key]) <= 1.5 * wanted + 1:
            waiting[int(strata[members[key][0]])].append(key)
    held: list[int] = []
    while len(held) < wanted and waiting:
        kind = max(waiting, key=lambda kind: (lacking[kind], kind))
        group = members[waiting[kind].pop()]
        if not waiting[kind]:
            del waiting[kind]
        if len(held) + len(group) <= 1.5 * wanted + 1:
            held += group
            _count_down(lacking, strata, group)
    return held


def _count_down(lacking: dict[int, float], strata: Any, group: list[int]) -> None:
    for index in group:
        lacking[int(strata[index])] -= 1


def _order(seed: int, key: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def describe_split(split: Split, column: str | None) -> Mapping[str, int | str | None]:
    """The split for the report."""
    return {"by": split.by, "column": column, "groups": split.groups, "strata": split.strata}
