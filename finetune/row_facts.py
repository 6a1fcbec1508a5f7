"""What the rules across rows need to know of each row, as numbers in arrays: 130 bytes a row, whatever it says.

Leaves the texts in a spool on disk and the rules to `finetune.rules` and `finetune.split`.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.chats import ChatRow
from finetune.codec import Json
from finetune.languages import find_language
from finetune.near_rows import Sketcher

_DIGEST_BYTES = 8


class RowFacts:
    """Chat rows on disk in their order; texts are compared by 64-bit digests (BLAKE2b).

    Two of a million different texts share a digest once in 30 million files; such a row would be left out as a
    duplicate.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._at = 0
        self._sketcher = Sketcher()
        self.numbers = array("I")
        self._offsets = array("Q")
        self._rows, self._prompts, self._answers, self._groups = (array("Q") for _ in range(4))
        self._held = array("b")
        self._chars = array("I")
        self.has_groups = False
        self.languages: Counter[str] = Counter()
        """Writing -> questions and answers in it."""

    def add(self, row: ChatRow) -> None:
        """Keep one row."""
        prompt, answer = row.prompt, row.answer
        line = _write_line(row).encode()
        self.numbers.append(row.number)
        self._offsets.append(self._at)
        self._rows.append(_digest(line))
        self._prompts.append(_digest(prompt.encode()))
        self._answers.append(_digest(answer.encode()))
        self._groups.append(self._prompts[-1] if row.group is None else _digest(row.group.encode()))
        self.has_groups = self.has_groups or row.group is not None
        self._held.append(row.is_held_out)
        self._chars.append(len(prompt) + len(answer))
        for text in (row.messages[-2].content, answer):
            if (language := find_language(text)) is not None:
                self.languages[language] += 1
        self._sketcher.add(f"{prompt}\n{answer}")
        self._at += len(line)
        self._stream.write(line)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def rows(self) -> Any:
        """(n,) uint64: digests of whole rows."""
        return _view(self._rows)

    @property
    def prompts(self) -> Any:
        """(n,) uint64: digests of everything before the last answer, blanks run together."""
        return _view(self._prompts)

    @property
    def answers(self) -> Any:
        """(n,) uint64: digests of the last answers."""
        return _view(self._answers)

    @property
    def groups(self) -> Any:
        """(n,) uint64: digests of the groups; a row without one is grouped by its prompt."""
        return _view(self._groups)

    @property
    def held(self) -> Any:
        """(n,) bool: marked by the customer for validation."""
        return _view(self._held).astype(bool)

    @property
    def chars(self) -> Any:
        """(n,) uint32: characters of prompt and answer."""
        return _view(self._chars)

    def read_band(self, band: int) -> Any:
        """(n,) uint64: rows with an equal value may be near duplicates; one band at a time, a copy of all is large."""
        return self._sketcher.read_band(band)

    def read_line(self, index: int) -> str:
        """One row as it goes into the training file."""
        self._stream.flush()
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[index])
            return stream.readline().decode()

    def read_text(self, index: int) -> str:
        """The texts of one row, one after the other."""
        return "\n".join(message["content"] for message in json.loads(self.read_line(index))["messages"])

    def read_lines(self) -> Iterator[bytes]:
        """All rows in order as they go into the training file."""
        self._stream.flush()
        with self._path.open("rb") as stream:
            yield from stream

    def close(self) -> None:
        """Close and remove the file."""
        self._stream.close()
        self._path.unlink(missing_ok=True)


def _write_line(row: ChatRow) -> str:
    messages: list[Json] = [
        {"role": role, "content": content} | ({} if is_trained else {"weight": 0})
        for role, content, is_trained in row.messages
    ]
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest(), "little")


def _view(values: "array[int]") -> Any:
    import numpy

    # a copy: an array whose buffer is shared cannot grow
    return numpy.array(values)
