"""The words of starting a process: spec, handle, observation, errors and the protocol; it starts nothing itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

SignalName = Literal["int", "term", "kill"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class LaunchError(Exception):
    """Something about a started process is not as asked; `code` is stable, the message says what to do."""

    code = "launch_error"


class BadSpecError(LaunchError):
    """The spec cannot be started as written."""

    code = "launch_bad_spec"


class NameTakenError(LaunchError):
    """A process with this name was started before and not forgotten."""

    code = "launch_name_taken"


class StartFailedError(LaunchError):
    """The process could not be started at all (no such program, no such folder)."""

    code = "launch_start_failed"


class StillRunningError(LaunchError):
    """The record of a running process cannot be forgotten."""

    code = "launch_still_running"


class ProcessState(StrEnum):
    """`lost`: it is gone and nobody could record how (host restarted, or its watcher was killed too)."""

    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"


@dataclass(frozen=True)
class LaunchSpec:
    """What to start: `env` is the whole environment and is never written to disk; `labels` are for the caller.

    With `log_bytes` the log is moved to `<log_path>.1` whenever it holds so many; two of them are kept.

    Raises: BadSpecError for a name outside `[A-Za-z0-9._-]{1,128}` or an empty argv.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    log_bytes: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise BadSpecError(
                f"process name {self.name!r}: use 1 to 128 of A-Z a-z 0-9 . _ - and start with a letter or digit"
            )
        if not self.argv:
            raise BadSpecError(f"process {self.name}: argv is empty; name at least the program")


@dataclass(frozen=True)
class Handle:
    """One started process; boot id and start ticks make a recycled pid a different process."""

    name: str
    pid: int
    boot_id: str
    start_ticks: int
    started_at: datetime
    log_path: Path
    argv: tuple[str, ...]
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Observed:
    """`exit_code` is negative for a signal, as in `subprocess`; None while running or when lost."""

    state: ProcessState
    exit_code: int | None = None
    ended_at: datetime | None = None


class Launch(Protocol):
    """The only starter of replicas and trainers; the local one keeps a folder, a cluster one keeps actors."""

    def start(self, spec: LaunchSpec) -> Handle:
        """Start `spec` in its own session. Raises: NameTakenError, StartFailedError."""

    def poll(self, handle: Handle) -> Observed:
        """What is known now; never blocks."""

    def signal(self, handle: Handle, signal_name: SignalName) -> bool:
        """Signal the whole process group; False when it was gone already."""

    def cpu_s(self, handle: Handle) -> float:
        """Processor seconds that its process group used so far; what ended is not counted."""

    def find(self, name: str) -> Handle | None:
        """The process of that name, running or ended, unless forgotten."""

    def list_mine(self) -> list[Handle]:
        """Every process started here and not forgotten, by name."""

    def fence(self, handle: Handle, *, timeout_s: float = 10.0) -> Observed:
        """Kill it and return only when it can do nothing any more. Raises: StillRunningError after `timeout_s`."""

    def forget(self, handle: Handle) -> None:
        """Drop the record of an ended process, which frees its name. Raises: StillRunningError."""

    def abandon(self, handle: Handle) -> None:
        """Give up a start that had no pid when it was found; a program that has one by now is killed."""
