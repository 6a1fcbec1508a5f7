"""Rules over all chat rows together: enough of them, no duplicates or contradictions, nothing private or garbled.

Leaves the shape of single rows to `finetune.chats` and token lengths to plan, which has the tokenizer.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from finetune.chats import ChatRow
from finetune.issues import IssueLog

LEAST_ROWS = 10
_ADVISED_ROWS = 200
_DOMINANT_SHARE = 0.6
_PRIVATE: Mapping[str, re.Pattern[str]] = {
    "pii_phone": re.compile(r"(?<!\d)1[3-9]\d{9}(?!\d)"),
    "pii_identity_number": re.compile(
        r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01])\d{3}[\dXx](?!\d)"
    ),
    "pii_email": re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}"),
    "secret_found": re.compile(
        r"(?i)(?:password|passwd|密码|口令|api[_ ]?key)\s*[:：=]\s*\S{4,}|\bsk-[A-Za-z0-9]{20,}"
    ),
}
_GARBLED = re.compile(r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f]|锟斤拷|烫烫烫|Ã[\x80-\xbf]")


def remove_duplicates(rows: Sequence[ChatRow], issues: IssueLog) -> list[ChatRow]:
    """The first of each set of equal rows."""
    seen: set[tuple[tuple[str, str], ...]] = set()
    kept = []
    for row in rows:
        if row.messages in seen:
            issues.add("duplicate_rows", row=row.number)
            continue
        seen.add(row.messages)
        kept.append(row)
    return kept


def check_rows(rows: Sequence[ChatRow], issues: IssueLog) -> None:
    """Add what is wrong across rows and inside their text."""
    _check_contradictions(rows, issues)
    _check_variety(rows, issues)
    for row in rows:
        text = "\n".join(content for _, content in row.messages)
        if _GARBLED.search(text):
            issues.add("garbled_text", row=row.number)
        for code, pattern in _PRIVATE.items():
            if pattern.search(text):
                issues.add(code, row=row.number)


def check_count(usable: int, issues: IssueLog) -> None:
    """Enough rows to learn from and to hold some out."""
    if usable < LEAST_ROWS:
        issues.add("too_few_examples", usable=usable, least=LEAST_ROWS)
    elif usable < _ADVISED_ROWS:
        issues.add("few_examples", usable=usable)


def _check_contradictions(rows: Sequence[ChatRow], issues: IssueLog) -> None:
    answers: dict[str, str] = {}
    for row in rows:
        if answers.setdefault(row.prompt, row.answer) != row.answer:
            issues.add("contradictory_answers", row=row.number)


def _check_variety(rows: Sequence[ChatRow], issues: IssueLog) -> None:
    if len(rows) < 2:
        return
    if len({row.prompt for row in rows}) == 1:
        issues.add("all_prompts_identical")
    value, count = Counter(row.answer for row in rows).most_common(1)[0]
    if count == len(rows):
        issues.add("all_answers_identical", value=value[:24])
    elif count > _DOMINANT_SHARE * len(rows):
        issues.add("label_imbalance", value=value[:24], percent=round(100 * count / len(rows)))
