"""Requests to stop a run: SIGTERM preempts; SIGINT, SIGUSR1 or a file `cancel` in OUT cancels, a file `pause` pauses.

Leaves saving state before the stop to the code that polls.
"""

import signal
from pathlib import Path
from types import FrameType

from finetune.errors import CancelError, PauseError, PreemptError, StopError
from finetune.spec import Limits


class StopRequests:
    """Remembers signals until the run reaches a safe point; a cancel outranks a pause, a pause a preemption."""

    def __init__(self, out: Path) -> None:
        self._cancel_file = out / "cancel"
        self._pause_file = out / "pause"
        self._seen: set[int] = set()

    def listen(self) -> None:
        """Install the signal handlers; main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._remember)

    def pending(self) -> StopError | None:
        """The stop that was asked for, if any."""
        if self._seen & {signal.SIGINT, signal.SIGUSR1} or self._cancel_file.exists():
            return CancelError()
        if self._pause_file.exists():
            return PauseError()
        return PreemptError() if signal.SIGTERM in self._seen else None

    def raise_pending(self) -> None:
        """Raises CancelError, PauseError or PreemptError if a stop was asked for."""
        stop = self.pending()
        if stop is not None:
            raise stop

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._seen.add(number)


def find_exceeded_limit(limits: Limits, *, now_us: int, device_ms: int) -> str | None:
    """Text naming the limit that the run has reached, or None; `now_us` in µs UTC."""
    if limits.deadline_at is not None and now_us >= limits.deadline_at:
        return f"the deadline {limits.deadline_at} µs UTC has passed; ask for a later deadline."
    if limits.device_ms is not None and device_ms > limits.device_ms:
        return f"used {device_ms} ms of device time, limit {limits.device_ms} ms; raise limits.device_ms."
    return None
