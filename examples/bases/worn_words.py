"""Wears words down the way hurried people write them: short forms, slips, cuts, joined and split words.

The chat format for correcting them is in `short_text`.
"""

from __future__ import annotations

import random

from examples.bases.english_words import JOINED, SHORT_FORMS, WORDS

Pair = tuple[str, str]


def wear_sentence(rng: random.Random) -> tuple[list[str], list[str]]:
    """A sentence of 2 to 10 words as (written words, right words); a right word may be empty or several words."""
    pairs: list[Pair] = []
    for _ in range(rng.randint(2, 9)):
        pairs.extend(_wear(rng))
    return [written for written, _ in pairs], [right for _, right in pairs]


def _wear(rng: random.Random) -> list[Pair]:
    drawn = rng.random()
    if drawn < 0.42:
        word = rng.choice(WORDS)
        return [(word, word)]
    if drawn < 0.62:
        return [rng.choice(SHORT_FORMS)]
    if drawn < 0.86:
        word = rng.choice(WORDS)
        return [(rng.choice((_cut, _drop_vowels, _slip))(rng, word), word)]
    if drawn < 0.93:
        return [_join(rng)]
    if drawn < 0.965:
        return _split(rng)
    code = _code(rng)
    return [(code, code.lower())]


def _cut(rng: random.Random, word: str) -> str:
    return word[: rng.randint(3, 5)] if len(word) > 5 else word


def _drop_vowels(rng: random.Random, word: str) -> str:
    short = word[0] + "".join(letter for letter in word[1:] if letter not in "aeiou")
    return short if len(short) > 2 else word


def _slip(rng: random.Random, word: str) -> str:
    if len(word) < 4:
        return word
    place = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:place] + word[place + 1 :],
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            word[:place] + word[place] + word[place:],
        )
    )


def _join(rng: random.Random) -> Pair:
    """Words run together by a sign, some of them short forms."""
    parts = [rng.choice(SHORT_FORMS) if rng.random() < 0.3 else (word := rng.choice(WORDS), word) for _ in range(2)]
    if rng.random() < 0.2:
        parts.append((word := rng.choice(WORDS), word))
    sign = rng.choice(("/", "/", "-", "+"))
    return sign.join(written for written, _ in parts), f" {sign} ".join(right for _, right in parts)


def _split(rng: random.Random) -> list[Pair]:
    word = rng.choice(JOINED)
    place = rng.randint(3, len(word) - 3)
    return [(word[:place], word), (word[place:], "")]


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice("abcdefghjklmnpqrstuvwxyz") for _ in range(rng.randint(0, 2)))
    return f"{letters}{rng.randint(1, 9999)}"
