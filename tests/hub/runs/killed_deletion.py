"""A deletion in a process of its own that is killed: `killed_deletion.py HOME URL ORGANISATION USER DATASET STEP`.

Steps: noted (nothing is gone yet), half (the first folder is), gone (all files are, nothing is committed), committed.
After `worker-` it is the worker, which completes what another process began.
"""

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hub.actor import Actor, Role
from hub.clock import read_clock
from hub.database import open_sessions
from hub.datasets import deletion
from hub.datasets.removals import remove_paths
from hub.tuning.dataset_readers import READERS


def main(home: Path, url: str, actor: Actor, dataset_id: str, where: str) -> None:
    """Delete and be killed."""
    who, _, step = where.rpartition("-")
    if step in ("noted", "half"):
        deletion.remove_paths = lambda paths: _remove(paths, most=1 if step == "half" else 0)  # type: ignore[attr-defined]
    if step == "gone":
        deletion.record = _die  # type: ignore[attr-defined]
    if who == "worker":
        deletion.forget_removal = _die  # type: ignore[attr-defined]
        deletion.complete_deletions(open_sessions(url), home, readers=READERS, now=read_clock())
        return
    with open_sessions(url).write() as session:
        deletion.delete_dataset(session, actor, dataset_id, readers=READERS, home=home, now=read_clock())
    _die()


def _remove(paths: Iterable[Path], *, most: int) -> None:
    remove_paths(list(paths)[:most])
    _die()


def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _, folder, database_url, organisation_id, user_id, dataset, at = sys.argv
    main(Path(folder), database_url, Actor(user_id, organisation_id, Role.FACTORY, "en"), dataset, at)
