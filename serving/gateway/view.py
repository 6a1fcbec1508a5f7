"""The hub's snapshot, indexed for one look-up per question.

Fetching it is left to `upkeep`, judging callers by it to `authenticate` and `access`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from serving.contract import Block, ContractError, Snapshot, SnapshotKey, SnapshotModel, SnapshotPrice, SubjectKind
from serving.gateway.clock import Clock
from serving.gateway.errors import unavailable

if TYPE_CHECKING:
    from serving.gateway.access import Resolved

STALE_AFTER_S = 120.0
NEWS_WAIT_S = 1.0
MAX_WAITING = 64
_SALT_BYTES = 32


@dataclass(frozen=True)
class View:
    """One snapshot by key hex, public name and price version, and what was found out by it so far.

    `proven` holds the keys whose secret was checked, by its `mark`: that costs less than the HMAC and is worth
    nothing outside of this view. `resolved` is kept by `access`.
    """

    version: int
    keys: dict[str, SnapshotKey]
    models: dict[str, SnapshotModel]
    prices: dict[str, tuple[SnapshotPrice, ...]]
    blocks: tuple[Block, ...]
    blocks_of: dict[tuple[SubjectKind, str], tuple[Block, ...]]
    proven: dict[bytes, SnapshotKey] = field(default_factory=dict, compare=False, repr=False)
    resolved: dict[tuple[str, str], Resolved] = field(default_factory=dict, compare=False, repr=False)
    _salt: bytes = field(default_factory=partial(os.urandom, _SALT_BYTES), compare=False, repr=False)

    def mark(self, secret: str) -> bytes:
        """Return what a whole key is known by in `proven`."""
        return hashlib.blake2b(secret.encode(), key=self._salt, digest_size=_SALT_BYTES).digest()

    @classmethod
    def of(cls, snapshot: Snapshot) -> View:
        """Index a whole snapshot. Raises: ContractError for a changes-only one, which is reserved."""
        if not snapshot.reset:
            raise ContractError("delta_not_supported", "the snapshot carries changes only; send everything with reset")
        prices: dict[str, list[SnapshotPrice]] = defaultdict(list)
        for price in snapshot.prices:
            prices[price.price_version_id].append(price)
        blocks_of: dict[tuple[SubjectKind, str], tuple[Block, ...]] = {}
        for block in snapshot.blocks:
            subject = (block.subject_kind, block.subject)
            blocks_of[subject] = (*blocks_of.get(subject, ()), block)
        return cls(
            version=snapshot.version,
            keys={key.key_id.removeprefix("key_"): key for key in snapshot.keys},
            models={model.public_name: model for model in snapshot.models},
            prices={version: tuple(meters) for version, meters in prices.items()},
            blocks=snapshot.blocks,
            blocks_of=blocks_of,
        )


class CurrentView:
    """The newest view and how long ago the hub was last heard."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._view: View | None = None
        self._heard_at_s = clock.monotonic_s()
        self._news = asyncio.Event()
        self._waiting = 0
        self.hub_answers = True

    @property
    def version(self) -> int:
        """Return the version held, 0 before the first snapshot."""
        return self._view.version if self._view else 0

    @property
    def age_s(self) -> float:
        """Return how long ago the hub was last heard."""
        return self._clock.monotonic_s() - self._heard_at_s

    def replace(self, view: View) -> None:
        """Take a new snapshot."""
        self._view = view
        self.confirm()
        self._news.set()
        self._news = asyncio.Event()

    def confirm(self) -> None:
        """Note that the hub answered that nothing changed."""
        self._heard_at_s = self._clock.monotonic_s()
        self.hub_answers = True

    def miss(self) -> None:
        """Note that the hub did not answer; what is held stays."""
        self.hub_answers = False

    def latest(self) -> View | None:
        """Return the view held, however old."""
        return self._view

    async def find(self, knows: Callable[[View], bool], within_s: float = NEWS_WAIT_S) -> View:
        """Return the first view that knows what is asked for, or after that time the one held.

        Keys and aliases made a moment ago reach the hub's caller before they reach us: a first call with them waits
        here instead of being refused. Waiters are bounded, so guessing keys holds nothing up.
        """
        if self._waiting >= MAX_WAITING:
            return self.fresh()
        self._waiting += 1
        try:
            async with asyncio.timeout(within_s):
                while not knows(self.fresh()):
                    await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
        return self.fresh()

    def fresh(self) -> View:
        """Return the view to admit by. Raises: GatewayError 503 without one or when it is older than 120 s."""
        if self._view is None:
            raise unavailable("snapshot_missing", "the gateway has not heard from the hub yet; retry", retry_after_s=2)
        age_s = self.age_s
        if age_s > STALE_AFTER_S:
            text = f"the hub has been silent for {age_s:.0f} s, the limit is {STALE_AFTER_S:.0f} s; retry later"
            raise unavailable("snapshot_stale", text, retry_after_s=10)
        return self._view
