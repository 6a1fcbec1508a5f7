"""How long processes have lived and been silent, by this worker's own monotonic clock.

The database's clock, a file's time and the wall clock of a machine that was set or slept say nothing of that. It leaves
what is too long to the rooms. A worker that starts anew counts anew, which only lengthens its patience.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from serving.launch import Handle

_FORGET_S = 3600.0
"""What this worker has not looked at for so long is in other hands, or gone."""


@dataclass
class _Seen:
    handle: Handle
    first_s: float
    heard_s: float
    looked_s: float
    mark: tuple[int, int] | None
    """The progress file's mtime in ns and size in bytes; None without one."""


@dataclass
class Watches:
    """What this worker process saw of the processes that it follows, by name."""

    read_s: Callable[[], float] = time.monotonic
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def look(self, handle: Handle, progress: Path) -> tuple[float, float]:
        """Return for how many seconds a process lives, and for how many its progress file has not changed."""
        now_s, mark = self.read_s(), _read_mark(progress)
        seen = self._seen.get(handle.name)
        if seen is None or seen.handle != handle:
            self._drop_old(now_s)
            seen = self._seen[handle.name] = _Seen(handle, now_s, now_s, now_s, mark)
        if seen.mark != mark:
            seen.mark, seen.heard_s = mark, now_s
        seen.looked_s = now_s
        return now_s - seen.first_s, now_s - seen.heard_s

    def forget(self, name: str) -> None:
        """Drop what was seen of a process that is over."""
        self._seen.pop(name, None)

    def _drop_old(self, now_s: float) -> None:
        self._seen = {name: seen for name, seen in self._seen.items() if now_s - seen.looked_s <= _FORGET_S}


def _read_mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
