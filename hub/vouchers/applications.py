"""Applications for vouchers: apply, check, approve or refuse by different persons, award within cap and fund.

It leaves rules and funds to `hub.vouchers.programmes` and spending to `hub.vouchers.cover`.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.movements import move
from hub.ledger.rules import MAX_AMOUNT_FEN, AccountLimitError, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind
from hub.organisations.service import require_verified
from hub.vouchers.programmes import find_programme, fund_account, release_due_tranches, rule_of_day
from hub.vouchers.rules import (
    CapExceededError,
    FourEyesError,
    FundExhaustedError,
    ProgrammeClosedError,
    RuleBody,
    period_of,
    read_body,
)
from hub.vouchers.tables import (
    Application,
    ApplicationState,
    Decision,
    Grant,
    Programme,
    RuleVersion,
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
    rule_version = _require_open(session, found, now)
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
        return _award(session, actor, application, amount_fen=granted_fen or application.asked_fen, now=now)
    return None


def _require_open(session: Session, programme: Programme, now: datetime) -> RuleVersion:
    if not programme.objects_held:
        raise ProgrammeClosedError(
            f"{programme.title_en} is not open here: {programme.refusal_en}",
            f"{programme.title_zh}：{programme.refusal_zh}",
            field="programme",
        )
    rule = rule_of_day(session, programme.id, now)
    if rule is None:
        raise ProgrammeClosedError(
            f"{programme.title_en} has no rule in force on {now.date().isoformat()}; wait for the operator's next one.",
            f"{programme.title_zh}在 {now.date().isoformat()} 没有有效规则，请等待新规则。",
            field="programme",
        )
    return rule


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


def _award(session: Session, actor: Actor, application: Application, *, amount_fen: int, now: datetime) -> Grant:
    # One award at a time per programme, so that two of one firm cannot pass its cap together.
    programme = session.get_one(Programme, application.programme_id, with_for_update=True)
    rule_version = _require_open(session, programme, now)
    rule = read_body(rule_version.body)
    period = period_of(rule, now)
    if amount_fen > application.asked_fen or amount_fen < 1:
        raise InvalidValueError(
            f"{amount_fen} fen granted where {application.asked_fen} fen were asked; grant 1..asked.",
            f"批准 {amount_fen} 分，申请为 {application.asked_fen} 分，须在 1 与申请额之间。",
            field="granted_fen",
        )
    _check_cap(session, application, rule, period=period, amount_fen=amount_fen)
    release_due_tranches(session, now)
    grant_id = derive_id("gra", application.id)
    account = open_account(
        session,
        organisation_id=application.organisation_id,
        kind=AccountKind.GRANT,
        subject=grant_id,
        period_key=period,
        now=now,
    )
    _fund_grant(
        session, account, programme, amount_fen=amount_fen, posted=Posted("grant", grant_id, actor.user_id, now)
    )
    grant = Grant(
        id=grant_id,
        organisation_id=application.organisation_id,
        application_id=application.id,
        programme_id=programme.id,
        rule_version_id=rule_version.id,
        account_id=account.id,
        period_key=period,
        amount_fen=amount_fen,
        approved_by=actor.user_id,
        created_at=now,
    )
    session.add(grant)
    session.flush()
    return grant


def _check_cap(session: Session, application: Application, rule: RuleBody, *, period: str, amount_fen: int) -> None:
    if rule.per_firm_cap_fen is None:
        return
    awarded = session.scalar(
        select(func.coalesce(func.sum(Grant.amount_fen), 0)).where(
            Grant.organisation_id == application.organisation_id,
            Grant.programme_id == application.programme_id,
            Grant.period_key == period,
        )
    )
    left = rule.per_firm_cap_fen - int(awarded or 0)
    if amount_fen > left:
        raise CapExceededError(
            f"{amount_fen} fen would pass the firm's cap of {rule.per_firm_cap_fen} fen for {period}: "
            f"{left} fen are left. Grant at most that.",
            f"{amount_fen} 分超出企业上限 {rule.per_firm_cap_fen} 分（{period}），剩余 {left} 分。",
            limit=rule.per_firm_cap_fen,
            left=left,
        )


def _fund_grant(session: Session, account: Account, programme: Programme, *, amount_fen: int, posted: Posted) -> None:
    fund = fund_account(session, programme.id, posted.now)
    key = derive_id("tra", "award", posted.business_id)
    try:
        post_group(session, key, [move(key, fund, account, amount_fen=amount_fen, code="voucher_awarded")], posted)
    except AccountLimitError as error:
        raise FundExhaustedError(
            f"The released fund of {programme.title_en} has {fund.available_fen} fen left, {amount_fen} fen are asked. "
            "Grant less or wait for the next tranche.",
            f"{programme.title_zh}已释放资金剩余 {fund.available_fen} 分，申请 {amount_fen} 分，请减少或等待下一批。",
            left=fund.available_fen,
        ) from error


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
