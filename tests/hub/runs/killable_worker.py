"""A worker in a process of its own, with the twin as trainer: `killable_worker.py HOME DATABASE_URL`."""

import sys
import time
from pathlib import Path

from hub.database import open_sessions
from hub.jobs import loop as loops
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from hub.tuning.kinds import GATE_KIND
from hub.worker import list_kinds, list_lanes
from tests.hub.runs.scene import gate_by_trainer, make_work


def main(home: Path, database_url: str) -> None:
    """Work until killed."""
    loops.LOCK_S = 1.0
    settings = Settings(home=home, database_url=database_url)
    kinds = list_kinds(settings, Secrets({name: name for name in NAMES}))
    kinds[GATE_KIND] = loops.Kind(gate_by_trainer, "beside")
    worker = loops.JobLoop(make_work(settings, open_sessions(database_url)), "killed", kinds, list_lanes(2))
    while True:
        worker.tick()
        time.sleep(0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
