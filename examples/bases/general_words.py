"""General English words by how common they are, read from `words_en.txt` (SCOWL; its notice heads the file).

The words of the trade are in `english_words`.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("words_en.txt")
_SHARES: Final = (0.45, 0.25, 0.3)


@cache
def load_words() -> tuple[tuple[str, ...], ...]:
    """One tuple a size class, the most common first; about 4,000, 7,000 and 28,000 words."""
    classes: list[list[str]] = []
    for line in _FILE.read_text(encoding="ascii").splitlines():
        if line.startswith("# size"):
            classes.append([])
        elif not line.startswith("#"):
            classes[-1].extend(line.split())
    return tuple(tuple(words) for words in classes)


def draw_word(rng: random.Random) -> str:
    """A general word, common ones more often."""
    return rng.choice(rng.choices(load_words(), _SHARES)[0])
