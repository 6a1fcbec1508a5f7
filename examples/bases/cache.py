"""Remembers what a trained base was made from, so that it is trained once: a record beside the base's folder.

Training is left to `train` and `loop`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from examples.bases.recipes import BaseRecipe

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class BaseRecord:
    """What came out of one training; `weights_sha256` is of the weights file, `loss` in nats a learnt token."""

    name: str
    path: str
    key: str
    weights_sha256: str
    parameters: int
    tokens: int
    loss: float
    train_s: float
    reused: bool

    def to_json(self) -> dict[str, object]:
        """The record as plain JSON values."""
        return asdict(self)


def compute_key(recipe: BaseRecipe) -> str:
    """sha256 over the recipe, every source file of this package and the versions of the training libraries."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    folder = Path(__file__).parent
    for source in sorted([*folder.glob("*.py"), *folder.glob("*.txt")]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for library in ("torch", "transformers", "tokenizers"):
        digest.update(f"{library}={version(library)}\n".encode())
    return digest.hexdigest()


def find_trained(recipe: BaseRecipe, out: Path, key: str) -> BaseRecord | None:
    """The record of a base in `out` that was made from `key` and whose weights are whole, else None."""
    path = _record_path(recipe, out)
    weights = out / recipe.folder_name / _WEIGHTS
    if not path.is_file() or not weights.is_file():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored["key"] != key or stored["weights_sha256"] != _hash_file(weights):
        return None
    return BaseRecord(**{**stored, "path": str(weights.parent), "reused": True})


def write_record(
    recipe: BaseRecipe, out: Path, *, key: str, parameters: int, tokens: int, loss: float, wall_s: float
) -> BaseRecord:
    """Write the record of a freshly trained base beside its folder."""
    folder = out / recipe.folder_name
    record = BaseRecord(
        name=recipe.name,
        path=str(folder),
        key=key,
        weights_sha256=_hash_file(folder / _WEIGHTS),
        parameters=parameters,
        tokens=tokens,
        loss=round(loss, 4),
        train_s=round(wall_s, 1),
        reused=False,
    )
    _record_path(recipe, out).write_text(json.dumps(record.to_json(), ensure_ascii=False, indent=1), encoding="utf-8")
    return record


def _record_path(recipe: BaseRecipe, out: Path) -> Path:
    return out / f"{recipe.folder_name}.json"


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
