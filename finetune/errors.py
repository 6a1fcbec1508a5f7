"""Coded errors of a run; each names whose fault it is and how the process exits.

Leaves turning them into result.json to `finetune.__main__`, the one top handler.
"""

from finetune.spec import ExitCode, Fault, State


class RunError(Exception):
    """A run that cannot go on; `code` is stable, the message names the value, the limit and the next step."""

    fault = Fault.PLATFORM
    exit_code = ExitCode.FAILED
    state = State.FAILED

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class DataError(RunError):
    """The caller's rows or settings cannot be used."""

    fault = Fault.USER
    exit_code = ExitCode.DATA


class BaseError(RunError):
    """The base model, its tokenizer or its chat template is not what the spec promised."""


class LimitError(RunError):
    """A platform limit of the run was reached before the work was done."""


class OutOfMemoryError(RunError):
    """The device has too little memory for the run."""

    exit_code = ExitCode.OUT_OF_MEMORY


class StopError(RunError):
    """Somebody asked the run to stop at a safe point."""

    fault = Fault.NONE


class CancelError(StopError):
    """The customer cancelled; the part done is metered."""

    fault = Fault.USER
    exit_code = ExitCode.CANCELLED
    state = State.CANCELLED

    def __init__(self) -> None:
        super().__init__("cancelled", "cancelled on request.")


class PreemptError(StopError):
    """The machine is needed elsewhere; the run continues in a later attempt."""

    fault = Fault.PROVIDER
    exit_code = ExitCode.PREEMPTED
    state = State.PREEMPTED

    def __init__(self) -> None:
        super().__init__("preempted", "stopped by SIGTERM; resume from this attempt's folder.")


class PauseError(StopError):
    """The customer paused; a later attempt goes on from the commit."""

    exit_code = ExitCode.PREEMPTED
    state = State.PREEMPTED

    def __init__(self) -> None:
        super().__init__("paused", "paused on request; resume from this attempt's folder.")
