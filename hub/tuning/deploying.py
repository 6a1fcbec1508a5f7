"""The deploy job: serves the version of a run whose customer asked for that in advance.

It leaves deployment itself to `hub.deployments`; a full pool is waited for.
"""

from hub.actor import Actor
from hub.compute.service import NoCapacityError
from hub.deployments.service import deploy
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work, later
from hub.organisations.people import find_user
from hub.tuning.tables import Run

_CAPACITY_PAUSE_S = 5.0


def deploy_version(work: Work, claim: Claim) -> Verdict:
    """Deploy as the person who created the run."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.payload["run_id"])
        user = find_user(session, run.created_by)
        actor = Actor(user.id, run.organisation_id, user.role, user.language)
        try:
            with session.begin_nested():
                deploy(session, actor, claim.subject, now=now)
        except NoCapacityError:
            return later(_CAPACITY_PAUSE_S)
        finish_job(session, claim, now=now)
    return DONE
