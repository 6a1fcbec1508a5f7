"""The train job: places a run, starts or adopts its trainer, follows it, and hands its end to `hub.tuning.endings`.

It keeps nothing between passes: run, attempt, process record and files say everything, so any worker can go on.
"""

from functools import partial
from pathlib import Path

from finetune.spec import Checkpoint, Kind, Limits, Progress, Result, RunSpec
from hub.catalogue.tables import ModelVersion
from hub.compute.service import NoCapacityError, allocate, find_offer
from hub.compute.tables import RentalPurpose
from hub.datasets.tables import DatasetVersion
from hub.ids import new_id
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.trainer import (
    STUBBORN_S,
    Phase,
    Sighting,
    ask_cancel,
    ask_pause,
    clear_trainer,
    end_trainer,
    ensure_trainer,
    look_at_trainer,
)
from hub.jobs.work import DONE, Verdict, Work, again, later
from hub.tuning import rules
from hub.tuning.endings import end_attempt, end_cancelled, release_devices
from hub.tuning.following import note_progress
from hub.tuning.moves import move_run
from hub.tuning.planning import read_base, read_data, read_recipe
from hub.tuning.progress import find_commit, locate_attempt, read_tail
from hub.tuning.publishing import publish_artifact
from hub.tuning.states import PARKED, TERMINAL, AttemptState, RunState
from hub.tuning.tables import Run, RunAttempt

_POLL_S = 0.3
_CAPACITY_PAUSE_S = 2.0
_CHECKPOINT_S = 15.0


def train_run(work: Work, claim: Claim) -> Verdict:
    """One pass over an ordered run."""
    with work.sessions.read() as session:
        run = session.get_one(Run, claim.subject)
    if run.state in TERMINAL or run.state is RunState.PAUSED:
        return _close(work, claim, run)
    if run.state in PARKED:
        return _place(work, claim)
    if run.state is RunState.GATING:
        return publish_artifact(work, claim, run)
    return _follow(work, claim, run)


def process_name(run_id: str, attempt: int) -> str:
    """Return the name under which an attempt's process is found again."""
    return f"train-{run_id}-a{attempt}"


def _place(work: Work, claim: Claim) -> Verdict:
    """Allocate devices under a new attempt; before this is committed nothing starts."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        if run.cancel_requested_at is not None:
            end_cancelled(session, run, now=now)
            finish_job(session, claim, now=now)
            return DONE
        if run.pause_requested_at is not None:
            move_run(session, run, RunState.PAUSED, now=now, reason_code="user_paused")
            release_devices(session, run, now)  # one that recovers kept them for its next attempt
            finish_job(session, claim, now=now)
            return DONE
        move_run(session, run, RunState.PROVISIONING, now=now)
        try:
            rental = allocate(
                session,
                organisation_id=run.organisation_id,
                offer_id=run.offer_id or "",
                purpose=RentalPurpose.TRAIN,
                run_id=run.id,
                now=now,
            )
        except NoCapacityError:
            move_run(session, run, RunState.WAITING_CAPACITY, now=now, reason_code="no_capacity")
            return later(_CAPACITY_PAUSE_S)
        run.attempt, run.fence, run.rental_id = run.attempt + 1, run.fence + 1, rental.id
        session.add(
            RunAttempt(
                id=new_id("att"),
                organisation_id=run.organisation_id,
                run_id=run.id,
                attempt=run.attempt,
                fence=run.fence,
                state=AttemptState.ACTIVE,
                process_name=process_name(run.id, run.attempt),
                created_at=now,
            )
        )
    return again(0.0)


def _follow(work: Work, claim: Claim, run: Run) -> Verdict:
    """Start in `provisioning`; afterwards only look: a process that is gone is never started a second time."""
    out = locate_attempt(work.settings.home, run.id, run.attempt)
    name = process_name(run.id, run.attempt)
    if run.state is RunState.PROVISIONING:
        with work.sessions.read() as session:
            threads = find_offer(session, run.offer_id or "").cpu_threads
        ensure_trainer(work, claim, name=name, make_spec=partial(_build_spec, work, run), out=out, threads=threads)
        _note_start(work, claim)
        return _obey_wishes(work, claim, run, out)  # now: a short run would be over before this worker looks again
    sighting = look_at_trainer(work, name, out)
    lines = read_tail(out)
    note_progress(work, claim, run, lines)
    stuck = _find_stuck(run, sighting, lines)
    if sighting.phase is Phase.RUNNING and stuck is None:
        return _obey_wishes(work, claim, run, out)
    if stuck is not None:
        if not end_trainer(work, name):
            return again(STUBBORN_S)
        sighting = look_at_trainer(work, name, out)  # it may have come to its end at the last moment
    verdict = end_attempt(
        work, claim, result=_own_result(run, sighting), exit_code=sighting.exit_code, why=stuck or rules.LOST
    )
    clear_trainer(work, name)
    return verdict


def _find_stuck(run: Run, sighting: Sighting, lines: list[Progress]) -> rules.NoResult | None:
    """Why a trainer that is alive gets nowhere; None where it does, or is gone."""
    if sighting.lived_s is None or sighting.silent_s is None:
        return None
    return rules.find_stuck(
        silent_s=sighting.silent_s,
        lived_s=sighting.lived_s,
        newest=lines[-1] if lines else None,
        quoted_device_ms=run.quoted_device_ms or 0,
    )


def _own_result(run: Run, sighting: Sighting) -> Result | None:
    """A result of another run, attempt or fence is none of this attempt's, which then counts as lost."""
    found = sighting.result
    if found is None or (found.run_id, found.attempt, found.fence) != (run.id, run.attempt, run.fence):
        return None
    return found


