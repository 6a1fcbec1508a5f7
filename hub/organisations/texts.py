"""Types of text in request bodies: no NUL, no hidden or reversing characters, bounded length.

It leaves meaning (names, codes, addresses) to the rules of each room.
"""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co"})


def refuse_hidden(text: str) -> str:
    """Return the text unless it holds control, format, surrogate or private-use characters.

    Raises:
        ValueError: names the first such character by its code point.
    """
    return _refuse(text, allowed="")


def refuse_hidden_but_lines(text: str) -> str:
    """Return the text unless it holds such characters other than tab and line ends (for cards and reasons)."""
    return _refuse(text, allowed="\t\n\r")


def _refuse(text: str, *, allowed: str) -> str:
    for place, letter in enumerate(text):
        if unicodedata.category(letter) in _HIDDEN and letter not in allowed:
            raise ValueError(f"character U+{ord(letter):04X} at position {place} is not allowed; remove it")
    return text


Word = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(refuse_hidden)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(refuse_hidden)]
Note = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(refuse_hidden_but_lines)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=2_000), AfterValidator(refuse_hidden_but_lines)]
Page = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(refuse_hidden_but_lines)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
