"""Makes a version of what a run trained: a draft first, published by the gate, or past it when a person overrides.

It leaves measuring to `hub.tuning.gating`, money to `endings`, versions to the catalogue and bytes to the store.
"""

import hashlib
import json
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Fault, Result
from hub.actor import Actor, Role
from hub.catalogue.quarantine import quarantine_version
from hub.catalogue.service import register_version
from hub.catalogue.tables import ModelVersion, VersionState
from hub.columns import write_json
from hub.deployments.own_engines import DORA, needs_own_engine
from hub.errors import InvalidValueError
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, enqueue_job, find_open_job, finish_job, require_lock
from hub.jobs.trainer import read_result
from hub.jobs.work import DONE, Verdict, Work
from hub.tuning.endings import end_failed
from hub.tuning.gate import NOT_MEASURED
from hub.tuning.kinds import DEPLOY_KIND, GATE_KIND, MIRROR_KIND
from hub.tuning.moves import RunStateError
from hub.tuning.progress import locate_attempt
from hub.tuning.service import find_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from hub.tuning.tryouts import queue_tryout
from registry.artifacts import Artifact
from registry.lineage import Lineage

LEAST_REASON_CHARS, MOST_REASON_CHARS = 10, 500
MAX_GATE_FAILURES = 200


def publish_artifact(work: Work, claim: Claim, run: Run) -> Verdict:
    """First half of publishing: the adapter into the store as a draft version, its gate queued; safe to repeat."""
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
        uri = work.store.uri(artifact.digest)
        version = _register(session, fresh, result, artifact, manifest=manifest, uri=uri, now=now)
        fresh.candidate_version_id = version.id
        queue_gate(session, fresh, now=now)
        finish_job(session, claim, now=now)
    return DONE


def queue_gate(session: Session, run: Run, *, now: datetime) -> None:
    """Have a run's adapter measured on the serving engine."""
    enqueue_job(
        session,
        kind=GATE_KIND,
        subject=run.id,
        organisation_id=run.organisation_id,
        now=now,
        max_failures=MAX_GATE_FAILURES,
    )


def publish_candidate(session: Session, run: Run, *, now: datetime) -> ModelVersion:
    """Make the draft a version that its owner may serve, mirror it, and deploy it where that was asked for."""
    version = session.get_one(ModelVersion, run.candidate_version_id or "")
    if version.state is VersionState.DRAFT:
        version.state = VersionState.PRIVATE
    run.version_id = version.id
    _announce(session, run, version, now)
    if run.asked is not None and run.deploy_when_done and not needs_own_engine(version):
        queue_tryout(session, run, None, by=run.created_by, now=now)
    return version


def quarantine_candidate(session: Session, run: Run, code: str, *, now: datetime) -> None:
    """Stop a version whose engine does not run what was trained."""
    version = session.get_one(ModelVersion, run.candidate_version_id or "")
    if version.state is VersionState.QUARANTINED:
        return
    quarantine_version(
        session,
        Actor(SYSTEM, version.organisation_id, Role.OPERATOR),
        version.id,
        reason_en=f"the served adapter is not the trained one ({code}); see the proof on its run",
        reason_zh=f"服务端的适配器与训练结果不一致（{code}），详见训练任务的核验记录",
        now=now,
    )


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
            f"理由为 {len(reason)} 个字符，应为 {LEAST_REASON_CHARS} 至 {MOST_REASON_CHARS} 个，"
            "请写明谁使用、为何不受影响。",
            field="reason",
        )
    if not (run.gate or {}).get("parity", {"passed": True})["passed"]:
        raise RunStateError(
            f"Run {run.id} is held because the engine does not run what was trained ({run.reason_code}); no reason "
            "makes that right. Run it again, or ask your operator.",
            f"任务 {run.id} 因服务端与训练结果不一致（{run.reason_code}）被暂缓，不能强制发布。请重新训练。",
            state=str(run.state),
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
        gate={name: value for name, value in run.gate.items() if name in ("passed", "code", "rules", "parity")},
    )
    publish_candidate(session, run, now=now)
    return run


def measure_again(session: Session, actor: Actor, run_id: str, *, now: datetime) -> Run:
    """Ask an engine once more about a held run that none could be asked about; a pass then publishes it.

    While it is being asked, again changes nothing.

    Raises:
        NotFoundError; ForbiddenError: an auditor or provider asks.
        RunStateError: the run is not held, or it was measured.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER, Role.OPERATOR)
    run = find_run(session, actor, run_id, lock=True)
    if run.state is not RunState.HELD or (run.gate or {}).get("code") != NOT_MEASURED:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; only a held run that no engine was asked about can be measured again.",
            f"任务 {run.id} 状态为“{run.state}”，只有因未能测评而暂缓的任务可以重新测评。",
            state=str(run.state),
        )
    if not is_being_measured(session, run):
        record_event(
            session,
            "run.measure_requested",
            run.id,
            organisation_id=run.organisation_id,
            actor_id=actor.user_id,
            now=now,
        )
        queue_gate(session, run, now=now)
    return run


def is_being_measured(session: Session, run: Run) -> bool:
    """Return whether an engine is being asked once more about a held run."""
    return run.state is RunState.HELD and find_open_job(session, kind=GATE_KIND, subject=run.id) is not None


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
        state=VersionState.DRAFT,
        variant=DORA if "use_dora" in manifest["recipe"] else None,
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
