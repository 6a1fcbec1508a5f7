"""Gives the money of a settled run back when what was delivered turns out not to be what was trained.

It leaves what moves, vouchers and claims included, to the corrections of `hub.orders`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError
from hub.events.service import SYSTEM
from hub.orders.corrections import Wanted, propose_correction
from hub.orders.tables import Fault
from hub.tuning.tables import Run


def refund_settled(session: Session, run: Run, code: str, *, now: datetime) -> None:
    """Correct the run's bill to nothing; above the operator's limit a second person decides. Again changes nothing."""
    if run.order_id is None:
        return
    operator = Actor(SYSTEM, run.organisation_id, Role.OPERATOR)
    reason = f"the engine does not run what was trained ({code}); see the proof on run {run.id}"
    try:
        with session.begin_nested():
            propose_correction(session, operator, run.order_id, Wanted(reason, fault=Fault.PLATFORM), now=now)
    except ConflictError:
        return  # billed nothing already, or a correction waits for its second person
