"""Ends trainer processes whose job is over, so that none leaks; a live job's trainer is never touched."""

from sqlalchemy import select

from hub.jobs.tables import Job, JobState
from hub.jobs.work import Work


def reap_trainers(work: Work) -> int:
    """Kill and forget every process whose job is closed or unknown; returns how many."""
    handles = work.launch.list_mine()
    if not handles:
        return 0
    wanted = [handle.labels.get("job", "") for handle in handles]
    with work.sessions.read() as session:
        statement = select(Job.id).where(Job.id.in_(wanted), Job.state.in_((JobState.WAITING, JobState.LOCKED)))
        alive = set(session.scalars(statement))
    leaked = [handle for handle in handles if handle.labels.get("job", "") not in alive]
    for handle in leaked:
        work.launch.fence(handle)
        work.launch.forget(handle)
    return len(leaked)
