"""The plan job: exact tokens, steps, recipe with reasons and a measured estimate, from `python -m finetune` kind=plan.

It leaves prices to the quote.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from finetune.spec import Base, Data, Fault, Kind, RunSpec, State, Value
from hub.catalogue.tables import ModelVersion
from hub.datasets.service import locate_checked
from hub.datasets.tables import DatasetState, DatasetVersion
from hub.jobs.service import Claim, enqueue_job, fail_job, finish_job, require_lock
from hub.jobs.tables import JobState
from hub.jobs.trainer import Sighting, await_trainer, clear_trainer, ensure_trainer
from hub.jobs.work import DONE, Verdict, Work
from hub.tuning import rules
from hub.tuning.awaiting import await_data
from hub.tuning.kinds import ORDER_KIND
from hub.tuning.moves import move_run
from hub.tuning.progress import locate_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run

_POLL_S = 0.2
_RETRY_S = 3.0
MOST_PLAN_S = 7200.0
"""It reads the largest base from a slow disk, makes tokens of a gigabyte of rows and takes some steps on a CPU."""
PLAN_NAME = "plan.json"


def plan_run(work: Work, claim: Claim) -> Verdict:
    """One pass of a plan: start or adopt the process, look, put its plan on the run once it ended."""
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.subject)
        data = session.get_one(DatasetVersion, run.dataset_version_id)
    attempt = claim.failures + 1
    name = f"plan-{run.id}-a{attempt}"
    if run.state is not RunState.VALIDATING:
        return _close(work, claim, name)
    if data.state is not DatasetState.READY:
        return await_data(work, claim)
    out = locate_run(work.settings.home, run.id) / f"plan-{attempt}"
    make_spec = partial(_build_spec, work, run, attempt=attempt)
    ensure_trainer(work, claim, name=name, make_spec=make_spec, out=out, threads=work.cpu_threads)
    found = await_trainer(work, name, out, most_s=MOST_PLAN_S, poll_s=_POLL_S)
    if isinstance(found, Verdict):
        return found
    _apply(work, claim, found, out)
    clear_trainer(work, name)
    return DONE


def read_base(work: Work, base: ModelVersion) -> Base:
    """Return a base as the trainer takes it; the digests are checked there before use."""
    return Base(
        path=str(work.store.path(base.artifact_digest)),
        weights_digest=base.weights_digest,
        tokenizer_digest=base.tokenizer_digest,
        template_digest=base.template_digest,
    )


def read_data(work: Work, dataset: DatasetVersion) -> Data:
    """Return the checked files of a data set as the trainer takes them."""
    folder = locate_checked(work.settings.home, dataset)
    digests = {"train": dataset.train_digest, "valid": dataset.valid_digest}
    return Data(
        train=str(folder / "train.jsonl"),
        valid=str(folder / "valid.jsonl"),
        digests={name: digest for name, digest in digests.items() if digest is not None},
    )


def read_recipe(wishes: Mapping[str, Any]) -> dict[str, Value]:
    """Return the caller's wishes as recipe values; their bounds are the trainer's."""
    return {name: Value(value) for name, value in wishes.items()}


def _build_spec(work: Work, run: Run, *, attempt: int) -> RunSpec:
    with work.sessions.read() as session:
        base = read_base(work, session.get_one(ModelVersion, run.base_version_id))
        data = read_data(work, session.get_one(DatasetVersion, run.dataset_version_id))
    return RunSpec(
        kind=Kind.PLAN,
        run_id=run.id,
        attempt=attempt,
        fence=attempt,
        base=base,
        data=data,
        recipe=read_recipe(run.recipe),
        seed=run.seed,
        device=work.device,
    )


def _apply(work: Work, claim: Claim, sighting: Sighting, out: Path) -> None:
    now, result = work.clock(), sighting.result
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        if run.state is not RunState.VALIDATING:
            finish_job(session, claim, now=now)
        elif result is not None and result.state is State.SUCCEEDED:
            plan = json.loads((out / PLAN_NAME).read_text(encoding="utf-8"))
            move_run(
                session, run, RunState.PLANNED, now=now, plan=plan, plan_digest=plan["plan_digest"], planned_at=now
            )
            if run.terms is not None:
                enqueue_job(session, kind=ORDER_KIND, subject=run.id, organisation_id=run.organisation_id, now=now)
            finish_job(session, claim, now=now)
        elif result is not None and result.fault is Fault.USER:
            move_run(
                session,
                run,
                RunState.INVALID,
                now=now,
                reason_code=result.reason_code,
                fault=rules.find_fault(result),
                message=result.message,
            )
            finish_job(session, claim, now=now)
        else:
            reason, text = sighting.explain_loss("lost")
            state = fail_job(session, claim, error=f"plan ended: {text or reason}", now=now, retry_after_s=_RETRY_S)
            if state is JobState.FAILED:
                move_run(
                    session,
                    run,
                    RunState.FAILED,
                    now=now,
                    reason_code=reason,
                    fault=Fault.PLATFORM,
                    message=text or None,
                )


def _close(work: Work, claim: Claim, name: str) -> Verdict:
    clear_trainer(work, name)
    with work.sessions.write() as session:
        finish_job(session, claim, now=work.clock())
    return DONE
