"""Pay first, redeem after: a firm asks its grant for the share of fees it has paid in full; two persons decide.

Only for rules of mode `reimburse`. It leaves what fits to `redeemable` and the award to `hub.vouchers`; what is paid
here is claimed from the authority like any other voucher money.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.claims.evidence import REDEMPTION
from hub.claims.redeemable import Portion, read_rule, take_portions
from hub.claims.tables import Redemption, RedemptionLine, RedemptionState
from hub.errors import ConflictError, FourEyesError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.movements import move
from hub.ledger.periods import month_key
from hub.ledger.rules import derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind
from hub.organisations.service import require_second_person
from hub.vouchers.papers import list_papers
from hub.vouchers.rules import GrantEndedError, RuleBody, effective_share, period_of, share_fen
from hub.vouchers.tables import Application, Grant, GrantState, RuleVersion


def request_redemption(
    session: Session, actor: Actor, grant_id: str, *, charge_ids: Sequence[str], now: datetime
) -> Redemption:
    """Ask for the share of these charges (or bill lines): floored once on their sum, at most what the grant has left.

    Raises:
        NotRedeemableError: a charge does not fit the rule; says why. NotFoundError: not the firm's grant or charge.
        GrantEndedError: the grant lapsed or was revoked. ConflictError: a charge is redeemed already.
        InvalidValueError: no charge, an invoice or payment paper missing, or nothing left to pay.
    """
    grant = session.get(Grant, grant_id, with_for_update=True)
    if grant is None or grant.organisation_id != actor.organisation_id:
        raise NotFoundError.of("grant", grant_id)
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER)
    _require_active(grant)
    rule, version = read_rule(session, grant)
    left = session.get_one(Account, grant.account_id).available_fen
    is_lump = rule.mode == "reimburse" and rule.share is None
    if is_lump:
        _require_none_waits(session, grant)
    portions = [] if is_lump and not charge_ids else take_portions(session, grant, charge_ids)
    _check_papers(session, grant, rule, portions, now=now, is_lump=is_lump)
    _check_period(rule, version, grant, now)
    # An award without a share is a sum that two persons granted: all that is left of it is paid.
    eligible = left if is_lump else sum(portion.fee_fen for portion in portions)
    share = (1, 1) if is_lump else effective_share(rule)
    amount = min(share_fen(eligible, *share), left) if share and eligible > 0 else 0
    if amount < 1:
        raise InvalidValueError(
            f"{eligible} fen of fees and {left} fen left in the grant leave nothing to reimburse.",
            f"费用 {eligible} 分、额度剩余 {left} 分，没有可兑付金额。",
            field="charge_ids",
        )
    redemption = Redemption(
        id=new_id("red"),
        organisation_id=grant.organisation_id,
        grant_id=grant.id,
        rule_version_id=version.id,
        state=RedemptionState.REQUESTED,
        eligible_fen=eligible,
        amount_fen=amount,
        requested_by=actor.user_id,
        created_at=now,
        reason="",
    )
    _insert(session, redemption, portions)
    session.flush()
    _record(session, "redemption.requested", redemption, actor, now)
    return redemption


def review_redemption(
    session: Session, actor: Actor, redemption_id: str, *, decision: str, reason: str, now: datetime
) -> Redemption:
    """`check`, then by another person `approve`, which pays the firm; `refuse` with a reason at either step.

    Raises:
        FourEyesError: the actor is of the firm, or checked it. ConflictError: not at that step.
        AccountLimitError: the grant has less left than was asked.
    """
    actor.require(Role.OPERATOR)
    redemption = session.get(Redemption, redemption_id, with_for_update=True, populate_existing=True)
    if redemption is None:
        raise NotFoundError.of("redemption", redemption_id)
    _check_step(redemption, decision, reason)
    en = f"You checked redemption '{redemption.id}' or are of its firm; another person must decide."
    zh = f"您已初审兑付“{redemption.id}”或属于申请单位，须由另一人决定。"
    if actor.organisation_id == redemption.organisation_id:
        raise FourEyesError(en, zh)
    require_second_person(session, actor, [redemption.requested_by, redemption.checked_by], en=en, zh=zh)
    if decision == "check":
        redemption.state, redemption.checked_by = RedemptionState.CHECKED, actor.user_id
    elif decision == "approve":
        _pay(session, actor, redemption, now)
    else:
        redemption.state, redemption.reason = RedemptionState.REFUSED, reason.strip()
        _free(session, redemption)
    _record(session, f"redemption.{redemption.state}", redemption, actor, now, reason=reason.strip())
    return redemption


def withdraw_redemption(session: Session, actor: Actor, redemption_id: str, *, now: datetime) -> Redemption:
    """Take an own request back before anybody checked it; its charges may be asked for again.

    Raises:
        NotFoundError: missing, or another firm's. ConflictError: checked or decided already.
    """
    redemption = session.get(Redemption, redemption_id, with_for_update=True, populate_existing=True)
    if redemption is None or redemption.organisation_id != actor.organisation_id:
        raise NotFoundError.of("redemption", redemption_id)
    actor.require(Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER)
    if redemption.state is not RedemptionState.REQUESTED:
        raise ConflictError(
            f"Redemption '{redemption.id}' is {redemption.state}; it can be taken back until an officer checks it.",
            f"兑付“{redemption.id}”处于 {redemption.state}，仅在初审前可以撤回。",
        )
    redemption.state = RedemptionState.WITHDRAWN
    _free(session, redemption)
    _record(session, "redemption.withdrawn", redemption, actor, now)
    return redemption


def list_redeemed(session: Session, redemption_id: str) -> list[RedemptionLine]:
    """Return the charges of a redemption."""
    query = select(RedemptionLine).where(RedemptionLine.redemption_id == redemption_id)
    return list(session.scalars(query.order_by(RedemptionLine.charge_id)))


def list_redemptions(session: Session, actor: Actor, *, state: RedemptionState | None = None) -> list[Redemption]:
    """Return redemptions, newest first: the own ones, all for operator and auditor."""
    query = select(Redemption)
    if state is not None:
        query = query.where(Redemption.state == state)
    if not actor.reads_all:
        query = query.where(Redemption.organisation_id == actor.organisation_id)
    return list(session.scalars(query.order_by(Redemption.id.desc()).limit(500)))


def _free(session: Session, redemption: Redemption) -> None:
    for line in list_redeemed(session, redemption.id):
        line.redeemed_charge_id = None


def _require_active(grant: Grant) -> None:
    if grant.state is not GrantState.ACTIVE:
        raise GrantEndedError(
            f"Grant '{grant.id}' is {grant.state}; nothing of it can be redeemed.",
            f"券“{grant.id}”已处于 {grant.state} 状态，不能兑付。",
        )


def _require_none_waits(session: Session, grant: Grant) -> None:
    """Pass a grant without a request under way: an award is asked for whole, so a second one could never be paid."""
    waiting = session.scalar(
        select(Redemption.id).where(
            Redemption.grant_id == grant.id,
            Redemption.state.in_((RedemptionState.REQUESTED, RedemptionState.CHECKED)),
        )
    )
    if waiting is not None:
        raise ConflictError(
            f"Redemption '{waiting}' asks for this award already; wait until it is decided.",
            f"兑付“{waiting}”已就该奖补提出申请，请等待审核结果。",
        )


def _check_papers(
    session: Session, grant: Grant, rule: RuleBody, portions: Sequence[Portion], *, now: datetime, is_lump: bool
) -> None:
    if not portions and not is_lump:
        raise InvalidValueError("Name the charges to redeem.", "请选择要兑付的费用。", field="charge_ids")
    application = session.get_one(Application, grant.application_id)
    always = {str(paper["kind"]) for paper in application.evidence}
    papers = list_papers(session, [grant.id])
    months = {month_key(now)} if is_lump else {portion.charge.month for portion in portions}
    for month in sorted(months):
        have = always | {str(paper.kind) for paper in papers if paper.month == month}
        missing = [kind for kind in rule.claim_evidence if kind not in have]
        if missing:
            text = ", ".join(missing)
            raise InvalidValueError(
                f"{text} missing for {month}; add the paper to the grant, then ask again.",
                f"{month} 缺少 {text}，请补充后再申请。",
                field="charge_ids",
            )


def _check_period(rule: RuleBody, version: RuleVersion, grant: Grant, now: datetime) -> None:
    if version.basis_date == "redeem" and period_of(rule, now, version.tz) != grant.period_key:
        raise GrantEndedError(
            f"Grant '{grant.id}' is for requests of {grant.period_key}, which is over.",
            f"券“{grant.id}”只受理 {grant.period_key} 年度的申请，现已结束。",
        )


def _insert(session: Session, redemption: Redemption, portions: Sequence[Portion]) -> None:
    try:
        with session.begin_nested():
            session.add(redemption)
            session.flush()
            session.add_all(
                RedemptionLine(
                    redemption_id=redemption.id,
                    charge_id=portion.charge.id,
                    organisation_id=redemption.organisation_id,
                    redeemed_charge_id=portion.charge.id,
                    fee_fen=portion.fee_fen,
                )
                for portion in portions
            )
    except IntegrityError as error:
        raise ConflictError(
            "One of the charges is in a redemption already; a charge is redeemed once.",
            "所选费用中有已申请兑付的，每笔费用只兑付一次。",
            field="charge_ids",
        ) from error


def _check_step(redemption: Redemption, decision: str, reason: str) -> None:
    fitting = {RedemptionState.REQUESTED: ("check", "refuse"), RedemptionState.CHECKED: ("approve", "refuse")}
    possible = fitting.get(redemption.state, ())
    if decision not in possible:
        steps = ", ".join(possible) or "none"
        raise ConflictError(
            f"Redemption '{redemption.id}' is {redemption.state}; '{decision}' does not fit (possible: {steps}).",
            f"兑付“{redemption.id}”处于 {redemption.state}，不能“{decision}”（可用：{steps}）。",
            field="decision",
        )
    if decision == "refuse" and not reason.strip():
        raise InvalidValueError("A refusal needs its reason.", "拒绝须说明理由。", field="reason")


def _pay(session: Session, actor: Actor, redemption: Redemption, now: datetime) -> None:
    grant = session.get_one(Grant, redemption.grant_id, with_for_update=True, populate_existing=True)
    _require_active(grant)
    account = session.get_one(Account, grant.account_id)
    cash = open_account(session, organisation_id=grant.organisation_id, kind=AccountKind.FIRM_CASH, now=now)
    key = derive_id("tra", REDEMPTION, redemption.id)
    movement = move(key, account, cash, amount_fen=redemption.amount_fen, code="voucher_redeemed")
    post_group(session, key, [movement], Posted(REDEMPTION, redemption.id, actor.user_id, now))
    redemption.state, redemption.approved_by, redemption.paid_at = RedemptionState.PAID, actor.user_id, now


def _record(session: Session, topic: str, redemption: Redemption, actor: Actor, now: datetime, **more: object) -> None:
    record_event(
        session,
        topic,
        redemption.id,
        organisation_id=redemption.organisation_id,
        actor_id=actor.user_id,
        now=now,
        grant_id=redemption.grant_id,
        amount_fen=redemption.amount_fen,
        **more,
    )
