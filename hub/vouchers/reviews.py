"""Decisions on applications by different persons: check, return, approve, refuse, and the hearing of an appeal.

It leaves the firm's own steps to `hub.vouchers.applications` and the award to `hub.vouchers.awards`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, FourEyesError, InvalidValueError, NotFoundError
from hub.ids import new_id
from hub.organisations.service import require_second_person
from hub.vouchers.applications import record
from hub.vouchers.awards import award_grant
from hub.vouchers.rules import APPLICATION_STEPS
from hub.vouchers.tables import Application, ApplicationState, Decision, Grant, VoucherReview


def review_application(
    session: Session,
    actor: Actor,
    application_id: str,
    *,
    decision: str,
    reason: str,
    now: datetime,
    granted_fen: int | None = None,
) -> Grant | None:
    """Record a decision and award on approval. `granted_fen` awards less than asked.

    `check`, then by another person `approve`; `return` for completion and `refuse` need a reason. An appeal is decided
    by a person who has not decided on it in any round: `approve` where somebody checked it before, else `check`.

    Raises:
        FourEyesError: the actor applied, is of the applying firm, or decided before.
        ConflictError: the application is not at that step.
        CapExceededError, FundExhaustedError: name what is left.
    """
    actor.require(Role.OPERATOR)
    application = session.get(Application, application_id, with_for_update=True)
    if application is None:
        raise NotFoundError.of("application", application_id)
    chosen = _read_decision(decision, reason)
    before = list_reviews(session, application_id)
    _check_reviewer(session, actor, application, before)
    _advance(application, chosen, before)
    _add_review(session, actor, application, chosen, reason=reason, now=now)
    topic = "application.checked" if chosen is Decision.CHECK else f"application.{application.state}"
    record(session, topic, application, actor.user_id, now, reason=reason)
    if chosen is Decision.APPROVE:
        amount_fen = application.asked_fen if granted_fen is None else granted_fen
        return award_grant(session, actor, application, amount_fen=amount_fen, now=now)
    return None


def list_reviews(session: Session, application_id: str) -> list[VoucherReview]:
    """Return the decisions on an application in order."""
    query = select(VoucherReview).where(VoucherReview.application_id == application_id)
    return list(session.scalars(query.order_by(VoucherReview.created_at, VoucherReview.id)))


def list_decisions(application: Application, reviews: list[VoucherReview]) -> list[Decision]:
    """Return what may be decided next; an appeal that nobody had checked before cannot be approved at once."""
    found = [decision for state, decision in APPLICATION_STEPS if state is application.state]
    if application.state is ApplicationState.APPEALED:
        found.remove(Decision.CHECK if _was_checked(application, reviews) else Decision.APPROVE)
    return found


def may_decide(actor: Actor, application: Application, reviews: list[VoucherReview]) -> str:
    """Return why this person may not decide: `own`, `decided`; empty if nothing stands against it."""
    if actor.user_id == application.applicant_id or actor.organisation_id == application.organisation_id:
        return "own"
    return "decided" if actor.user_id in _list_heard(application, reviews) else ""


def _list_heard(application: Application, reviews: list[VoucherReview]) -> list[str]:
    """Return who decided in this round, for an appeal in any."""
    return [row.actor_id for row in reviews if row.round == application.round or application.appealed_at is not None]


def _read_decision(decision: str, reason: str) -> Decision:
    needs_reason = decision in (Decision.REFUSE, Decision.RETURN)
    if decision not in set(Decision) or (needs_reason and not reason.strip()):
        raise InvalidValueError(
            f"Decision '{decision}' with reason '{reason}': use {', '.join(Decision)}; "
            "to return or refuse needs a reason.",
            f"决定“{decision}”有误：可用 {', '.join(Decision)}；退回或拒绝须说明理由。",
            field="decision",
        )
    return Decision(decision)


def _check_reviewer(session: Session, actor: Actor, application: Application, before: list[VoucherReview]) -> None:
    obstacle = may_decide(actor, application, before)
    done = "applied or belong to the applying firm" if obstacle == "own" else "decided on it before"
    en = f"You {done}; another person of the operator must decide on application '{application.id}'."
    zh = f"您已参与申请“{application.id}”，须由运营方另一人处理。"
    if obstacle:
        raise FourEyesError(en, zh)
    # All who were heard are other persons already; of other hands must be those whose decisions award together.
    partners = [row.actor_id for row in before if row.decision is Decision.CHECK and row.round == application.round]
    require_second_person(session, actor, [application.applicant_id, *partners], en=en, zh=zh)


def _was_checked(application: Application, reviews: list[VoucherReview]) -> bool:
    return any(row.decision is Decision.CHECK and row.round == application.round for row in reviews)


def _advance(application: Application, decision: Decision, before: list[VoucherReview]) -> None:
    possible = list_decisions(application, before)
    if decision not in possible:
        steps = ", ".join(possible) or "none"
        raise ConflictError(
            f"Application '{application.id}' is {application.state}; '{decision}' does not fit (possible: {steps}).",
            f"申请“{application.id}”处于 {application.state}，不能“{decision}”（可用：{steps}）。",
            field="decision",
        )
    application.state = APPLICATION_STEPS[application.state, decision]


def _add_review(
    session: Session, actor: Actor, application: Application, decision: Decision, *, reason: str, now: datetime
) -> None:
    session.add(
        VoucherReview(
            id=new_id("rev"),
            organisation_id=application.organisation_id,
            application_id=application.id,
            round=application.round,
            actor_id=actor.user_id,
            decision=decision,
            reason=reason.strip(),
            created_at=now,
        )
    )
    session.flush()
