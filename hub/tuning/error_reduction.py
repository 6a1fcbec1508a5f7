"""Error reduction rate of a normalisation task: which words had to change, and which came out right. Pure.

Source: ERR = (TP - FP) / (TP + FN) over the words as written, by position (van der Goot, W-NUT 2021). It knows no task:
positions come from numbers in the texts, or else from aligning words. It leaves intervals to `hub.tuning.gate`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_CIRCLED = "①-⑳㉑-㉟㊱-㊿"
_STARTS = rf"(?:[{_CIRCLED}]|[\s;]\d{{1,3}}[.):、]|$)"
_ITEM = re.compile(rf"(?:([{_CIRCLED}])|(?:^|(?<=[\s;]))(\d{{1,3}})[.):、])\s*([^{_CIRCLED}]*?)(?=\s*{_STARTS})")
_LEAST_PLACED = 0.8
"""Share of rows whose question and answer must fit together word by word for the rate to say something."""
_LEAST_KEPT = 0.5
"""Share of words that stay: where fewer do, the task writes new text and normalises nothing."""
_LEAST_MARK_SHARE = 0.05


@dataclass(frozen=True)
class Correction:
    """One row: the words as written, what each should become, and what two models made of them, by position."""

    raw: Sequence[str]
    right: Sequence[str]
    base: Sequence[str]
    adapter: Sequence[str]


@dataclass(frozen=True)
class Tally:
    """Words of one row that had to change and came out right or did not, and words that should have stayed."""

    hits: int
    misses: int
    spoilt: int


def read_corrections(rows: Sequence[tuple[str, str, str, str]]) -> list[Correction]:
    """Return (question, expected, base, adapter) by position; empty where the task is no normalisation.

    A sign that stands for "stays as it is" in a twentieth of all expected words or more counts as the word itself.
    """
    placed = [place for row in rows if (place := _place(*row)) is not None]
    if not placed or len(placed) < _LEAST_PLACED * len(rows):
        return []
    marks = _find_marks(placed)
    found = [_resolve(row, marks) for row in placed]
    words = sum(len(row.raw) for row in found)
    kept = sum(int(raw == right) for row in found for raw, right in zip(row.raw, row.right, strict=True))
    return found if _LEAST_KEPT * words <= kept < words else []


def count_words(raw: Sequence[str], right: Sequence[str], told: Sequence[str]) -> Tally:
    """Return the tally of one row; all three by position."""
    hits = misses = spoilt = 0
    for before, wanted, after in zip(raw, right, told, strict=True):
        if before != wanted:
            hits, misses = hits + (after == wanted), misses + (after != wanted)
        else:
            spoilt += after != before
    return Tally(hits, misses, spoilt)


def error_reduction(tallies: Sequence[Tally]) -> float:
    """Return (TP - FP) / (TP + FN); 0 where no word had to change."""
    due = sum(tally.hits + tally.misses for tally in tallies)
    return sum(tally.hits - tally.spoilt for tally in tallies) / due if due else 0.0


def _place(question: str, expected: str, base: str, adapter: str) -> Correction | None:
    numbered, answer = _read_items(question), _read_items(expected)
    if len(numbered) > 1 and numbered.keys() == answer.keys():
        told = [_read_items(text) for text in (base, adapter)]
        raw = list(numbered.values())
        # A position that an answer leaves out stays as it was.
        given = [[items.get(number, word) for number, word in numbered.items()] for items in told]
        return Correction(raw, list(answer.values()), given[0], given[1])
    raw = question.rsplit("\n", 1)[-1].split()
    right = align_words(raw, expected.split())
    if right is None:
        return None
    rest = [align_words(raw, text.split()) or [""] * len(raw) for text in (base, adapter)]
    return Correction(raw, right, rest[0], rest[1])


def align_words(raw: Sequence[str], told: Sequence[str]) -> list[str] | None:
    """Return for each raw word the words that stand in its place ('' for none); None where nothing is alike."""
    if len(raw) < 2:
        return None
    if len(raw) == len(told):
        return list(told)
    matcher = SequenceMatcher(None, raw, told, autojunk=False)
    if matcher.ratio() < 0.3:
        return None
    found = [""] * len(raw)
    for _, start, end, first, last in matcher.get_opcodes():
        piece, width = list(told[first:last]), end - start
        if width == 0:
            found[max(0, start - 1)] = " ".join([found[max(0, start - 1)], *piece]).strip()
            continue
        for place in range(width):
            # The last word of a stretch takes what is left over.
            part = piece[place : place + 1] if place < width - 1 else piece[place:]
            found[start + place] = " ".join(part)
    return found


def _read_items(text: str) -> dict[str, str]:
    return {mark or number: words.strip() for mark, number, words in _ITEM.findall(text)}


def _find_marks(rows: Sequence[Correction]) -> set[str]:
    counts = Counter(right for row in rows for right in row.right if len(right) == 1 and not right.isalnum())
    words = sum(len(row.raw) for row in rows)
    return {mark for mark, count in counts.items() if count >= _LEAST_MARK_SHARE * words}


def _resolve(row: Correction, marks: set[str]) -> Correction:
    def read(told: Sequence[str]) -> list[str]:
        return [raw if word in marks else word for raw, word in zip(row.raw, told, strict=True)]

    return Correction(row.raw, read(row.right), read(row.base), read(row.adapter))
