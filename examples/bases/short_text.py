"""The chat format for correcting maintenance short text word by word while positions are kept.

Each word carries a circled number; the answer repeats the numbers, so that a word may become nothing or several words
and still be found again. Which words to correct, and how, is left to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LOWER_MARK = "="
KEEP_MARK = "^"
EMPTY_MARK = "~"
TITLE_SIGN, UPPER_SIGN, MIXED_SIGN = "'", '"', "`"
MAX_WORDS = 50

CIRCLED = tuple(chr(code) for code in (*range(0x2460, 0x2474), *range(0x3251, 0x3260), *range(0x32B1, 0x32C0)))
_NUMBER_OF = {mark: position for position, mark in enumerate(CIRCLED)}
_ITEM = re.compile(f"([{''.join(CIRCLED)}])([^{''.join(CIRCLED)}]*)")
_SPELT_OUT = {LOWER_MARK, KEEP_MARK, EMPTY_MARK}


def write_prompt(words: Sequence[str]) -> str:
    """Number the words, lower-cased: case says little in this kind of text and halves what must be learnt.

    Raises:
        ValueError: more than MAX_WORDS words; the message says to cut the sentence.
    """
    _check_length(words)
    return "".join(f"{mark} {word.lower()}" for mark, word in zip(CIRCLED, words, strict=False))


def write_letter_prompt(words: Sequence[str]) -> str:
    """The same for a base that reads letters: no blanks, and a sign before a word for its capitals.

    Raises:
        ValueError: as `write_prompt`.
    """
    _check_length(words)
    pairs = zip(CIRCLED, words, strict=False)
    return "".join(f"{mark}{_sign_capitals(word)}{word.lower()}" for mark, word in pairs)


def write_answer(words: Sequence[str], corrected: Sequence[str], *, blank: str = " ") -> str:
    """The answer the model has to give for these words, one item a word; bases that read letters need no `blank`."""
    _check_length(words)
    pairs = zip(words, corrected, strict=True)
    return "".join(f"{mark}{blank}{_mark_of(word, right)}" for mark, (word, right) in zip(CIRCLED, pairs, strict=False))


def read_answer(words: Sequence[str], answer: str) -> list[str]:
    """One corrected word for each given word; a position that the answer leaves out stays as it was."""
    items = {_NUMBER_OF[mark]: text.strip() for mark, text in _ITEM.findall(answer)}
    return [_apply(word, items.get(position)) for position, word in enumerate(words)]


def _sign_capitals(word: str) -> str:
    if word == word.lower():
        return ""
    if word == word.upper():
        return UPPER_SIGN
    return TITLE_SIGN if word == word[0] + word[1:].lower() else MIXED_SIGN


def _mark_of(word: str, right: str) -> str:
    if right == word.lower():
        return LOWER_MARK
    if right == word:
        return KEEP_MARK
    return right if right not in ("", *_SPELT_OUT) else EMPTY_MARK if right == "" else KEEP_MARK


def _apply(word: str, item: str | None) -> str:
    if item is None or item == KEEP_MARK:
        return word
    if item == LOWER_MARK:
        return word.lower()
    return "" if item == EMPTY_MARK else item


def _check_length(words: Sequence[str]) -> None:
    if len(words) > MAX_WORDS:
        raise ValueError(
            f"short_text_too_long: {len(words)} words, at most {MAX_WORDS}; cut the sentence and try again"
        )
