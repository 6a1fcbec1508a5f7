"""Applications for vouchers: apply, check, approve or refuse by different persons, award within cap and fund.

It leaves rules and funds to `hub.vouchers.programmes` and spending to `hub.vouchers.cover`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.rules import MAX_AMOUNT_FEN
from hub.organisations.service import require_verified
from hub.vouchers.awards import award_grant, require_open
from hub.vouchers.programmes import find_programme
from hub.vouchers.rules import (
    FourEyesError,
    ProgrammeClosedError,
    RuleBody,
    read_body,
)
from hub.vouchers.tables import (
    Application,
    ApplicationState,
    Decision,
    Grant,
    Programme,
    VoucherReview,
)

NEXT = {
    (ApplicationState.SUBMITTED, Decision.CHECK): ApplicationState.CHECKED,
    (ApplicationState.SUBMITTED, Decision.REFUSE): ApplicationState.REFUSED,
    (ApplicationState.CHECKED, Decision.APPROVE): ApplicationState.APPROVED,
    (ApplicationState.CHECKED, Decision.REFUSE): ApplicationState.REFUSED,
}


def apply_for_voucher(
    session: Session,
    actor: Actor,
    *,
    programme: str,
    asked_fen: int,
    contract_no: str,
    evidence: Sequence[dict[str, str]],
    now: datetime,
) -> Application:
    """Ask a programme for an amount on a contract. Evidence: {kind, name, digest} of each paper.

    Raises:
        ProgrammeClosedError: the hub does not hold what the programme pays for, or no rule is in force.
        InvalidValueError: amount out of 1..cap, or evidence missing.
        ConflictError: the contract has an application already.
    """
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER)
    organisation = require_verified(session, actor.organisation_id)
    found = find_programme(session, programme)
    rule_version = require_open(session, found, now)
    rule = read_body(rule_version.body)
    _check_applicant(found, rule, str(organisation.kind))
    _check_asked(rule, asked_fen)
    _check_evidence(rule, contract_no, evidence)
    application = Application(
        id=new_id("app"),
        organisation_id=actor.organisation_id,
        programme_id=found.id,
        rule_version_id=rule_version.id,
        asked_fen=asked_fen,
        contract_no=contract_no,
        evidence=[dict(paper) for paper in evidence],
        state=ApplicationState.SUBMITTED,
        applicant_id=actor.user_id,
        created_at=now,
    )
    _insert(session, application)
    _record(session, "application.submitted", application, actor.user_id, now)
    return application


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
    """Record a decision (`check`, then by another person `approve`; `refuse` at any time) and award on approval.

    `granted_fen` awards less than asked. A refusal needs a reason.

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
    _check_reviewer(session, actor, application)
    _advance(application, chosen)
    session.add(
        VoucherReview(
            id=new_id("rev"),
            organisation_id=application.organisation_id,
            application_id=application.id,
            actor_id=actor.user_id,
            decision=chosen,
            reason=reason,
            created_at=now,
        )
    )
    session.flush()
    _record(session, f"application.{application.state}", application, actor.user_id, now)
    if chosen is Decision.APPROVE:
        return award_grant(session, actor, application, amount_fen=granted_fen or application.asked_fen, now=now)
    return None


def _check_applicant(programme: Programme, rule: RuleBody, kind: str) -> None:
    if kind not in rule.eligible_kinds:
        allowed = ", ".join(rule.eligible_kinds)
        raise ProgrammeClosedError(
            f"{programme.title_en} is for {allowed}; your organisation is registered as {kind}.",
            f"{programme.title_zh}面向 {allowed}，贵单位登记为 {kind}。",
            field="programme",
        )


def _check_asked(rule: RuleBody, asked_fen: int) -> None:
    limit = rule.per_firm_cap_fen or MAX_AMOUNT_FEN
    if not 1 <= asked_fen <= limit:
        raise InvalidValueError(
            f"{asked_fen} fen asked; the programme awards 1..{limit} fen to a firm. Ask for less.",
            f"申请 {asked_fen} 分；每家企业可获 1..{limit} 分，请调整。",
            field="asked_fen",
            limit=limit,
        )


def _check_evidence(rule: RuleBody, contract_no: str, evidence: Sequence[dict[str, str]]) -> None:
    given = {paper.get("kind") for paper in evidence}
    missing = [kind for kind in rule.required_evidence if kind not in given]
    if missing or not contract_no.strip():
        text = ", ".join(missing) or "contract_no"
        raise InvalidValueError(
            f"The application lacks {text}; add it and apply again.",
            f"申请缺少 {text}，请补齐后重新提交。",
            field="evidence" if missing else "contract_no",
        )


def _insert(session: Session, application: Application) -> None:
    try:
        with session.begin_nested():
            session.add(application)
    except IntegrityError as error:
        raise ConflictError(
            f"Contract '{application.contract_no}' has an application in this programme already; "
            "one contract is subsidised once.",
            f"合同“{application.contract_no}”在该项目已有申请，同一合同只补贴一次。",
            field="contract_no",
        ) from error


def _read_decision(decision: str, reason: str) -> Decision:
    if decision not in set(Decision) or (decision == Decision.REFUSE and not reason.strip()):
        raise InvalidValueError(
            f"Decision '{decision}' with reason '{reason}': use {', '.join(Decision)}; a refusal needs a reason.",
            f"决定“{decision}”有误：可用 {', '.join(Decision)}；拒绝须说明理由。",
            field="decision",
        )
    return Decision(decision)


def _check_reviewer(session: Session, actor: Actor, application: Application) -> None:
    decided = session.scalar(
        select(VoucherReview.decision).where(
            VoucherReview.application_id == application.id, VoucherReview.actor_id == actor.user_id
        )
    )
    own = actor.user_id == application.applicant_id or actor.organisation_id == application.organisation_id
    if decided or own:
        done = "applied or belong to the applying firm" if own else f"decided '{decided}' before"
        raise FourEyesError(
            f"You {done}; another person of the operator must decide on application '{application.id}'.",
            f"您已参与申请“{application.id}”，须由运营方另一人处理。",
        )


def _advance(application: Application, decision: Decision) -> None:
    following = NEXT.get((application.state, decision))
    if following is None:
        steps = ", ".join(step for state, step in NEXT if state is application.state) or "none"
        raise ConflictError(
            f"Application '{application.id}' is {application.state}; '{decision}' does not fit (possible: {steps}).",
            f"申请“{application.id}”处于 {application.state}，不能“{decision}”（可用：{steps}）。",
            field="decision",
        )
    application.state = following


def _record(session: Session, topic: str, application: Application, actor_id: str, now: datetime) -> None:
    record_event(
        session,
        topic,
        application.id,
        organisation_id=application.organisation_id,
        actor_id=actor_id,
        now=now,
        asked_fen=application.asked_fen,
    )
