"""Awards a voucher: a grant account funded from the programme, within the firm's cap and the released fund.

It leaves who decides to `hub.vouchers.applications` and spending to `hub.vouchers.cover`.
"""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import InvalidValueError
from hub.events.service import record_event
from hub.ledger.movements import move
from hub.ledger.rules import AccountLimitError, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.vouchers.programmes import fund_account, release_due_tranches, rule_of_day
from hub.vouchers.rules import (
    CapExceededError,
    FundExhaustedError,
    ProgrammeClosedError,
    RuleBody,
    Tier,
    find_tier,
    lapse_day,
    period_of,
    read_body,
)
from hub.vouchers.tables import Application, Grant, GrantState, Programme, RuleVersion


def require_open(session: Session, programme: Programme, now: datetime) -> RuleVersion:
    """Return the rule of the day of a programme that takes applications.

    Raises:
        ProgrammeClosedError: the hub does not hold what it pays for, or no rule is in force.
    """
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


def award_grant(session: Session, actor: Actor, application: Application, *, amount_fen: int, now: datetime) -> Grant:
    """Fund a grant for an approved application.

    Raises:
        CapExceededError, FundExhaustedError: name what is left.
        InvalidValueError: more than was asked.
    """
    # One award at a time per programme, so that two of one firm cannot pass its cap together.
    programme = session.get_one(Programme, application.programme_id, with_for_update=True)
    rule_version = require_open(session, programme, now)
    rule = read_body(rule_version.body)
    period = period_of(rule, now, rule_version.tz)
    if amount_fen > application.asked_fen or amount_fen < 1:
        raise InvalidValueError(
            f"{amount_fen} fen granted where {application.asked_fen} fen were asked; grant 1..asked.",
            f"批准 {amount_fen} 分，申请为 {application.asked_fen} 分，须在 1 与申请额之间。",
            field="granted_fen",
        )
    _check_caps(session, application, rule, period=period, amount_fen=amount_fen)
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
        returned_fen=0,
        state=GrantState.ACTIVE,
        lapse_at=lapse_day(rule, period_key=period, tz=rule_version.tz, effective_to_at=rule_version.effective_to_at),
        approved_by=actor.user_id,
        created_at=now,
    )
    session.add(grant)
    session.flush()
    _record(session, grant, programme)
    return grant


def _record(session: Session, grant: Grant, programme: Programme) -> None:
    record_event(
        session,
        "grant.awarded",
        grant.id,
        organisation_id=grant.organisation_id,
        actor_id=grant.approved_by,
        now=grant.created_at,
        programme=programme.code,
        amount_fen=grant.amount_fen,
        rule_version_id=grant.rule_version_id,
        period_key=grant.period_key,
    )


def _check_caps(session: Session, application: Application, rule: RuleBody, *, period: str, amount_fen: int) -> None:
    """Pass an award within the firm's cap and within its tier's, where the rule has them. Raises: CapExceededError."""
    tier = find_tier(rule, application.tier)
    if rule.per_firm_cap_fen is not None:
        _check_cap(session, application, rule.per_firm_cap_fen, None, period=period, amount_fen=amount_fen)
    if tier is not None:
        _check_cap(session, application, tier.cap_fen, tier, period=period, amount_fen=amount_fen)


def _check_cap(
    session: Session, application: Application, cap_fen: int, tier: Tier | None, *, period: str, amount_fen: int
) -> None:
    query = (
        select(func.coalesce(func.sum(Grant.amount_fen - Grant.returned_fen), 0))
        .join(Application, Application.id == Grant.application_id)
        .where(
            Grant.organisation_id == application.organisation_id,
            Grant.programme_id == application.programme_id,
            Grant.period_key == period,
        )
    )
    awarded = session.scalar(query if tier is None else query.where(Application.tier == tier.label_en))
    left = cap_fen - int(awarded or 0)
    if amount_fen > left:
        en, zh = (f"tier '{tier.label_en}'", f"档次“{tier.label_zh}”") if tier else ("the firm", "企业")
        raise CapExceededError(
            f"{amount_fen} fen would pass the cap of {cap_fen} fen of {en} for {period}: "
            f"{left} fen are left. Grant at most that.",
            f"{amount_fen} 分超出{zh}上限 {cap_fen} 分（{period}），剩余 {left} 分。",
            limit=cap_fen,
            left=left,
        )


def _fund_grant(session: Session, account: Account, programme: Programme, *, amount_fen: int, posted: Posted) -> None:
    fund = fund_account(session, programme.id, posted.now)
    if programme.fund_fen is None:
        _appropriate(session, fund, programme, amount_fen=amount_fen, posted=posted)
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


def _appropriate(session: Session, fund: Account, programme: Programme, *, amount_fen: int, posted: Posted) -> None:
    """Release what an award needs where the papers name no fund: the authority owes each award as it is made."""
    books = open_account(
        session, organisation_id=PLATFORM, kind=AccountKind.APPROPRIATION, subject=programme.id, now=posted.now
    )
    key = derive_id("tra", "appropriate", posted.business_id)
    post_group(session, key, [move(key, books, fund, amount_fen=amount_fen, code="fund_released")], posted)
