"""Hold rows out for validation: by group, then by question, the same rows for the same seed.

Leaves what is measured on them to train.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from finetune.chats import ChatRow
from finetune.issues import IssueLog

_SHARE = 0.1
_LEAST, _MOST = 20, 500


def split_rows(rows: Sequence[ChatRow], seed: int, issues: IssueLog) -> tuple[list[ChatRow], list[ChatRow]]:
    """(train, valid): the rows marked by the customer; without marks 10 %, 20 to 500 rows, at most a quarter.

    Rows of a group stay together; a training row that asks what a marked row asks is left out.
    """
    marked = [row for row in rows if row.is_held_out]
    if marked:
        if len(marked) == len(rows):
            issues.add("split_leaves_no_train", marked=len(marked))
        return remove_overlap([row for row in rows if not row.is_held_out], marked, issues), marked
    wanted = min(_MOST, max(_LEAST, round(_SHARE * len(rows))), max(1, len(rows) // 4))
    held = _choose(rows, [row.group or row.prompt for row in rows], wanted=wanted, seed=seed)
    if not held:
        issues.add("group_too_large")
        held = _choose(rows, [row.prompt for row in rows], wanted=wanted, seed=seed)
    train = [row for index, row in enumerate(rows) if index not in held]
    valid = [row for index, row in enumerate(rows) if index in held]
    return train, valid


def remove_overlap(train: Sequence[ChatRow], valid: Sequence[ChatRow], issues: IssueLog) -> list[ChatRow]:
    """Training rows without those whose question is also asked in validation."""
    asked = {row.prompt for row in valid}
    for row in train:
        if row.prompt in asked:
            issues.add("train_valid_overlap", row=row.number)
    return [row for row in train if row.prompt not in asked]


def _choose(rows: Sequence[ChatRow], keys: Sequence[str], *, wanted: int, seed: int) -> set[int]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        groups[keys[index]].append(index)
    held: set[int] = set()
    for key in sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest()):
        if len(held) >= wanted:
            break
        if len(held) + len(groups[key]) <= 1.5 * wanted + 1:
            held.update(groups[key])
    return held
