"""What an invariant is. It leaves the invariants themselves to `book_invariants` and `bill_invariants`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Invariant:
    """One sentence that always holds, and a query whose rows break it (none: it holds).

    Words in braces are filled in by `hub.ledger.invariants`: `{pending}` and `{posted}` are what a transfer `t` (ending
    hold `h`) adds to either side; `{cap_fen}`, `{event_month}`, `{unprotected}`, `{inexact}` differ by database.
    """

    id: str
    sentence: str
    sentence_zh: str
    query: str
