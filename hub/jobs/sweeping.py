"""Ends trainer processes whose job is over, so that none leaks; a live job's trainer is never touched."""

import logging

from sqlalchemy import select

from hub.jobs.tables import Job, JobState
from hub.jobs.work import Work
from serving.launch import Handle, StillRunningError

log = logging.getLogger("hub.worker")


def reap_trainers(work: Work) -> int:
    """Kill and forget every process whose job is closed or unknown; returns how many are gone."""
    handles = work.launch.list_mine()
    if not handles:
        return 0
    wanted = [handle.labels.get("job", "") for handle in handles]
    with work.sessions.read() as session:
        statement = select(Job.id).where(Job.id.in_(wanted), Job.state.in_((JobState.WAITING, JobState.LOCKED)))
        alive = set(session.scalars(statement))
    return sum(_reap(work, handle) for handle in handles if handle.labels.get("job", "") not in alive)


def _reap(work: Work, handle: Handle) -> bool:
    """False where it waits in the kernel and outlives its end for now: the next sweep tries again."""
    try:
        work.launch.fence(handle)
        work.launch.forget(handle)
    except StillRunningError as error:
        log.warning("trainer outlives its end", extra={"fields": {"process": handle.name, "reason": str(error)}})
        return False
    work.watches.forget(handle.name)
    return True
