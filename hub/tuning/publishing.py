"""Makes a version of what a run trained: through the gate at the end of training, or past it when a person overrides.

It leaves money to `hub.tuning.endings`, versions to the catalogue and bytes to the artefact store.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Fault, Result, State
from hub.actor import Actor, Role
from hub.catalogue.service import register_version
from hub.catalogue.tables import ModelVersion
from hub.columns import write_json
from hub.errors import InvalidValueError
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, enqueue_job, finish_job, require_lock
from hub.jobs.trainer import read_result
from hub.jobs.work import DONE, Verdict, Work, failed
from hub.tuning.endings import end_failed, settle_run
from hub.tuning.kinds import DEPLOY_KIND, MIRROR_KIND, PUBLISH_KIND
from hub.tuning.moves import RunStateError, move_run
from hub.tuning.progress import locate_attempt
from hub.tuning.service import find_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from registry.artifacts import Artifact
from registry.lineage import Lineage

LEAST_REASON_CHARS, MOST_REASON_CHARS = 10, 500


def publish_artifact(work: Work, claim: Claim, run: Run) -> Verdict:
    """Put the adapter into the store and make it a version; safe to repeat after a crash at any point."""
    out = locate_attempt(work.settings.home, run.id, run.attempt)
    result = read_result(out)
    now = work.clock()
    if result is None or result.artifact_digest is None:
        return _fail_publishing(work, claim, "the trainer's result is missing")
    artifact = work.store.add_folder(out / "artifact")
    if artifact.digest != result.artifact_digest:
        return _fail_publishing(work, claim, f"the artefact is {artifact.digest}, not {result.artifact_digest}")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    with work.sessions.write() as session:
        require_lock(session, claim)
        fresh = session.get_one(Run, run.id, with_for_update=True)
        version = _register(
            session, fresh, result, artifact, manifest=manifest, uri=work.store.uri(artifact.digest), now=now
        )
        target = RunState.SUCCEEDED if result.state is State.SUCCEEDED else RunState.EARLY_STOPPED
        move_run(session, fresh, target, now=now, reason_code=result.reason_code, version_id=version.id)
        settle_run(session, fresh, now)
        _announce(session, fresh, version, now)
        finish_job(session, claim, now=now)
    return DONE


def override_gate(session: Session, actor: Actor, run_id: str, *, reason: str, now: datetime) -> Run:
    """Publish what the gate held back, on a person's word; who and why stand on the run and in the audit trail.

    Again changes nothing.

    Raises:
        NotFoundError; ForbiddenError: an auditor or provider asks.
        RunStateError: the gate holds nothing back here.
        InvalidValueError: the reason has fewer than 10 or more than 500 characters.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    run = find_run(session, actor, run_id, lock=True)
    if run.state is not RunState.HELD:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; only a run that the gate held back can be published past it.",
            f"任务 {run.id} 状态为“{run.state}”，只有被门禁暂缓的任务可以强制发布。",
            state=str(run.state),
        )
    if "override" in (run.gate or {}):
        return run
    if not LEAST_REASON_CHARS <= len(reason) <= MOST_REASON_CHARS:
        raise InvalidValueError(
            f"The reason has {len(reason)} characters; give {LEAST_REASON_CHARS} to {MOST_REASON_CHARS}: who uses it, "
            "and why the figures do not matter there.",
            f"理由为 {len(reason)} 个字符，应为 {LEAST_REASON_CHARS} 至 {MOST_REASON_CHARS} 个。",
            field="reason",
        )
    run.gate = (run.gate or {}) | {"override": {"by": actor.user_id, "reason": reason, "at": now.isoformat()}}
    record_event(
        session,
        "run.gate_overridden",
        run.id,
        organisation_id=run.organisation_id,
        actor_id=actor.user_id,
        now=now,
        reason=reason,
        gate={name: value for name, value in run.gate.items() if name != "override"},
    )
    enqueue_job(session, kind=PUBLISH_KIND, subject=run.id, organisation_id=run.organisation_id, now=now)
    return run


def publish_held(work: Work, claim: Claim) -> Verdict:
    """The publish job: the adapter of a held run becomes a version; the run stays `held`, its money is settled."""
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.subject)
    out = locate_attempt(work.settings.home, run.id, run.attempt)
    result = read_result(out)
    if result is None:
        return failed("the trainer's result is missing")
    artifact = work.store.add_folder(out / "artifact")
    if artifact.digest != run.artifact_digest:
        return failed(f"the artefact is {artifact.digest}, not {run.artifact_digest}")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        fresh = session.get_one(Run, run.id, with_for_update=True)
        uri = work.store.uri(artifact.digest)
        version = _register(session, fresh, result, artifact, manifest=manifest, uri=uri, now=now)
        fresh.version_id = version.id
        _announce(session, fresh, version, now)
        finish_job(session, claim, now=now)
    return DONE


def _register(
    session: Session,
    run: Run,
    result: Result,
    artifact: Artifact,
    *,
    manifest: dict[str, Any],
    uri: str,
    now: datetime,
) -> ModelVersion:
    base = session.get_one(ModelVersion, run.base_version_id)
    lineage = Lineage(
        base_weights_digest=base.weights_digest,
        artifact_digest=artifact.digest,
        data_digests=(manifest["digests"]["train_digest"], manifest["digests"]["valid_digest"]),
        code_digest=manifest["code_digest"],
        recipe_digest=hashlib.sha256(write_json(manifest["recipe"]).encode()).hexdigest(),
    )
    return register_version(
        session,
        organisation_id=run.organisation_id,
        model_name=run.model_name,
        base_version_id=base.id,
        artifact_digest=artifact.digest,
        artifact_uri=uri,
        run_id=run.id,
        rank=int(manifest["recipe"]["rank"]["value"]),
        metrics=dict(result.metrics),
        lineage=lineage.as_dict() | {"plan_digest": run.plan_digest, "lineage_digest": lineage.digest()},
        size_bytes=artifact.size_bytes,
        now=now,
        created_by=run.created_by,
    )


def _announce(session: Session, run: Run, version: ModelVersion, now: datetime) -> None:
    record_event(
        session,
        "version.created",
        version.id,
        organisation_id=version.organisation_id,
        actor_id=SYSTEM,
        now=now,
        run_id=run.id,
        artifact_digest=version.artifact_digest,
    )
    kinds = [MIRROR_KIND, DEPLOY_KIND] if run.deploy_when_done else [MIRROR_KIND]
    for kind in kinds:
        enqueue_job(
            session,
            kind=kind,
            subject=version.id,
            organisation_id=version.organisation_id,
            payload={"run_id": run.id},
            now=now,
            max_failures=1000,
        )


def _fail_publishing(work: Work, claim: Claim, message: str) -> Verdict:
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        end_failed(session, run, reason_code="artifact_corrupt", fault=Fault.PLATFORM, message=message, now=now)
        finish_job(session, claim, now=now)
    return DONE
