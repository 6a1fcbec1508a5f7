"""The mirror job: a version and its run to MLflow, beside the loop, repeated until MLflow takes them.

A failure here never touches the run. It leaves MLflow's calls to `registry.mlflow_mirror`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hub.catalogue.service import model_of
from hub.catalogue.tables import ModelVersion
from hub.jobs.service import Claim, finish_job
from hub.jobs.work import DONE, Verdict, Work, failed, run_beside
from hub.tuning.measures import list_measured
from hub.tuning.progress import read_curve
from hub.tuning.tables import Run
from registry.mirror_records import MetricPoint, MirroredRun, MirroredVersion, registered_name
from registry.mlflow_mirror import RUN_TAG, VERSION_TAG, MirrorUnavailableError

_RETRY_S = 10.0
ALIAS = "current"


class MirrorTarget(Protocol):
    """What this job needs of `registry.mlflow_mirror.Mirror`."""

    def record_run(
        self,
        experiment: str,
        run_name: str,
        *,
        params: dict[str, str],
        metrics: list[MetricPoint],
        tags: dict[str, str],
        artifact_dir: Path | None = None,
    ) -> MirroredRun:
        """Write one finished run."""

    def record_version(
        self,
        name: str,
        artifact: Path,
        *,
        source_run: MirroredRun,
        tags: dict[str, str],
        alias: str | None = None,
    ) -> MirroredVersion:
        """Register one version."""


@dataclass(frozen=True)
class _Facts:
    name: str
    run_name: str
    params: dict[str, str]
    metrics: list[MetricPoint]
    tags: dict[str, str]
    artifact: Path


@dataclass(frozen=True)
class MirrorVersions:
    """The handler of mirror jobs on one MLflow server."""

    mirror: MirrorTarget

    def __call__(self, work: Work, claim: Claim) -> Verdict:
        """One pass: start the call in the background, later note the ids it returned."""
        return run_beside(
            work,
            claim,
            begin=lambda: partial(_send, self.mirror, _collect(work, claim)),
            take=lambda sent: _note(work, claim, *sent),
            errors={MirrorUnavailableError: lambda error: failed(str(error), retry_after_s=_RETRY_S)},
        )


def _send(mirror: MirrorTarget, facts: _Facts) -> tuple[MirroredVersion, MirroredRun]:
    run = mirror.record_run(facts.name, facts.run_name, params=facts.params, metrics=facts.metrics, tags=facts.tags)
    version = mirror.record_version(facts.name, facts.artifact, source_run=run, tags=facts.tags, alias=ALIAS)
    return version, run


def _collect(work: Work, claim: Claim) -> _Facts:
    with work.sessions.read() as session:
        version = session.get_one(ModelVersion, claim.subject)
        model = model_of(session, version)
        run = session.get_one(Run, version.run_id) if version.run_id is not None else None
    organisation, _, name = model.name.partition("/")
    recipe = run.plan["recipe"] if run is not None and run.plan is not None else {}
    return _Facts(
        name=registered_name(organisation, name),
        run_name=run.id if run is not None else version.id,
        params={key: str(value["value"]) for key, value in recipe.items()},
        metrics=_list_metrics(work, run, version),
        tags=_list_tags(version, run),
        artifact=work.store.path(version.artifact_digest),
    )


def _list_metrics(work: Work, run: Run | None, version: ModelVersion) -> list[MetricPoint]:
    points = [
        MetricPoint(f"{side}.{key}", 0, float(value), version.created_at)
        for side in ("base", "adapter")
        for key, value in version.metrics.get(side, {}).items()
    ]
    points += [
        MetricPoint(f"gate.{side}.{item.name}", 0, value, version.created_at)
        for item in list_measured((run.gate or {}).get("scores", {}) if run is not None else {})
        for side, value in (("base", item.base), ("adapter", item.adapter))
    ]
    curve: list[dict[str, Any]] = read_curve(work.settings.home, run.id) if run is not None else []
    for point in curve:
        for key in ("loss", "valid_loss", "valid_token_accuracy"):
            if point.get(key) is not None:
                points.append(MetricPoint(key, point["step"], float(point[key]), version.created_at))
    return points


def _list_tags(version: ModelVersion, run: Run | None) -> dict[str, str]:
    lineage = {
        f"guanmo.{key}": ",".join(value) if isinstance(value, list) else str(value)
        for key, value in version.lineage.items()
        if value is not None
    }
    return lineage | _list_run_tags(run) | {VERSION_TAG: version.id, RUN_TAG: run.id if run is not None else version.id}


def _list_run_tags(run: Run | None) -> dict[str, str]:
    """Seed and verdict; that a person overrode the gate, but not in whose words."""
    if run is None:
        return {}
    gate = run.gate or {}
    tags = {"guanmo.seed": str(run.seed), "guanmo.gate": str(gate.get("code", ""))}
    return tags | {"guanmo.gate_overridden": str("override" in gate).lower()}


def _note(work: Work, claim: Claim, mirrored: MirroredVersion, mirrored_run: MirroredRun) -> Verdict:
    with work.sessions.write() as session:
        version = session.get_one(ModelVersion, claim.subject, with_for_update=True)
        version.mlflow_model, version.mlflow_version = mirrored.name, str(mirrored.version)
        if version.run_id is not None:
            session.get_one(Run, version.run_id).mlflow_run_id = mirrored_run.run_id
        finish_job(session, claim, now=work.clock())
    return DONE
