"""Starts the twin where the hub asks for a trainer, forked from one that is loaded; what it does is `loaded_twin`."""

import os
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from hub.jobs.trainer import PROGRAM
from serving.launch import Handle, LaunchSpec, LocalLaunch, WarmProgram

FORK_AT = "--fork-at"
_ROOT = Path(__file__).parents[3]
_PROGRAM = (sys.executable, str(Path(__file__).with_name("loaded_twin.py")))


class TwinLaunch(LocalLaunch):
    """Has the twin plan and train, and the trainer's own code check data; all of a process but its start is real."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, _share_loaded())

    def start(self, spec: LaunchSpec) -> Handle:
        """Start the twin with the same files."""
        if spec.argv[: len(PROGRAM)] == PROGRAM:
            env = {**spec.env, "PYTHONPATH": str(_ROOT)}
            spec = replace(spec, argv=(*_PROGRAM, *spec.argv[-2:]), env=env)
        return super().start(spec)


class _LoadedTwin(WarmProgram):
    """Forks twins whatever their environment: nothing that they load reads it."""

    def fits(self, spec: LaunchSpec) -> bool:
        """Whether it is a twin."""
        return spec.argv[: len(_PROGRAM)] == _PROGRAM


@cache
def _share_loaded() -> WarmProgram:
    """One loaded twin for all scenes of this process, with which it ends."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    load, log = (*_PROGRAM, FORK_AT), Path(os.devnull)
    return _LoadedTwin(load, forks=_PROGRAM, env=environment, per_start="", log_path=log)
