"""Long polls: ask again in short, separate transactions until there is news or the wait is over.

It leaves what news is to the caller; nothing is held between two looks.
"""

import time
from collections.abc import Callable
from typing import TypeVar

from hub.database import News

MAX_WAIT_S = 20.0
PAUSE_S = 0.25
LEAST_PAUSE_S = 0.01
Found = TypeVar("Found")


def wait_for(look: Callable[[], Found | None], wait_s: float, *, news: News, pause_s: float = PAUSE_S) -> Found | None:
    """Return the first answer that is not None, or None after `wait_s` seconds (at most 20).

    It looks again when this process wrote something, and every `pause_s` for what others wrote.
    """
    deadline = time.monotonic() + min(wait_s, MAX_WAIT_S)
    while True:
        seen = news.count()
        found = look()
        left_s = deadline - time.monotonic()
        if found is not None or left_s <= 0:
            return found
        time.sleep(min(LEAST_PAUSE_S, left_s))  # so that a stream of writes costs no more than this
        news.wait(seen, min(pause_s, left_s))
