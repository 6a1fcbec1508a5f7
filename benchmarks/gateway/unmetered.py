"""Our gateway without its journal: `python -m benchmarks.gateway.unmetered`, with the options of the real one.

Only a bench may start it. Entries still build the state in memory, so nothing but the disk is left out.
"""

from __future__ import annotations

import asyncio
import sys

from serving.gateway import __main__ as gateway
from serving.gateway import server
from serving.gateway.journal_entries import Entry
from serving.gateway.journal_file import Journal


class UnmeteredJournal(Journal):
    """Writes nothing and waits for nothing; usage records are forgotten."""

    def append(self, entry: Entry) -> None:
        """Keep the entry in memory only."""
        self.state.apply(entry)
        self.state.unsent.clear()

    def synced(self) -> asyncio.Future[None]:
        """Return what is done already."""
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


if __name__ == "__main__":
    server.Journal = UnmeteredJournal  # type: ignore[misc]
    raise SystemExit(gateway.main(sys.argv[1:]))
