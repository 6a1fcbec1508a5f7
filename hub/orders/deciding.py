"""The second person's word on a correction above the limit, of an order or of hosted calls.

It leaves proposing and what moves to `corrections` and `call_corrections`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import NotFoundError
from hub.orders.call_corrections import lock_line, post_call_version
from hub.orders.correction_steps import check_decision, check_same, record_correction
from hub.orders.corrections import post_order_version
from hub.orders.settlement import lock_order
from hub.orders.tables import BillVersion, BillVersionState


def decide_correction(
    session: Session, actor: Actor, version_id: str, *, approve: bool, reason: str, now: datetime
) -> BillVersion:
    """Approve or refuse a waiting correction, by another person than its author. Deciding again changes nothing.

    Raises:
        FourEyesError: the author decides. ReasonMissingError: a refusal without reason.
        ConflictError: it was decided otherwise.
    """
    actor.require(Role.OPERATOR)
    found = session.get(BillVersion, version_id)
    if found is None:
        raise NotFoundError.of("correction", version_id)
    # The bill first, then its version: the order in which proposing locks them.
    order = lock_order(session, found.order_id) if found.order_id else None
    line = lock_line(session, found.bill_line_id) if found.bill_line_id else None
    version = session.get_one(BillVersion, version_id, with_for_update=True, populate_existing=True)
    if version.state is not BillVersionState.PROPOSED:
        return check_same(version, approve)
    check_decision(session, version, actor, approve=approve, reason=reason)
    version.decided_by, version.decided_at, version.decision_reason = actor.user_id, now, reason.strip() or None
    if not approve:
        version.state = BillVersionState.REFUSED
        record_correction(session, "correction.refused", version, actor_id=actor.user_id, now=now)
    elif order is not None:
        post_order_version(session, order, version, actor_id=actor.user_id, now=now)
    elif line is not None:
        post_call_version(session, line, version, actor_id=actor.user_id, now=now)
    session.flush()
    return version
