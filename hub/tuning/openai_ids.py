"""OpenAI's prefixes over our own ids: `file-…`, `ftjob-…`, `ftevent-…`, `ftckpt-…`. Pure, reversible, no table.

It leaves whether the thing exists to those who look it up.
"""

import re

_HEX = re.compile(r"[0-9a-f]{32}")
FILE, JOB, EVENT, CHECKPOINT = "file-", "ftjob-", "ftevent-", "ftckpt_"


def show_file(dataset_id: str) -> str:
    """Return the file id of a data set."""
    return FILE + dataset_id.partition("_")[2]


def show_result_file(run_id: str) -> str:
    """Return the file id of a run's metrics; ids are unique across nouns, so it is no data set's."""
    return FILE + run_id.partition("_")[2]


def show_job(run_id: str) -> str:
    """Return the job id of a run."""
    return JOB + run_id.partition("_")[2]


def read_file(file_id: str) -> tuple[str, str]:
    """Return (data set id, run id) that a file id may stand for; ids that cannot exist for any other text."""
    hexes = _read(FILE, file_id)
    return f"dst_{hexes}", f"run_{hexes}"


def read_job(job_id: str) -> str:
    """Return the run id of a job id."""
    return f"run_{_read(JOB, job_id)}"


def _read(prefix: str, text: str) -> str:
    hexes = text.removeprefix(prefix)
    return hexes if text.startswith(prefix) and _HEX.fullmatch(hexes) else "none"
