"""One text of a row: what is private, unreadable or left over in it, corrected where the customer asked for it.

Leaves the place of the text in a row to `finetune.chats` and rows together to `finetune.rules`.
"""

import html
import re

from finetune.issues import IssueLog
from finetune.masking import find_private, mask
from finetune.spec import FixAction

MOST_CHARS = 32_768
_GARBLED = re.compile(r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]|锟斤拷|烫烫烫|屯屯屯|Ã[\x80-\xbf]|â€|ï»¿")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\u00ad]")
_WIDE = re.compile(r"[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u3000]")
_MARKUP = re.compile(r"</?(?:br|p|div|span|b|i|td|tr|table|font|img|a|li|ul)\b[^<>]{0,200}>|&(?:nbsp|lt|gt|amp|quot);")
_FORMULA = re.compile(r"[=+@-](?:cmd|DDE|HYPERLINK|IMPORT\w+|WEBSERVICE)\b.*[(|!]|=\s*[A-Z]{2,}\(")
_PLACEHOLDERS = frozenset(
    {"同上", "略", "无", "待补充", "待定", "待填", "暂无", "不详", "未知", "n/a", "na", "none", "null", "nan", "tbd"}
    | {"todo", "-", "--", "—", "——", "/", ".", "...", "……", "?", "？", "xx", "xxx"}
)
_SUSPICIOUS = re.compile(
    r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff锟烫屯Ãâï\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad"
    r"\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\u3000<&=]|^[+@-]"
)


def inspect_text(text: str, *, row: int, column: str, issues: IssueLog) -> str | None:
    """The text as it is trained; None where the customer asked to leave such rows out."""
    kept = text.strip()
    if kept and len(kept) != len(text):
        issues.add("outer_blanks", row=row, column=column)
    codes = find_private(kept)
    if _SUSPICIOUS.search(kept):
        codes += _find_leftovers(kept)
    if len(kept) > MOST_CHARS:
        issues.add("very_long_text", row=row, column=column, value=len(kept), limit=MOST_CHARS)
    for code in codes:
        issues.add(code, row=row, column=column, value=kept)
    if len(kept) > MOST_CHARS and issues.fix_of("very_long_text"):
        return None
    for code in codes:
        action = issues.fix_of(code)
        if action is FixAction.DROP:
            return None
        if action is not None:
            kept = _correct(kept, code)
    return kept


def is_placeholder(text: str) -> bool:
    """Whether an answer says nothing: ditto, to be filled in, a dash."""
    return len(text) <= 6 and text.lower() in _PLACEHOLDERS


def _find_leftovers(text: str) -> list[str]:
    patterns = {
        "garbled_text": _GARBLED,
        "invisible_characters": _INVISIBLE,
        "full_width_characters": _WIDE,
        "markup_left": _MARKUP,
    }
    found = [code for code, pattern in patterns.items() if pattern.search(text)]
    return [*found, "formula_text"] if _FORMULA.match(text) else found


def _correct(text: str, code: str) -> str:
    if code == "invisible_characters":
        return _INVISIBLE.sub("", text)
    if code == "full_width_characters":
        return _WIDE.sub(lambda found: " " if found[0] == "\u3000" else chr(ord(found[0]) - 0xFEE0), text)
    if code == "markup_left":
        without = re.sub(r"<(?:br|/p|/div|/li|/tr)\b[^<>]{0,200}>", "\n", text)
        return html.unescape(_MARKUP.sub(lambda found: "" if found[0].startswith("<") else found[0], without)).strip()
    return mask(text, code)
