"""Reads one engine's witness file forward and remembers how much of it the hub has; sending is left to the desk."""

import json
from dataclasses import asdict
from pathlib import Path

from serving.contract import Witness
from serving.launch.run import write_atomically
from serving.witness.book import Row, read_rows

_FOLDER = "witness"


def witness_folder(state: Path) -> Path:
    """Return where engines of this controller write their rows."""
    return state / _FOLDER


def witness_path(state: Path, replica_id: str, epoch: int) -> Path:
    """Return the file of one engine process."""
    return witness_folder(state) / f"{replica_id}-{epoch}.jsonl"


class WitnessTail:
    """The rows of one file in order. `prompt_tokens` and `completion_tokens` are sums over everything sent or read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        replica_id, _, epoch = path.stem.rpartition("-")
        self.replica_id, self.epoch = replica_id, int(epoch)
        self._sent_path = path.with_suffix(".sent")
        known = json.loads(self._sent_path.read_text("utf-8")) if self._sent_path.exists() else {}
        self._offset: int = known.get("offset", 0)
        self.seq: int = known.get("seq", 0)
        self.prompt_tokens: int = known.get("prompt_tokens", 0)
        self.completion_tokens: int = known.get("completion_tokens", 0)
        self._unsent: list[Witness] = []

    def read(self) -> None:
        """Take in what was written since; a file that is not there yet has no rows."""
        if not self.path.exists():
            return
        for row, offset in read_rows(self.path, self._offset):
            self._offset = offset
            self._take(row)

    def next_rows(self, most: int) -> tuple[Witness, ...]:
        """Return the first rows that the hub does not have."""
        return tuple(self._unsent[:most])

    def mark_sent(self, count: int) -> None:
        """Note that the hub has the first `count` of them."""
        del self._unsent[:count]
        if not self._unsent:  # else a restart sends some again, which changes nothing
            write_atomically(self._sent_path, self._describe())

    def forget(self) -> None:
        """Remove the file of an ended engine once the hub has every row."""
        self.path.unlink(missing_ok=True)
        self._sent_path.unlink(missing_ok=True)

    def _take(self, row: Row) -> None:
        self.seq = row.seq
        self.prompt_tokens += row.prompt_tokens
        self.completion_tokens += row.completion_tokens
        self._unsent.append(Witness(replica_id=self.replica_id, replica_epoch=self.epoch, **asdict(row)))

    def _describe(self) -> dict[str, int]:
        return {
            "offset": self._offset,
            "seq": self.seq,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
