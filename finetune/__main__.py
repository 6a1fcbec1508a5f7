"""`python -m finetune SPEC OUT`: run one specification, leave result.json last, exit with its code.

Leaves the work to `finetune.run`. This is the process's one top handler.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune.codec import SpecError
from finetune.confine import confine
from finetune.errors import OutOfMemoryError, RunError
from finetune.job import Job
from finetune.progress import ProgressLog, write_result
from finetune.run import execute
from finetune.spec import Event, ExitCode, Result, RunSpec, State
from finetune.stop import StopRequests

_USAGE_EXIT = 2
_TOLD_WHOLE = (RuntimeError, ImportError, AttributeError, TypeError, ArithmeticError)
"""Errors that speak of shapes, types and names. What others say may hold a text of the data, which no log gets."""


def run_confined(arguments: list[str]) -> int:
    """Shut this process in and run SPEC in OUT; for a process of its own, since nothing opens it again."""
    return main(arguments, shut_in=confine)


def main(arguments: list[str], *, shut_in: Callable[[RunSpec, Path, Path], list[str]] | None = None) -> int:
    """Run SPEC in OUT; returns the exit code (2 for wrong usage or an unreadable specification)."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m finetune SPEC OUT\n")
        return _USAGE_EXIT
    out = Path(arguments[1])
    try:
        spec = RunSpec.from_json(Path(arguments[0]).read_text(encoding="utf-8"))
        out.mkdir(parents=True, exist_ok=True)
    except (SpecError, OSError, UnicodeDecodeError) as error:
        code = error.code if isinstance(error, SpecError) else "unreadable"
        sys.stderr.write(f"{code}: {error}\n")
        return _USAGE_EXIT
    enforced = shut_in(spec, Path(arguments[0]), out) if shut_in is not None else []
    stop = StopRequests(out)
    stop.listen()
    log = ProgressLog(out, spec)
    try:
        return _run(Job(spec=spec, out=out, log=log, stop=stop, enforced=enforced))
    finally:
        log.close()


def _run(job: Job) -> int:
    try:
        result = execute(job)
        exit_code = ExitCode.DATA if result.state is State.FAILED else ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the top handler: every end of a run has a result
        failure = _classify(error)
        if failure is None:
            sys.stderr.writelines(_tell_trace(error))
            failure = RunError("internal", f"{type(error).__name__}; see the run's log.")
        else:
            sys.stderr.write(f"{failure.code}: {failure}\n")
        result = _describe_failure(job, failure)
        exit_code = failure.exit_code
    job.log.write(Event.FINISHED, {"state": str(result.state), "reason_code": result.reason_code})
    write_result(job.out, result)
    return int(exit_code)


def _classify(error: Exception) -> RunError | None:
    """The coded form of an error; recognises torch's memory errors without importing torch."""
    if isinstance(error, RunError):
        return error
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if is_memory or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return OutOfMemoryError("out_of_memory", "the device has too little memory; lower recipe.batch_tokens.")
    if isinstance(error, OSError):
        return RunError(
            "storage_failed", f"{error.strerror or type(error).__name__}: {error.filename}; check disk and paths."
        )
    return None


def _tell_trace(error: BaseException) -> Iterator[str]:
    """Where it went wrong, causes first, as a traceback tells it; what an error says only where it holds no row."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _tell_trace(earlier)
        yield "which led to:\n"
    yield from traceback.format_tb(error.__traceback__)
    told = f": {error}" if isinstance(error, _TOLD_WHOLE) else ""
    yield f"{type(error).__name__}{told}\n"


def _describe_failure(job: Job, failure: RunError) -> Result:
    return job.close(
        failure.state,
        reason_code=failure.code,
        fault=failure.fault,
        message=str(failure),
        step=job.log.committed_step,
        tokens=job.log.committed_tokens,
        billable_device_ms=job.log.committed_device_ms,
    )


if __name__ == "__main__":
    sys.exit(run_confined(sys.argv[1:]))
