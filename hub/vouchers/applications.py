"""What a firm does with its application: apply, complete, withdraw, appeal.

It leaves deciding to `hub.vouchers.reviews`, rules and funds to `hub.vouchers.programmes`.
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
from hub.vouchers.awards import require_open
from hub.vouchers.programmes import find_programme
from hub.vouchers.rules import FIRM_STEPS, ProgrammeClosedError, RuleBody, Tier, find_tier, read_body
from hub.vouchers.tables import Application, ApplicationState, Programme, RuleVersion


class ExclusiveProgrammeError(ConflictError):
    """Another programme pays for the contract, and one of the two rules excludes the other."""

    code = "exclusive_programme"


def apply_for_voucher(
    session: Session,
    actor: Actor,
    *,
    programme: str,
    asked_fen: int,
    contract_no: str,
    evidence: Sequence[dict[str, str]],
    now: datetime,
    tier: str | None = None,
) -> Application:
    """Ask a programme for an amount on a contract. Evidence: {kind, name, digest} of each paper.

    A rule with tiers needs one of them, by its label; its cap then counts beside the firm's.

    Raises:
        TierRefusedError: no tier of the rule.
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
    chosen = find_tier(rule, tier)
    _check_asked(rule, asked_fen, chosen)
    _check_evidence(rule, contract_no, evidence)
    number, key = contract_no.strip(), new_id("app")
    application = Application(
        id=key,
        organisation_id=actor.organisation_id,
        programme_id=found.id,
        rule_version_id=rule_version.id,
        asked_fen=asked_fen,
        tier=chosen.label_en if chosen else None,
        contract_no=number,
        contract_key=number if rule.one_award_per_contract else key,
        evidence=[dict(paper) for paper in evidence],
        state=ApplicationState.SUBMITTED,
        round=1,
        applicant_id=actor.user_id,
        created_at=now,
    )
    _check_exclusive(session, application, rule)
    _insert(session, application)
    record(session, "application.submitted", application, actor.user_id, now)
    return application


def resubmit_application(
    session: Session,
    actor: Actor,
    application_id: str,
    *,
    asked_fen: int,
    evidence: Sequence[dict[str, str]],
    now: datetime,
) -> Application:
    """Complete an application that was returned and hand it in again; papers given before stay beside the new ones.

    Raises:
        ConflictError: it was not returned.
        InvalidValueError: amount out of 1..cap, or evidence still missing.
    """
    application = _lock_own(session, actor, application_id)
    _step(application, ApplicationState.SUBMITTED)
    version = session.get_one(RuleVersion, application.rule_version_id)
    rule = read_body(version.body)
    papers = [*application.evidence, *(dict(paper) for paper in evidence)]
    _check_asked(rule, asked_fen, find_tier(rule, application.tier))
    _check_evidence(rule, application.contract_no, papers)
    application.asked_fen, application.evidence = asked_fen, papers
    application.state, application.round = ApplicationState.SUBMITTED, application.round + 1
    record(session, "application.resubmitted", application, actor.user_id, now)
    return application


def withdraw_application(session: Session, actor: Actor, application_id: str, *, now: datetime) -> Application:
    """Take an application back before anybody checked it; the contract may be asked for again."""
    application = _lock_own(session, actor, application_id)
    _step(application, ApplicationState.WITHDRAWN)
    application.state = ApplicationState.WITHDRAWN
    record(session, "application.withdrawn", application, actor.user_id, now)
    return application


