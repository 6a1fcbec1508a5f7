"""How fast completed runs trained on an offer, and the device time that a quote there covers by it.

It leaves the arithmetic to `rules`. Nothing is stored: ended runs never change, so what a quote went by can be told
again as of its time.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.compute.tables import Offer
from hub.tuning import rules
from hub.tuning.states import RunState
from hub.tuning.tables import Run

WINDOW = timedelta(days=90)
MOST_RUNS, LEAST_RUNS = 20, 3
LEAST_TAUGHT_MS = 60_000
"""A run of seconds says more of its start and its scoring than of the device."""
_MOST_ROWS = 5_000


class Basis(StrEnum):
    """Where the speed of a quote is from: completed runs there, steps that the plan timed here, the offer itself."""

    RUNS = "completed_runs"
    PLAN = "timed_by_plan"
    OFFER = "as_offered"


@dataclass(frozen=True)
class Speed:
    """Median of trained tokens a second of device time, looks and scoring included, of so many completed runs."""

    tokens_per_s: float
    runs: int
    newest_at: datetime


@dataclass(frozen=True)
class Estimate:
    """At most so much device time in ms, by a speed in tokens a second from somewhere; `measured` if from runs."""

    device_ms: int
    basis: Basis
    tokens_per_s: float
    measured: Speed | None = None


def read_speeds(session: Session, *, as_of: datetime, base_version_id: str | None = None) -> dict[str, Speed]:
    """Return by offer id how fast the newest runs of a base, or of every base, were; fewer than three say nothing."""
    query = select(Run.offer_id, Run.trained_tokens, Run.device_ms, Run.finished_at).where(
        Run.state == RunState.SUCCEEDED,
        Run.device_ms >= LEAST_TAUGHT_MS,
        Run.trained_tokens > 0,
        Run.device_batch_tokens.is_(None),  # one that ran out of memory was slowed by it
        Run.finished_at <= as_of,
        Run.finished_at > as_of - WINDOW,
    )
    if base_version_id is not None:
        query = query.where(Run.base_version_id == base_version_id)
    found: dict[str, list[tuple[float, datetime]]] = defaultdict(list)
    for row in session.execute(query.order_by(Run.finished_at.desc(), Run.id.desc()).limit(_MOST_ROWS)):
        found[row.offer_id].append((1000 * row.trained_tokens / row.device_ms, row.finished_at))
    return {offer_id: _sum_up(runs[:MOST_RUNS]) for offer_id, runs in found.items() if len(runs) >= LEAST_RUNS}


def estimate_time(plan: Mapping[str, Any], offer: Offer, speed: Speed | None) -> Estimate:
    """Return the device time that a quote on an offer covers; `speed` is that of completed runs of the base there."""
    device_ms = rules.quote_device_ms(
        plan,
        tokens_per_s=offer.tokens_per_s,
        device=str(offer.device),
        measured_tokens_per_s=None if speed is None else speed.tokens_per_s,
    )
    if speed is not None:
        return Estimate(device_ms, Basis.RUNS, speed.tokens_per_s, speed)
    tokens_per_s = rules.expect_speed(plan, tokens_per_s=offer.tokens_per_s, device=str(offer.device))
    basis = Basis.OFFER if tokens_per_s == offer.tokens_per_s else Basis.PLAN
    return Estimate(device_ms, basis, tokens_per_s)


def _sum_up(runs: list[tuple[float, datetime]]) -> Speed:
    return Speed(median(speed for speed, _ in runs), len(runs), runs[0][1])
