"""Flushes a file to the disk in a thread of its own, so that no request of the loop waits for the disk.

Who waits for which flush is left to `journal_file`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

Done = Callable[[OSError | None], None]


class Flusher:
    """One flush after the other; an executor would make two futures and a task for each."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[int, asyncio.AbstractEventLoop, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def flush(self, fd: int, done: Done) -> None:
        """Call `done` in the running loop once everything written to `fd` is on the disk, or with the disk's error.

        The file may be closed meanwhile. Raises: OSError when no descriptor is left.
        """
        self._asked.put((os.dup(fd), asyncio.get_running_loop(), done))

    def close(self) -> None:
        """Return when what was asked for is done."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            fd, loop, done = asked
            error = _sync(fd)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(done, error)


def _sync(fd: int) -> OSError | None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        return error
    finally:
        os.close(fd)
    return None
