"""One attempt at one run: its specification, its folder, its log and the requests to stop it.

Leaves what to do with them to check, plan and train.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.progress import ProgressLog
from finetune.spec import Result, RunSpec, State
from finetune.stop import StopRequests


@dataclass(frozen=True)
class Job:
    """What every kind of run works with; `out` exists and is this attempt's alone."""

    spec: RunSpec
    out: Path
    log: ProgressLog
    stop: StopRequests
    enforced: Sequence[str] = ()

    def close(self, state: State, **fields: Any) -> Result:
        """The result of this attempt: identity and wall time from the job, the rest from `fields`."""
        identity: Mapping[str, Any] = {
            "run_id": self.spec.run_id,
            "attempt": self.spec.attempt,
            "fence": self.spec.fence,
            "kind": self.spec.kind,
            "elapsed_device_ms": self.log.measure_elapsed_ms(),
        }
        return Result(state=state, **identity, **fields)
