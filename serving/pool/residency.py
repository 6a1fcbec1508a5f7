"""Which adapters an engine holds in its slots, mirrored from our own loads and calls; nobody scrapes the engine for it.

vLLM evicts the least recently used adapter when a call needs a slot, and unloading frees none; this does the same.
"""

from collections.abc import Collection


class Residency:
    """Of one engine with `slots` slots."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._used: dict[str, None] = {}

    def touch(self, digest: str) -> None:
        """Note a call or warm-up: it is now the most recently used."""
        self._used.pop(digest, None)
        self._used[digest] = None
        while len(self._used) > self._slots:
            del self._used[next(iter(self._used))]

    def resident(self, served: Collection[str]) -> frozenset[str]:
        """Adapters in slots that are among `served`."""
        return frozenset(self._used.keys() & set(served))