def appeal_application(
    session: Session, actor: Actor, application_id: str, *, reason: str, now: datetime
) -> Application:
    """Appeal a refusal, once; a person who has not decided on it before decides.

    Raises:
        ConflictError: not refused, appealed before, or another application took up the contract since.
    """
    application = _lock_own(session, actor, application_id)
    if application.appealed_at is not None:
        raise ConflictError(
            f"Application '{application.id}' was appealed on {application.appealed_at.date().isoformat()}; an "
            "appeal is heard once. Apply again with other papers.",
            f"申请“{application.id}”已申诉过，申诉仅限一次，可补充材料后重新申请。",
        )
    _step(application, ApplicationState.APPEALED)
    if not reason.strip():
        raise InvalidValueError("An appeal needs its reason.", "申诉须说明理由。", field="reason")
    _check_exclusive(session, application, read_body(session.get_one(RuleVersion, application.rule_version_id).body))
    try:
        with session.begin_nested():
            application.state = ApplicationState.APPEALED
            application.appealed_at, application.appeal_reason = now, reason.strip()
    except IntegrityError as error:
        raise _contract_taken(application.contract_no) from error
    record(session, "application.appealed", application, actor.user_id, now)
    return application


def record(
    session: Session, topic: str, application: Application, actor_id: str, now: datetime, **more: object
) -> None:
    """Write an event of an application with the facts that reviewers go by."""
    record_event(
        session,
        topic,
        application.id,
        organisation_id=application.organisation_id,
        actor_id=actor_id,
        now=now,
        asked_fen=application.asked_fen,
        round=application.round,
        papers=[paper["digest"] for paper in application.evidence],
        **more,
    )


def _check_applicant(programme: Programme, rule: RuleBody, kind: str) -> None:
    if kind not in rule.eligible_kinds:
        allowed = ", ".join(rule.eligible_kinds)
        raise ProgrammeClosedError(
            f"{programme.title_en} is for {allowed}; your organisation is registered as {kind}.",
            f"{programme.title_zh}面向 {allowed}，贵单位登记为 {kind}。",
            field="programme",
        )


def _check_asked(rule: RuleBody, asked_fen: int, tier: Tier | None) -> None:
    limit = tier.cap_fen if tier else rule.per_firm_cap_fen or MAX_AMOUNT_FEN
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


def _check_exclusive(session: Session, application: Application, rule: RuleBody) -> None:
    """Refuse a contract that another programme pays for, where either rule excludes the other."""
    rows = session.execute(
        select(Programme, RuleVersion)
        .join(Application, Application.programme_id == Programme.id)
        .join(RuleVersion, RuleVersion.id == Application.rule_version_id)
        .where(
            Application.organisation_id == application.organisation_id,
            Application.contract_no == application.contract_no,
            Application.programme_id != application.programme_id,
            Application.state.not_in((ApplicationState.REFUSED, ApplicationState.WITHDRAWN)),
        )
    )
    own = session.get_one(Programme, application.programme_id).code
    for other, version in rows:
        if other.code in rule.exclusive_with or own in read_body(version.body).exclusive_with:
            raise ExclusiveProgrammeError(
                f"Contract '{application.contract_no}' has an application for {other.title_en}, which excludes this "
                "programme. Withdraw one of them.",
                f"合同“{application.contract_no}”已申请{other.title_zh}，两个项目互斥，请撤回其一。",
                field="contract_no",
            )


def _insert(session: Session, application: Application) -> None:
    try:
        with session.begin_nested():
            session.add(application)
    except IntegrityError as error:
        raise _contract_taken(application.contract_no) from error


def _contract_taken(contract_no: str) -> ConflictError:
    return ConflictError(
        f"Contract '{contract_no}' has an application in this programme already; one contract is subsidised once.",
        f"合同“{contract_no}”在该项目已有申请，同一合同只补贴一次。",
        field="contract_no",
    )


def _lock_own(session: Session, actor: Actor, application_id: str) -> Application:
    application = session.get(Application, application_id, with_for_update=True)
    if application is None or application.organisation_id != actor.organisation_id:
        raise NotFoundError.of("application", application_id)
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER)
    return application


def _step(application: Application, following: ApplicationState) -> None:
    if following not in FIRM_STEPS.get(application.state, ()):
        steps = ", ".join(FIRM_STEPS.get(application.state, ())) or "none"
        raise ConflictError(
            f"Application '{application.id}' is {application.state} and cannot become {following} (possible: {steps}).",
            f"申请“{application.id}”处于 {application.state}，不能转为 {following}（可用：{steps}）。",
        )
