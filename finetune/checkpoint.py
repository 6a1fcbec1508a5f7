"""Commits of a training run: adapter, optimizer, random state and position, complete or not there at all.

Leaves when to commit to train, and copying to another machine to the worker.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune.codec import Json, decode, encode
from finetune.files import digest_file, format_json, sync_file, sync_folder, write_atomic

_COMPLETE = "COMPLETE.json"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """Where a run is: cumulative over attempts; `misses` counts looks without gain since the best."""

    step: int = 0
    tokens: int = 0
    device_ms: int = 0
    best_loss: float | None = None
    best_step: int = 0
    misses: int = 0
    stopped_early: bool = False

    def advance(self, **changes: Any) -> "Position":
        """A later position."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Snapshot:
    """What a commit restores; `best` is the adapter with the lowest held-out loss so far."""

    position: Position
    adapter: Tensors
    best: Tensors | None
    optimizer: Mapping[str, Any]
    random: Mapping[str, torch.Tensor]


def read_random() -> dict[str, torch.Tensor]:
    """State of torch's generators."""
    found = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore_random(state: Mapping[str, torch.Tensor]) -> None:
    """Set torch's generators as they were at the commit."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(out: Path, snapshot: Snapshot, *, plan_digest: str, fence: int, keep: int) -> Path:
    """Commit into OUT/checkpoints; a crash leaves the former commits valid. Keeps the newest `keep`."""
    root = out / "checkpoints"
    root.mkdir(exist_ok=True)
    final = root / f"step-{snapshot.position.step:08d}"
    partial = root / f".tmp-{final.name}"
    for torn in root.glob(".tmp-*"):
        shutil.rmtree(torn)
    partial.mkdir()
    save_file(snapshot.adapter, partial / "adapter.safetensors")
    if snapshot.best is not None:
        save_file(snapshot.best, partial / "best.safetensors")
    torch.save({"optimizer": snapshot.optimizer, "random": snapshot.random}, partial / "optimizer.pt")
    write_atomic(partial / "position.json", format_json(asdict(snapshot.position)))
    digests = {path.name: digest_file(path) for path in sorted(partial.iterdir())}
    for name in digests:
        sync_file(partial / name)
    complete: Json = {
        "plan_digest": plan_digest,
        "fence": fence,
        "step": snapshot.position.step,
        "files": encode(digests),
    }
    write_atomic(partial / _COMPLETE, format_json(complete))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    sync_folder(root)
    for old in _list_newest_first(root)[keep:]:
        shutil.rmtree(old)
    return final


def find_checkpoint(out: Path, plan_digest: str) -> Path | None:
    """Newest commit of this plan whose files all have their digests, or None."""
    for folder in _list_newest_first(out / "checkpoints"):
        if _is_valid(folder, plan_digest):
            return folder
    return None


def load_checkpoint(folder: Path, device: str) -> Snapshot:
    """Read a commit; tensors of the optimizer land on `device`."""
    best = folder / "best.safetensors"
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    return Snapshot(
        position=decode(Position, json.loads((folder / "position.json").read_text())),
        adapter=load_file(folder / "adapter.safetensors", device=device),
        best=load_file(best, device=device) if best.exists() else None,
        optimizer=state["optimizer"],
        random=state["random"],
    )


def _list_newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True)


def _is_valid(folder: Path, plan_digest: str) -> bool:
    complete = folder / _COMPLETE
    if not complete.exists():
        return False
    record = json.loads(complete.read_text())
    if record["plan_digest"] != plan_digest:
        return False
    return all(
        (folder / name).exists() and digest_file(folder / name) == digest for name, digest in record["files"].items()
    )
