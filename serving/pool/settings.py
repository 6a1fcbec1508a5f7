"""Where the pool controller keeps things and how long it waits; reading the command line is left to `__main__`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Accelerator(StrEnum):
    """What engines of this node run on."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True)
class Timing:
    """All waits of the controller, in seconds.

    An engine that hangs at any moment is found within 2 probe intervals and 2 probe timeouts. One that computes without
    finishing a token (a long prompt on a slow processor) is given `stuck_timeout_s`. Another controller may lead 20 s
    after the hub heard of us: `lead_s` after its last answer we stop acting.
    """

    start_timeout_s: float = 300.0
    warmup_timeout_s: float = 120.0
    probe_interval_s: float = 2.0
    probe_timeout_s: float = 2.5
    stuck_timeout_s: float = 60.0
    drain_notice_s: float = 1.0
    drain_timeout_s: float = 20.0
    stop_timeout_s: float = 30.0
    backoff_first_s: float = 1.0
    backoff_max_s: float = 60.0
    poll_s: float = 0.2
    tick_s: float = 1.0
    observed_interval_s: float = 5.0
    lead_s: float = 15.0
    stopped_report_s: float = 60.0
    gain_interval_s: float = 5.0
    gain_window_s: float = 600.0
    sweep_interval_s: float = 60.0


@dataclass(frozen=True)
class Files:
    """What takes the place of a hub: the desired state that a person keeps, and where routes are written."""

    desired: Path
    routes: Path


@dataclass(frozen=True)
class Settings:
    """One controller process; `environment` is what engines may inherit, without any secret of ours.

    With `files` there is no hub, and address and token are empty.
    """

    hub_url: str
    token: str
    host: str
    port: int
    store: Path
    state: Path
    accelerator: Accelerator
    cpu_count: int
    keep_replicas: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    files: Files | None = None

    @property
    def url(self) -> str:
        """Where gateways reach this controller."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"
