"""Runs `python -m finetune SPEC OUT` under a name, so that the trainer outlives its worker and the next one adopts it.

What a run means, and what its result changes, is left to the rooms.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from finetune import spec as finetune_spec
from finetune.spec import Result, RunSpec, SpecError
from hub.jobs.service import Claim
from hub.jobs.work import Verdict, Work, again
from serving.launch import (
    Handle,
    LaunchSpec,
    ListeningProgram,
    LocalLaunch,
    NameTakenError,
    Observed,
    ProcessState,
    StillRunningError,
)

PROGRAM = (sys.executable, "-P", "-m", "finetune")
"""What runs a specification; in a fork it is loaded already."""
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES")
RESULT_NAME = "result.json"
PROGRESS_NAME = "progress.jsonl"
CANCEL_NAME = "cancel"
PAUSE_NAME = "pause"
MAX_FILE_BYTES = 16 * 1024**3
"""Largest file that a trainer may write: more than the state of the largest adapter that is offered (our default)."""
TOOK_TOO_LONG = "took_too_long"
"""Why a process without a result has none, where it was ended for its age."""
STUBBORN_S = 30.0
"""Pause before another try to end a process that waits in the kernel, for a disk or a device, and cannot be killed."""
log = logging.getLogger("hub.worker")


class Phase(StrEnum):
    """Whether the process still works, left a result, or is gone without one."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True)
class Sighting:
    """What is known of an attempt now; `result` only when ended, `exit_code` where somebody could record it.

    Of one that runs: for how many seconds this worker has seen it alive, and for how many silent.
    Of one that was ended for its age: `overdue`, the sentence about that.
    """

    phase: Phase
    result: Result | None = None
    exit_code: int | None = None
    lived_s: float | None = None
    silent_s: float | None = None
    overdue: str | None = None

    def explain_loss(self, otherwise: str) -> tuple[str, str]:
        """Return code and sentence, if any, of an end that is no success; code `otherwise` where nothing is known."""
        if self.result is not None:
            return self.result.reason_code, ""
        return (otherwise, "") if self.overdue is None else (TOOK_TOO_LONG, self.overdue)


def open_launch(home: Path) -> LocalLaunch:
    """Return what starts trainers and finds those that run; they are forked from the warm trainer where one listens."""
    warm = ListeningProgram(locate_warm_trainer(home), forks=PROGRAM)
    return LocalLaunch(home / "run" / "trainers", warm)


def ensure_trainer(
    work: Work, claim: Claim, *, name: str, make_spec: Callable[[], RunSpec], out: Path, threads: int
) -> Handle:
    """Start the attempt, or adopt the process of that name that an earlier worker started.

    Raises:
        StartFailedError: the program or its folder is missing, or the warm trainer stands still.
    """
    found = work.launch.find(name)
    if found is not None:
        return found
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    spec_path = out / "spec.json"
    spec = make_spec()
    limits = replace(spec.limits, file_bytes=MAX_FILE_BYTES)
    spec_path.write_text(replace(spec, limits=limits).to_json(), encoding="utf-8")
    try:
        return work.launch.start(
            LaunchSpec(
                name=name,
                argv=(*PROGRAM, str(spec_path), str(out)),
                env=_build_environment(work, threads),
                cwd=out,
                log_path=out / "trainer.log",
                labels={"job": claim.job_id, "kind": claim.kind, "subject": claim.subject},
            )
        )
    except NameTakenError:
        # Another worker was faster; its process is as good as ours.
        adopted = work.launch.find(name)
        if adopted is None:
            raise
        return adopted


def look_at_trainer(work: Work, name: str, out: Path) -> Sighting:
    """Return how the attempt stands; a result counts only once the process is gone, and also without its record."""
    handle = work.launch.find(name)
    observed = Observed(ProcessState.LOST) if handle is None else work.launch.poll(handle)
    if handle is not None and observed.state in (ProcessState.STARTING, ProcessState.RUNNING):
        lived_s, silent_s = work.watches.look(handle, out / PROGRESS_NAME)
        return Sighting(Phase.RUNNING, lived_s=lived_s, silent_s=silent_s)
    result = read_result(out)
    if result is None:
        return Sighting(Phase.LOST, exit_code=observed.exit_code)
    return Sighting(Phase.ENDED, result, observed.exit_code)


def await_trainer(work: Work, name: str, out: Path, *, most_s: float, poll_s: float) -> Sighting | Verdict:
    """Return how an attempt ended, or that it is to be looked at again; one that lived `most_s` is ended."""
    sighting = look_at_trainer(work, name, out)
    if sighting.phase is not Phase.RUNNING:
        return sighting
    lived_s = sighting.lived_s or 0.0
    if lived_s <= most_s:
        return again(poll_s)
    if not end_trainer(work, name):
        return again(STUBBORN_S)
    overdue = (
        f"the work ran for {lived_s:.0f} s (the limit is {most_s:.0f} s) and was ended; try again, and ask the "
        "operator if it happens again."
    )
    return replace(look_at_trainer(work, name, out), overdue=overdue)  # it may have come to its end at the last moment


def read_result(out: Path) -> Result | None:
    """Return result.json of an attempt; None when it is missing or not whole."""
    try:
        return Result.from_json((out / RESULT_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, SpecError):
        return None


def ask_cancel(out: Path) -> None:
    """Ask the trainer to stop at its next safe point and keep what it did."""
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    (out / CANCEL_NAME).touch()


def ask_pause(out: Path) -> None:
    """Ask the trainer to commit at its next safe point and end; a later attempt goes on from there."""
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    (out / PAUSE_NAME).touch()


def end_trainer(work: Work, name: str) -> bool:
    """Kill what runs under a name; its record and what it left stay.

    False where it outlives that for now: try again after STUBBORN_S.
    """
    handle = work.launch.find(name)
    try:
        if handle is not None:
            work.launch.fence(handle)
    except StillRunningError as error:
        log.warning("trainer outlives its end", extra={"fields": {"process": name, "reason": str(error)}})
        return False
    return True


def clear_trainer(work: Work, name: str) -> None:
    """Make sure that nothing of that name runs any more, and free the name."""
    handle = work.launch.find(name)
    if handle is not None:
        work.launch.fence(handle)
        work.launch.forget(handle)
    work.watches.forget(name)


def locate_warm_trainer(home: Path) -> Path:
    """Return the socket of the trainer that has the libraries imported; without it every run starts cold."""
    return home / "run" / "trainer.sock"


def _build_environment(work: Work, threads: int) -> dict[str, str]:
    passed_on = {name: work.environment[name] for name in _PASSED_ON if name in work.environment}
    return passed_on | {
        "PYTHONPATH": str(Path(finetune_spec.__file__).parent.parent),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        # A trainer shares its cores with an engine: threads that spin while they wait made both ten times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
