"""The papers of a finished run: its manifest, and the export bundle with card and checksums.

It leaves the words of the card to `hub.tuning.card` and the bytes of the adapter to the artefact store.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.service import model_of, root_base
from hub.catalogue.tables import ModelVersion
from hub.datasets.tables import DatasetVersion
from hub.errors import ConflictError, NotFoundError
from hub.tuning.card import write_card
from hub.tuning.openai_jobs import name_tuned
from hub.tuning.progress import locate_attempt
from hub.tuning.service import find_run
from hub.tuning.tables import Run
from registry.store import FolderStore

MANIFEST, CARD, CARD_ZH, SUMS = "manifest.json", "README.md", "README.zh.md", "SHA256SUMS"
_STAMP = (2026, 1, 1, 0, 0, 0)
"""Every member of a bundle carries the same time, so that equal content gives equal bytes."""


def build_manifest(session: Session, run: Run, home: Path) -> dict[str, Any]:
    """Return everything that the run's result depended on, with what came out. Digests only, never a row.

    Raises:
        NotFoundError: the run left no result.
    """
    path = _locate_manifest(home, run)
    if not path.is_file():
        raise NotFoundError.of("manifest of run", run.id)
    trained: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    base = session.get_one(ModelVersion, run.base_version_id)
    data = session.get_one(DatasetVersion, run.dataset_version_id)
    return trained | {
        "run_id": run.id,
        "seed": run.seed,
        "metrics": run.metrics or {},
        "base": {
            "name": run.base_public_name,
            "licence": model_of(session, root_base(session, base)).licence,
            "version_id": base.id,
            "artifact_digest": base.artifact_digest,
            "weights_digest": base.weights_digest,
            "tokenizer_digest": base.tokenizer_digest,
            "template_digest": base.template_digest,
        },
        "data": {"dataset_version_id": data.id, "train_rows": data.train_rows, "valid_rows": data.valid_rows},
        "asked_recipe": run.recipe,
        "quote_id": run.quote_id,
        "order_id": run.order_id,
        "attempts": run.attempt,
        "trained_tokens": run.trained_tokens,
        "device_ms": run.device_ms,
        "gate": run.gate or {},
        "model": name_tuned(session, run),
        "rerun_of": run.rerun_of,
    }


def read_card(session: Session, version: ModelVersion, home: Path, *, chinese: bool) -> str | None:
    """Return the card of a version that a run made; None for others, and where the run's files are gone."""
    run = session.get(Run, version.run_id) if version.run_id else None
    if run is None or not _locate_manifest(home, run).is_file():
        return None
    return write_card(build_manifest(session, run, home), chinese=chinese)


def build_bundle(session: Session, actor: Actor, run_id: str, *, store: FolderStore, home: Path) -> tuple[str, bytes]:
    """Return file name and bytes of a zip: adapter, manifest, card and SHA256SUMS (coreutils format).

    Raises:
        NotFoundError: not this organisation's. ConflictError: the run made no version.
    """
    run = find_run(session, actor, run_id)
    if run.version_id is None or run.artifact_digest is None:
        raise ConflictError(
            f"Run {run.id} is '{run.state}' and made no version to export. Wait for its end, or publish it.",
            f"任务 {run.id} 状态为“{run.state}”，没有可导出的版本。",
        )
    manifest = build_manifest(session, run, home)
    adapter = store.path(run.artifact_digest)
    members = {
        path.name: path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file() and path.name != SUMS
    }
    members[MANIFEST] = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False).encode()
    members |= {CARD: write_card(manifest).encode(), CARD_ZH: write_card(manifest, chinese=True).encode()}
    members[SUMS] = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(members.items())
    ).encode()
    return f"{run.model_name.replace('/', '-')}-{run.id[-8:]}.zip", _zip(members)


def _locate_manifest(home: Path, run: Run) -> Path:
    return locate_attempt(home, run.id, run.attempt) / MANIFEST


def _zip(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, _STAMP), content)
    return stream.getvalue()
