"""Which writing a text is in, coarsely and fast: Chinese, Latin letters, another one.

Leaves what a mix of them means to `finetune.rules`.
"""

import re

_MOST_CHARS = 200
"""The start of a text shows its writing; a log of a megabyte is not read for that."""
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_OTHER = re.compile(r"[\u0400-\u052f]{2,}|[\u0530-\u1fff\u3040-\u30fa\u30fd-\u30ff\uac00-\ud7af]+")
"""Not Greek, whose letters are units and signs in texts of every language, nor a lone Cyrillic letter, which stands for
a Latin one on some keyboards, nor the dots and dashes of Japanese, which Chinese names and tables have too."""
_WORD = re.compile(r"(?<![\w\"])[A-Za-zÀ-ÿ]?[a-zß-öø-ÿ]{3,}")
"""Neither names of parts, units and codes, nor, after a quotation mark, keys of JSON."""


def find_language(text: str) -> str | None:
    """`zh`, `en` (two or more words in Latin letters) or `other`; None for a text that shows none of them."""
    start = text[:_MOST_CHARS]
    if not start.isascii():
        han, other = len(_HAN.findall(start)), sum(map(len, _OTHER.findall(start)))
        if han or other:
            return "zh" if han > other else "other"
    return "en" if len(_WORD.findall(start)) >= 2 else None
