"""A whole worker, chores included, in a process that may be killed at any moment and is replaced at once.

It leaves what the worker does to `hub.worker`.
"""

import multiprocessing
import random
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from hub import worker as workers
from hub.database import open_sessions
from hub.jobs import loop as loops
from hub.jobs.trainer import open_launch
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from hub.tuning import endings, planning, training
from hub.tuning.kinds import GATE_KIND
from tests.hub.runs.scene import gate_by_trainer, make_work

_CONTEXT = multiprocessing.get_context("forkserver")
_KINDS_LEFT_OUT = ("version.mirror", "version.deploy", "run.prove")
"""They need MLflow and an engine, which are not there."""


def work_until_killed(home: Path, database_url: str, *, slots: int) -> None:
    """Work with short locks and frequent commits, so that a kill is noticed soon and there is something to lose."""
    loops.LOCK_S, loops._RENEW_S, workers.IDLE_S = 4.0, 0.5, 0.05
    training._CHECKPOINT_S, endings._RETRY_S, planning._RETRY_S = 0.2, 0.1, 0.1
    settings = Settings(home=home, database_url=database_url)
    kinds = workers.list_kinds(settings, Secrets({name: name for name in NAMES}))
    kinds[GATE_KIND] = loops.Kind(gate_by_trainer, "beside")
    for kind in _KINDS_LEFT_OUT:
        del kinds[kind]
    workers.list_lanes = lambda _cores: {"light": slots, "train": slots, "beside": 2}
    work = replace(make_work(settings, open_sessions(database_url)), launch=open_launch(home), cpu_threads=1)
    workers.Worker(work, f"killable-{random.random()}", kinds).run()


@dataclass
class Workers:
    """So many workers at once; the dead are replaced."""

    home: Path
    database_url: str
    count: int
    slots: int
    killed: int = 0
    _alive: list[ForkServerProcess] = field(default_factory=list)

    def start(self) -> None:
        """Bring them to their number."""
        _CONTEXT.set_forkserver_preload([__name__])
        self._alive = [process for process in self._alive if process.is_alive()]
        while len(self._alive) < self.count:
            process = _CONTEXT.Process(
                target=work_until_killed, args=(self.home, self.database_url), kwargs={"slots": self.slots}
            )
            process.start()
            self._alive.append(process)

    def kill_one(self, rng: random.Random) -> None:
        """SIGKILL one of them."""
        process = rng.choice(self._alive)
        process.kill()
        process.join()
        self.killed += 1
        self.start()

    def stop(self) -> None:
        """SIGKILL them all."""
        for process in self._alive:
            process.kill()
            process.join()
        self._alive.clear()
