"""Whose turn it is: organisations take turns, each with its oldest job. Pure; the same order claims and is shown.

It leaves rows and locks to `hub.jobs.service`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Waiting:
    """One waiting job: `since_at` is when it was queued."""

    job_id: str
    organisation_id: str
    since_at: datetime


def order_turns(
    waiting: Iterable[Waiting], *, running: Mapping[str, int], last_turn_at: Mapping[str, datetime]
) -> list[Waiting]:
    """Return the jobs in the order in which they will be taken, if nothing else comes.

    An organisation's n-th job counts behind the n-th of every other; what it runs now counts as taken. Among equals
    whoever had no turn for longest goes first, then who waits longest.
    """
    taken = dict(running)
    ranked: list[tuple[int, datetime, datetime, str, Waiting]] = []
    for item in sorted(waiting, key=lambda item: (item.since_at, item.job_id)):
        rank = taken.get(item.organisation_id, 0)
        taken[item.organisation_id] = rank + 1
        last_at = last_turn_at.get(item.organisation_id, _NEVER)
        ranked.append((rank, last_at, item.since_at, item.job_id, item))
    return [row[-1] for row in sorted(ranked, key=lambda row: row[:-1])]
