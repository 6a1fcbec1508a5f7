"""What the controller must remember across its own restarts: desired state, replica epochs, ready times, gains.

Which processes run is remembered by `serving.launch`; nothing here is needed to find them again.
"""

import json
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from serving.contract import ContractError, Desired, dumps, loads
from serving.launch.run import write_atomically
from serving.pool.gain import GainBook


@dataclass(frozen=True)
class ReplicaMemory:
    """Last epoch given to a replica id, when it became ready (µs UTC, None: it is not), and ready time before that.

    `banked_ms` counts ended epochs of the same allocation of the slot; a new allocation begins at 0. `start_ms` is how
    long the last start took until ready, 0 before the first.
    """

    epoch: int
    allocation_epoch: int = 0
    ready_at_us: int | None = None
    banked_ms: int = 0
    start_ms: int = 0


class Memory:
    """JSON files in the state folder, replaced atomically."""

    def __init__(self, state: Path) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._desired_path = state / "desired.json"
        self._replicas_path = state / "replicas.json"
        self._gains_path = state / "gains.json"
        self._replicas: dict[str, ReplicaMemory] = {}
        if self._replicas_path.exists():
            known = json.loads(self._replicas_path.read_text(encoding="utf-8"))
            self._replicas = {name: ReplicaMemory(**item) for name, item in known.items()}

    def controller_id(self) -> str:
        """Name of this controller, made once per state folder."""
        path = self._desired_path.with_name("controller_id")
        if not path.exists():
            path.write_text(f"ctl_{uuid.uuid4().hex}", encoding="ascii")
        return path.read_text(encoding="ascii")

    def load_desired(self) -> Desired | None:
        """The last desired state, None when there is none or an older release wrote it differently."""
        try:
            return loads(Desired, self._desired_path.read_bytes())
        except (FileNotFoundError, ContractError):
            return None

    def save_desired(self, desired: Desired) -> None:
        """Keep what the hub said last."""
        write_atomically(self._desired_path, json.loads(dumps(desired)))

    def load_gains(self) -> GainBook:
        """Shares and measured gains; empty when there are none or an older release wrote them differently."""
        try:
            known = json.loads(self._gains_path.read_text(encoding="utf-8"))
            return GainBook(known["loads"], {name: (ratio, at) for name, (ratio, at) in known["speed_ups"].items()})
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return GainBook()

    def save_gains(self, book: GainBook) -> None:
        """Keep what was measured and how much each adapter was asked for lately."""
        write_atomically(self._gains_path, asdict(book))

    def next_epoch(self, replica_id: str, allocation_epoch: int) -> int:
        """A number never given to this replica id before, on disk before it is used."""
        known = self.recall(replica_id)
        banked_ms = known.banked_ms if known.allocation_epoch == allocation_epoch else 0
        self._remember(replica_id, ReplicaMemory(known.epoch + 1, allocation_epoch, None, banked_ms, known.start_ms))
        return known.epoch + 1

    def mark_ready(self, replica_id: str, epoch: int, at_us: int) -> None:
        """Start the meter of this epoch; it goes on when it runs already."""
        known = self.recall(replica_id)
        if known.epoch != epoch or known.ready_at_us is None:
            self._remember(replica_id, replace(known, epoch=max(epoch, known.epoch), ready_at_us=at_us))

    def mark_started(self, replica_id: str, start_ms: int) -> None:
        """Keep how long a start took, for whoever waits for the next one."""
        self._remember(replica_id, replace(self.recall(replica_id), start_ms=start_ms))

    def start_ms(self) -> int:
        """How long starts take here, as the longest known says; 0 before the first."""
        return max((known.start_ms for known in self._replicas.values()), default=0)

    def mark_ended(self, replica_id: str, epoch: int, at_us: int) -> None:
        """Stop the meter of this epoch. Idempotent."""
        known = self.recall(replica_id)
        if known.epoch == epoch and known.ready_at_us is not None:
            banked_ms = self.device_ms(replica_id, at_us)
            self._remember(replica_id, replace(known, ready_at_us=None, banked_ms=banked_ms))

    def device_ms(self, replica_id: str, now_us: int) -> int:
        """Milliseconds ready in this allocation, all epochs together."""
        known = self.recall(replica_id)
        running_us = 0 if known.ready_at_us is None else max(0, now_us - known.ready_at_us)
        return known.banked_ms + running_us // 1000

    def recall(self, replica_id: str) -> ReplicaMemory:
        """What is known of a replica id; epoch 0 when nothing."""
        return self._replicas.get(replica_id, ReplicaMemory(0))

    def _remember(self, replica_id: str, item: ReplicaMemory) -> None:
        self._replicas[replica_id] = item
        write_atomically(self._replicas_path, {name: asdict(known) for name, known in self._replicas.items()})
