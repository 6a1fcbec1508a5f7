"""Text files to lines: which encoding a file is in, and its lines with bounded memory, however long one is.

Leaves what a line means to the readers of JSON lines and CSV.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

MOST_LINE_BYTES = 1 << 20
_HEAD_BYTES = 4096
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class LineProblem(StrEnum):
    """Why a line has no text, or not its own; the values are codes of the report."""

    TOO_LONG = "line_too_long"
    INVALID_BYTES = "invalid_bytes"


@dataclass(frozen=True)
class Line:
    """One line with its end; `at` is the first wrong byte of the line, counted from 1."""

    number: int
    text: str
    problem: LineProblem | None = None
    at: int = 0


def detect_encoding(path: Path) -> str | None:
    """utf-8, utf-8-sig, utf-16, utf-16-le, utf-16-be or gb18030; None if no encoding fits most lines.

    A file whose lines are mostly UTF-8 is UTF-8 with wrong bytes, even if all of it would also pass as GB18030.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                return encoding
        if (found := _guess_utf16(head)) is not None:
            return found
        stream.seek(0)
        return _vote(stream)


def read_text_lines(path: Path, encoding: str) -> Iterator[Line]:
    """All lines; a line above MOST_LINE_BYTES is skipped, wrong bytes are replaced, and both are said."""
    if encoding.startswith("utf-16"):
        yield from _read_utf16(path, encoding)
        return
    with path.open("rb") as stream:
        if encoding == "utf-8-sig":
            stream.seek(3)
            encoding = "utf-8"
        for number, content in enumerate(_split(stream), start=1):
            if content is None:
                yield Line(number, "\n", LineProblem.TOO_LONG)
                continue
            try:
                yield Line(number, content.decode(encoding))
            except UnicodeDecodeError as error:
                text = content.decode(encoding, errors="replace")
                yield Line(number, text, LineProblem.INVALID_BYTES, error.start + 1)


def _guess_utf16(head: bytes) -> str | None:
    """UTF-16 without its mark: every second byte of its ASCII characters is zero."""
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 8 and head[start::2].count(0) * 5 > len(head):
            return encoding
    return None


def _vote(stream: BinaryIO) -> str | None:
    utf8 = gb18030 = neither = 0
    for content in _split(stream):
        if content is None or content.isascii():
            continue
        if _fits(content, "utf-8"):
            utf8 += 1
        elif _fits(content, "gb18030"):
            gb18030 += 1
        else:
            neither += 1
    if utf8 >= gb18030 + neither or (utf8 and utf8 >= gb18030):
        return "utf-8"
    return "gb18030" if gb18030 > neither else None


def _fits(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _split(stream: BinaryIO) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is too long, whose rest is skipped in pieces."""
    while content := stream.readline(MOST_LINE_BYTES + 1):
        if len(content) <= MOST_LINE_BYTES or content.endswith(b"\n"):
            yield content
            continue
        while content and not content.endswith(b"\n"):
            content = stream.readline(MOST_LINE_BYTES)
        yield None


def _read_utf16(path: Path, encoding: str) -> Iterator[Line]:
    with path.open(encoding=encoding, errors="replace", newline="\n") as stream:
        number = 0
        while text := stream.readline(MOST_LINE_BYTES):
            number += 1
            if len(text) < MOST_LINE_BYTES or text.endswith("\n"):
                at = text.find("\ufffd") + 1
                yield Line(number, text, LineProblem.INVALID_BYTES if at else None, 2 * at)
                continue
            while text and not text.endswith("\n"):
                text = stream.readline(MOST_LINE_BYTES)
            yield Line(number, "\n", LineProblem.TOO_LONG)
