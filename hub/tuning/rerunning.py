"""Running a finished run again from its own record: the same base, data, recipe and seed, differences told first.

It leaves the new run's plan, quote and order to the usual way.
"""

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from finetune import spec as finetune_spec
from hub.actor import Actor
from hub.catalogue.tables import ModelVersion
from hub.datasets.tables import DatasetVersion
from hub.tuning.papers import build_manifest
from hub.tuning.service import create_run, find_run
from hub.tuning.tables import Run


def list_differences(session: Session, actor: Actor, run_id: str, *, home: Path) -> list[dict[str, Any]]:
    """Return what is not as it was in the run: {name, then, now}. Empty: the same bytes are to be expected on CPU.

    Raises:
        NotFoundError: not this organisation's, or the run left no result.
    """
    run = find_run(session, actor, run_id)
    then = build_manifest(session, run, home)
    base = session.get_one(ModelVersion, run.base_version_id)
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    now: Mapping[str, Any] = {
        "base.weights_digest": base.weights_digest,
        "data.train_digest": data.train_digest,
        "data.valid_digest": data.valid_digest,
        "code_digest": _digest_trainer(),
        **{f"versions.{name}": _read_version(name) for name in then.get("versions", {})},
    }
    before: Mapping[str, Any] = {
        "base.weights_digest": then["digests"].get("weights_digest", base.weights_digest),
        "data.train_digest": then["digests"]["train_digest"],
        "data.valid_digest": then["digests"]["valid_digest"],
        "code_digest": then["code_digest"],
        **{f"versions.{name}": version for name, version in then.get("versions", {}).items()},
    }
    return [{"name": name, "then": before[name], "now": now.get(name)} for name in before if before[name] != now[name]]


def rerun(session: Session, actor: Actor, run_id: str, *, home: Path, now: datetime) -> Run:
    """Enter a new run with every resolved value of an earlier one; its adapter becomes the model's next version.

    Raises:
        NotFoundError, DatasetNotReadyError: the data were deleted. And what `create_run` raises.
    """
    earlier = find_run(session, actor, run_id)
    manifest = build_manifest(session, earlier, home)
    return create_run(
        session,
        actor,
        base_version_id=earlier.base_version_id,
        dataset_version_id=earlier.dataset_version_id,
        model_name=earlier.model_name.rpartition("/")[2],
        recipe={name: value["value"] for name, value in manifest["recipe"].items()},
        seed=earlier.seed,
        deploy_when_done=earlier.deploy_when_done,
        cost_centre=earlier.cost_centre,
        rerun_of=earlier.id,
        now=now,
    )


def _digest_trainer() -> str:
    """The installed trainer's `code_digest` as its manifests carry it: sha256 over its files' sums, sorted by path."""
    files = sorted(Path(finetune_spec.__file__).parent.glob("*.py"))
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    return hashlib.sha256(sums.encode()).hexdigest()


def _read_version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
