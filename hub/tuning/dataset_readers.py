"""What runs have to do with data sets: which runs still need one, and what ended runs keep of its rows.

It leaves deletion and its receipt to `hub.datasets.deletion`.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.datasets.deletion import Readers
from hub.tuning.examining import CASES_NAME, EVALUATION_NAME
from hub.tuning.progress import locate_run
from hub.tuning.states import TERMINAL
from hub.tuning.tables import Run


def find_runs_needing(session: Session, version_ids: Sequence[str]) -> list[str]:
    """Return the ids of runs of these data set versions that have not ended."""
    statement = select(Run.id).where(Run.dataset_version_id.in_(version_ids), Run.state.not_in(TERMINAL))
    return list(session.scalars(statement.order_by(Run.id)))


def find_rows_of_runs(session: Session, version_ids: Sequence[str], home: Path) -> dict[str, list[Path]]:
    """Return by run the files with held-out questions, expected and given answers, kept for its gate; figures stay."""
    found = {}
    for run_id in session.scalars(select(Run.id).where(Run.dataset_version_id.in_(version_ids)).order_by(Run.id)):
        folder = locate_run(home, run_id)
        found[run_id] = [path for path in (folder / CASES_NAME, *folder.glob(f"*/{EVALUATION_NAME}")) if path.is_file()]
    return found


READERS = Readers(find_runs_needing, find_rows_of_runs)
