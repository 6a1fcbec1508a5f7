"""Which writing a text is in, coarsely and fast: Chinese, Latin letters, another one.

Leaves what a mix of them means to `finetune.rules`.
"""

import re

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
# not Greek: its letters are units and signs in texts of every language
_OTHER = re.compile(r"[\u0400-\u1fff\u3040-\u30ff\uac00-\ud7af]")
_LATIN = re.compile(r"[A-Za-z]")


def find_language(text: str) -> str | None:
    """`zh`, `en` (any Latin letters) or `other`; None for a text without letters. Names of parts do not count."""
    if not text.isascii():
        if _OTHER.search(text):
            return "other"
        if _HAN.search(text):
            return "zh"
    return "en" if _LATIN.search(text) else None
