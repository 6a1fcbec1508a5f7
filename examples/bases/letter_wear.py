"""Wears general and trade words down in more ways than `worn_words`, for the base that reads letter by letter.

The chat format for correcting them is in `short_text`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from examples.bases.english_words import JOINED, SHORT_FORMS, WORDS
from examples.bases.general_words import draw_word

Pair = tuple[str, str]
_TRADE_SHARE = 0.5
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROWS_OF_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def wear_freely(rng: random.Random) -> tuple[list[str], list[str]]:
    """A sentence of 1 to 10 words as (written words, right words); a right word may be empty or several words."""
    pairs: list[Pair] = []
    for _ in range(rng.randint(1, 9)):
        pairs.extend(_wear(rng))
    style = rng.choice((_leave, _leave, str.upper, _title_first, _title_all))
    return style_words([written for written, _ in pairs], style, rng), [right for _, right in pairs]


def style_words(words: list[str], style: Callable[[str], str], rng: random.Random) -> list[str]:
    """The words in one person's way with capitals, now and then forgotten."""
    if style is _title_first:
        return [_title_all(words[0]), *words[1:]]
    return [word if rng.random() < 0.08 else style(word) for word in words]


def slip_word(rng: random.Random, word: str) -> str:
    """One letter lost, doubled, swapped, hit beside or slipped in; long words now and then twice."""
    if len(word) < 4:
        return word
    slipped = _slip_once(rng, word)
    return _slip_once(rng, slipped) if len(slipped) > 6 and rng.random() < 0.15 else slipped


def _leave(word: str) -> str:
    return word


def _title_first(word: str) -> str:
    return word.title()


def _title_all(word: str) -> str:
    return word[:1].upper() + word[1:]


def _wear(rng: random.Random) -> list[Pair]:
    kind = rng.choices(("plain", "short", "worn", "joined", "together", "split", "code"), _SHARES)[0]
    if kind == "plain":
        word = _draw(rng)
        return [(word, word)]
    if kind == "short":
        return [rng.choice(SHORT_FORMS)]
    if kind == "worn":
        word = _draw(rng)
        return [(rng.choice((_cut, _drop_vowels, slip_word, slip_word, slip_word, _own))(rng, word), word)]
    if kind == "joined":
        return [_join(rng)]
    if kind == "together":
        first, second = _draw(rng), _draw(rng)
        return [(first + second, f"{first} {second}")]
    if kind == "split":
        return _split(rng)
    code = _code(rng)
    return [(code, code)]


_SHARES = (36, 12, 34, 6, 3, 4, 5)


def _draw(rng: random.Random) -> str:
    return rng.choice(WORDS) if rng.random() < _TRADE_SHARE else draw_word(rng)


def _cut(rng: random.Random, word: str) -> str:
    return word[: rng.randint(3, max(3, len(word) - 2))] if len(word) > 4 else word


def _drop_vowels(rng: random.Random, word: str) -> str:
    short = word[0] + "".join(letter for letter in word[1:] if letter not in "aeiou" or rng.random() < 0.1)
    return short if len(short) > 2 else word


def _own(_: random.Random, word: str) -> str:
    return f"{word[:-1]}'s" if word.endswith("s") and len(word) > 3 else word


def _slip_once(rng: random.Random, word: str) -> str:
    place = rng.randrange(1, len(word) - 1)
    before, letter, after = word[:place], word[place], word[place + 1 :]
    return rng.choice(
        (
            before + after,
            before + after,
            before + after[0] + letter + after[1:],
            before + letter + letter + after,
            before + _hit_beside(rng, letter) + after,
            before + rng.choice(_LETTERS) + letter + after,
            before + rng.choice("aeiou") + after if letter in "aeiou" else before + after,
            word[:-1],
        )
    )


def _hit_beside(rng: random.Random, letter: str) -> str:
    for row in _ROWS_OF_KEYS:
        if letter in row:
            place = row.index(letter)
            return rng.choice(row[max(0, place - 1) : place] + row[place + 1 : place + 2])
    return letter


def _join(rng: random.Random) -> Pair:
    """Words run together by a sign, some of them short forms."""
    parts = [rng.choice(SHORT_FORMS) if rng.random() < 0.3 else (word := _draw(rng), word) for _ in range(2)]
    if rng.random() < 0.2:
        parts.append((word := _draw(rng), word))
    sign = rng.choice(("/", "/", "-", "+", "&"))
    return sign.join(written for written, _ in parts), f" {sign} ".join(right for _, right in parts)


def _split(rng: random.Random) -> list[Pair]:
    word = rng.choice(JOINED) if rng.random() < 0.5 else _draw(rng)
    if len(word) < 5:
        return [(word, word)]
    place = rng.randint(2, len(word) - 2)
    return [(word[:place], word), (word[place:], "")]


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choice(_LETTERS) for _ in range(rng.randint(0, 2)))
    return f"{letters}{rng.randint(1, 9999)}"
