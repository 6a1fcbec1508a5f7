"""Start, watch and signal long-lived processes by name; what they do is left to whoever writes their argv."""

from serving.launch.listening import ListeningProgram
from serving.launch.local import LocalLaunch
from serving.launch.spec import (
    Handle,
    Launch,
    LaunchError,
    LaunchSpec,
    NameTakenError,
    Observed,
    ProcessState,
    SignalName,
    StartFailedError,
    StillRunningError,
)
from serving.launch.warm import WarmProgram

__all__ = [
    "Handle",
    "Launch",
    "LaunchError",
    "LaunchSpec",
    "ListeningProgram",
    "LocalLaunch",
    "NameTakenError",
    "Observed",
    "ProcessState",
    "SignalName",
    "StartFailedError",
    "StillRunningError",
    "WarmProgram",
]
