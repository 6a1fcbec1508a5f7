"""More training sentences from a factory's own: words traded, slips, other digits in codes, other capitals.

It knows nothing of a company: what may be traded is decided by the sentences themselves, and what a variant asks for is
what they ask for at that word. Writing the upload is left to `maintnorm`.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from examples.bases.letter_wear import slip_word

Pair = tuple[str, str]
_TRADE_SHARE: Final = 0.25
_SLIP_SHARE: Final = 0.08
_RESTYLE_SHARE: Final = 0.35
_STEADY_SHARE: Final = 0.9
_REDRAW_SHARE: Final = 0.4
_LEAST_SLIP_LETTERS: Final = 5


@dataclass
class VariantMaker:
    """Draws variants of sentences given as pairs of (word as written, what it should become)."""

    sentences: Sequence[Sequence[Pair]]
    rng: random.Random
    _steady: list[Pair] = field(init=False)
    _known: set[str] = field(init=False)

    def __post_init__(self) -> None:
        seen: dict[str, Counter[Pair]] = defaultdict(Counter)
        for sentence in self.sentences:
            for raw, right in sentence:
                seen[raw.lower()][(raw, right)] += 1
        self._known = set(seen)
        self._steady = [pair for pairs in seen.values() for pair in _keep_steady(pairs)]

    def make_variant(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The sentence with some words traded or mistyped; words beside a lost word stay, they belong together."""
        style = self.rng.choice((str.upper, str.lower, str.title)) if self.rng.random() < _RESTYLE_SHARE else None
        made: list[Pair] = []
        for place, pair in enumerate(pairs):
            is_tied = any(right == "" for _, right in pairs[max(0, place - 1) : place + 2])
            changed = pair if is_tied else self._change(pair)
            if style is not None and changed[0].lower() != changed[0].upper() and not _keeps_capitals(changed):
                changed = (style(changed[0]), changed[1])
            made.append(changed)
        return made

    def _change(self, pair: Pair) -> Pair:
        drawn = self.rng.random()
        if drawn < _TRADE_SHARE:
            return self.rng.choice(self._steady)
        if _is_masked_code(pair):
            return (self._redraw_digits(pair[0]), pair[1])
        if drawn < _TRADE_SHARE + _SLIP_SHARE and _can_slip(pair):
            slipped = slip_word(self.rng, pair[0].lower())
            if slipped not in self._known:
                return (slipped.upper() if pair[0].isupper() else slipped, pair[1])
        return pair

    def _redraw_digits(self, code: str) -> str:
        if self.rng.random() >= _REDRAW_SHARE:
            return code
        return "".join(self.rng.choice("123456789") if letter.isdigit() else letter for letter in code)


def _is_masked_code(pair: Pair) -> bool:
    """Digits that the right word does not repeat: which ones they are says nothing."""
    return any(letter.isdigit() for letter in pair[0]) and not any(letter.isdigit() for letter in pair[1])


def _keep_steady(pairs: Counter[Pair]) -> list[Pair]:
    """The way a word is mostly written, if it nearly always becomes the same and that is not nothing."""
    ends: Counter[str] = Counter()
    for (_, right), count in pairs.items():
        ends[right] += count
    right, count = ends.most_common(1)[0]
    if right == "" or count < _STEADY_SHARE * ends.total():
        return []
    return [max((pair for pair in pairs if pair[1] == right), key=lambda pair: pairs[pair])]


def _can_slip(pair: Pair) -> bool:
    raw, right = pair
    return raw.isalpha() and len(raw) >= _LEAST_SLIP_LETTERS and right.replace(" ", "").isalpha()


def _keeps_capitals(pair: Pair) -> bool:
    return pair[0] == pair[1] and pair[0] != pair[0].lower()
