"""What the controller must remember across its own restarts: desired state, replica epochs, ready times.

Which processes run is remembered by `serving.launch`; nothing here is needed to find them again.
"""

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.contract import ContractError, Desired, dumps, loads
from serving.launch.run import write_atomically


@dataclass(frozen=True)
class ReplicaMemory:
    """Last epoch given to a replica id, and when that epoch became ready (µs UTC, None: not yet)."""

    epoch: int
    ready_at_us: int | None = None


class Memory:
    """Two JSON files in the state folder, replaced atomically."""

    def __init__(self, state: Path) -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._desired_path = state / "desired.json"
        self._replicas_path = state / "replicas.json"
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

    def next_epoch(self, replica_id: str) -> int:
        """A number never given to this replica id before, on disk before it is used."""
        epoch = self.recall(replica_id).epoch + 1
        self._remember(replica_id, ReplicaMemory(epoch))
        return epoch

    def mark_ready(self, replica_id: str, epoch: int, at_us: int) -> int:
        """Remember the first time this epoch was ready; returns that time, so that its meter only grows."""
        known = self.recall(replica_id)
        if known.epoch == epoch and known.ready_at_us is not None:
            return known.ready_at_us
        self._remember(replica_id, ReplicaMemory(max(epoch, known.epoch), at_us))
        return at_us

    def recall(self, replica_id: str) -> ReplicaMemory:
        """What is known of a replica id; epoch 0 when nothing."""
        return self._replicas.get(replica_id, ReplicaMemory(0))

    def _remember(self, replica_id: str, item: ReplicaMemory) -> None:
        self._replicas[replica_id] = item
        write_atomically(self._replicas_path, {name: asdict(known) for name, known in self._replicas.items()})
