"""Long polls: ask again in short, separate transactions until there is news or the wait is over.

It leaves what news is to the caller; nothing is held between two looks.
"""

import time
from collections.abc import Callable
from typing import TypeVar

MAX_WAIT_S = 20.0
PAUSE_S = 0.25
Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], wait_s: float, *, pause_s: float = PAUSE_S) -> Found | None:
    """Return the first answer that is not None, or None after `wait_s` seconds (at most 20)."""
    deadline = time.monotonic() + min(wait_s, MAX_WAIT_S)
    while True:
        found = look()
        left_s = deadline - time.monotonic()
        if found is not None or left_s <= 0:
            return found
        time.sleep(min(pause_s, left_s))
