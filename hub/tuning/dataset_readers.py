"""What runs have to do with data sets: which runs still need one, and erasing what ended runs kept of its rows.

It leaves deletion and its receipt to `hub.datasets.deletion`.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.datasets.deletion import Erased, Readers
from hub.tuning.examining import CASES_NAME, EVALUATION_NAME
from hub.tuning.progress import locate_run
from hub.tuning.states import TERMINAL
from hub.tuning.tables import Run


def find_runs_needing(session: Session, version_ids: Sequence[str]) -> list[str]:
    """Return the ids of runs of these data set versions that have not ended."""
    statement = select(Run.id).where(Run.dataset_version_id.in_(version_ids), Run.state.not_in(TERMINAL))
    return list(session.scalars(statement.order_by(Run.id)))


def erase_rows_of_runs(session: Session, version_ids: Sequence[str], home: Path) -> list[Erased]:
    """Remove held-out questions, expected and given answers that runs kept for their gates; figures stay."""
    found = []
    for run_id in session.scalars(select(Run.id).where(Run.dataset_version_id.in_(version_ids)).order_by(Run.id)):
        folder = locate_run(home, run_id)
        files = [path for path in (folder / CASES_NAME, *folder.glob(f"*/{EVALUATION_NAME}")) if path.is_file()]
        size_bytes = sum(path.stat().st_size for path in files)
        for path in files:
            path.unlink()
        if files:
            found.append(Erased(run_id, len(files), size_bytes))
    return found


READERS = Readers(find_runs_needing, erase_rows_of_runs)
