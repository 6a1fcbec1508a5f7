"""An adapter served by an engine whose weights carry it: merged by a job, served under the same public name.

It leaves the arithmetic to `python -m finetune.merge` and starting the engine to the pool. Calls go to the merged
engine once that is ready, and back to a slot of the base's engines when it is split off again.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.service import find_version, root_base
from hub.catalogue.tables import ModelVersion
from hub.compute.allocation import NoCapacityError
from hub.deployments.desired import bump_generation
from hub.deployments.endings import end_merged_set, find_merged_set
from hub.deployments.evaluating import is_evaluated
from hub.deployments.own_engines import enqueue_merge, needs_own_engine
from hub.deployments.service import find_open_deployment
from hub.deployments.sets import ensure_merged_set
from hub.deployments.tables import ReplicaSet
from hub.errors import ConflictError
from hub.events.service import SYSTEM, record_event
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, later, run_beside, try_again
from serving.contract import Purpose

ASKED, CHOSEN = "version.merge_asked", "version.merge_chosen"
"""Events: the operator asked for a merge, or it was chosen by its gain."""
_RETRY_S, _CAPACITY_PAUSE_S = 5.0, 5.0
_TIMEOUT_S = 3600.0


class NotMergeableError(ConflictError):
    """The version is no deployed adapter, or answers with merged weights only."""

    code = "not_mergeable"


@dataclass(frozen=True)
class _Parts:
    base: Path
    adapter: Path
    out: Path


def request_merge(session: Session, actor: Actor, version_id: str, *, now: datetime) -> None:
    """Ask for an engine with merged weights for a deployed adapter; again changes nothing.

    Raises:
        ForbiddenError: not the operator, whose machines it takes. NotFoundError: no such version.
        NotMergeableError: a base, or not deployed.
    """
    actor.require(Role.OPERATOR)
    version = find_version(session, actor, version_id)
    if version.base_version_id is None or find_open_deployment(session, version.id) is None:
        raise NotMergeableError(
            f"Version {version.id} is no deployed adapter. Deploy the adapter first.",
            f"版本 {version.id} 不是已部署的适配器。请先部署。",
            field="version_id",
        )
    record_event(session, ASKED, version.id, organisation_id=version.organisation_id, actor_id=actor.user_id, now=now)
    enqueue_merge(session, version, now=now)


def end_merge(session: Session, version: ModelVersion, found: ReplicaSet, *, actor_id: str, now: datetime) -> None:
    """End a merged engine; its adapter goes on in a slot."""
    end_merged_set(session, found, now=now)
    bump_generation(session)
    _record(session, "version.split", version, found, actor_id, now)


def split_off(session: Session, actor: Actor, version_id: str, *, now: datetime) -> None:
    """End the merged engine of an adapter, which goes on in a slot; again changes nothing.

    Raises:
        ForbiddenError, NotFoundError. NotMergeableError: no slot can hold the adapter; undeploy it instead.
    """
    actor.require(Role.OPERATOR)
    version = find_version(session, actor, version_id)
    if needs_own_engine(version):
        raise NotMergeableError(
            f"Version {version.id} is a DoRA adapter, which answers with merged weights only. Undeploy it instead.",
            f"版本 {version.id} 是 DoRA 适配器，只能以合并权重提供服务。请改为停止部署。",
            field="version_id",
        )
    found = find_merged_set(session, version.artifact_digest)
    if found is not None:
        end_merge(session, version, found, actor_id=actor.user_id, now=now)


def merge_version(work: Work, claim: Claim) -> Verdict:
    """One pass of the job: merge in the background, store the folder by its digest, then want the engine."""
    return run_beside(
        work,
        claim,
        begin=lambda: _begin(work, claim),
        take=lambda out: _serve(work, claim, out),
        errors=dict.fromkeys(
            (OSError, subprocess.SubprocessError), try_again("the merge did not finish", after_s=_RETRY_S)
        ),
    )


def _begin(work: Work, claim: Claim) -> Callable[[], Path] | Verdict:
    """What was merged before is in the store."""
    parts, uri = _locate(work, claim), _find_merged_before(work, claim)
    if uri is None:
        return partial(_merge, parts, dict(work.environment))
    return DONE if _want_engines(work, claim, uri) else later(_CAPACITY_PAUSE_S)


def _find_merged_before(work: Work, claim: Claim) -> str | None:
    with work.sessions.read() as session:
        digest = session.get_one(ModelVersion, claim.subject).artifact_digest
        known = select(ReplicaSet.uri).where(ReplicaSet.serves_digest == digest, ReplicaSet.base_digest != digest)
        return session.scalar(known.limit(1))


def _serve(work: Work, claim: Claim, out: Path) -> Verdict:
    """Store the merged folder and want an engine of it; without room the folder stays and is taken up later."""
    artifact = work.store.add_folder(out)
    if not _want_engines(work, claim, work.store.uri(artifact.digest)):
        return later(_CAPACITY_PAUSE_S)
    shutil.rmtree(out, ignore_errors=True)
    return DONE


def _locate(work: Work, claim: Claim) -> _Parts:
    with work.sessions.read() as session:
        version = session.get_one(ModelVersion, claim.subject)
        base = root_base(session, version)
        folder = work.settings.home / "run" / "merges"
        folder.mkdir(parents=True, exist_ok=True)
        return _Parts(
            work.store.path(base.artifact_digest), work.store.path(version.artifact_digest), folder / version.id
        )


def _merge(parts: _Parts, environment: dict[str, str]) -> Path:
    if not parts.out.exists():
        argv = [sys.executable, "-m", "finetune.merge", str(parts.base), str(parts.adapter), str(parts.out)]
        subprocess.run(argv, env=environment, check=True, timeout=_TIMEOUT_S, capture_output=True)
    return parts.out


def _want_engines(work: Work, claim: Claim, uri: str) -> bool:
    """Return False where no machine has room yet; an adapter that nobody asks for any more needs no engine."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        version = session.get_one(ModelVersion, claim.subject)
        try:
            with session.begin_nested():
                for purpose in _list_purposes(session, version):
                    base = root_base(session, version)
                    found = ensure_merged_set(session, base, version.artifact_digest, uri, purpose=purpose, now=now)
                    bump_generation(session)
                    _record(session, "version.merged", version, found, SYSTEM, now)
        except NoCapacityError:
            return False
        finish_job(session, claim, now=now)
    return True


def _list_purposes(session: Session, version: ModelVersion) -> list[Purpose]:
    """Callers and evaluations are answered by engines apart; an evaluation of a plain adapter takes a slot."""
    is_asked = needs_own_engine(version) and is_evaluated(session, version.id)
    is_served = find_open_deployment(session, version.id) is not None
    return [*([Purpose.EVALUATE] if is_asked else []), *([Purpose.SERVE] if is_served else [])]


def _record(
    session: Session, topic: str, version: ModelVersion, found: ReplicaSet, actor_id: str, now: datetime
) -> None:
    record_event(
        session,
        topic,
        version.id,
        organisation_id=version.organisation_id,
        actor_id=actor_id,
        now=now,
        set_id=found.id,
        digest=found.serves_digest,
    )