def _build_spec(work: Work, run: Run) -> RunSpec:
    with work.sessions.read() as session:
        base = read_base(work, session.get_one(ModelVersion, run.base_version_id))
        data = read_data(work, session.get_one(DatasetVersion, run.dataset_version_id))
        offer = find_offer(session, run.offer_id or "")
    commit = find_commit(work.settings.home, run.id, run.attempt - 1)
    return RunSpec(
        kind=Kind.TRAIN,
        run_id=run.id,
        attempt=run.attempt,
        fence=run.fence,
        base=base,
        data=data,
        recipe=read_recipe(run.recipe),
        seed=run.seed,
        limits=Limits(
            device_ms=rules.limit_device_ms(run.quoted_device_ms or 0),
            batch_tokens=run.device_batch_tokens,
            memory_bytes=offer.memory_gib * 1024**3,
        ),
        device=str(offer.device),
        rate_factor=(run.rate_percent or 100) / 100,
        checkpoint=Checkpoint(interval_s=_CHECKPOINT_S),
        resume_from=None if commit is None else str(locate_attempt(work.settings.home, run.id, commit.attempt)),
    )


def _note_start(work: Work, claim: Claim) -> None:
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        move_run(session, run, RunState.PREPARING, now=now, started_at=run.started_at or now)


def _obey_wishes(work: Work, claim: Claim, run: Run, out: Path) -> Verdict:
    """Ask once at the trainer's next safe point; a cancelled one that goes on is killed after the grace."""
    now, asked_at = work.clock(), run.cancel_requested_at
    if asked_at is None:
        if run.pause_requested_at is not None:
            ask_pause(out)
    elif run.state is not RunState.CANCELLING:
        ask_cancel(out)
        with work.sessions.write() as session:
            require_lock(session, claim)
            fresh = session.get_one(Run, claim.subject, with_for_update=True)
            move_run(session, fresh, RunState.CANCELLING, now=now, reason_code="user_cancelled")
    elif (now - asked_at).total_seconds() > rules.CANCEL_GRACE_S:
        is_gone = end_trainer(work, process_name(run.id, run.attempt))
        return again(_POLL_S if is_gone else STUBBORN_S)
    return again(_POLL_S)


def _close(work: Work, claim: Claim, run: Run) -> Verdict:
    clear_trainer(work, process_name(run.id, run.attempt))
    with work.sessions.write() as session:
        finish_job(session, claim, now=work.clock())
    return DONE
