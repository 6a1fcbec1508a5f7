"""The life of a claim: drafted by one person, submitted by another, paid by the authority, reconciled; or given up.

It leaves what may be claimed to `candidates` and the pack's bytes to `pack`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.actor import READERS, Actor, Role
from hub.claims.candidates import Candidate, Obstacle, judge_candidates, list_candidates
from hub.claims.overlaps import check_days
from hub.claims.rules import DifferenceUnexplainedError, NothingToClaimError, check_step, read_period
from hub.claims.tables import Claim, ClaimLine, ClaimState
from hub.errors import InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.movements import move
from hub.ledger.rules import MAX_AMOUNT_FEN, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind
from hub.organisations.service import find_organisation, require_second_person
from hub.vouchers.service import find_programme
from hub.vouchers.tables import Programme


@dataclass(frozen=True)
class ClaimPlan:
    """What a claim would hold: looked up in a reading transaction, because judging takes its time."""

    programme: Programme
    period: str
    organisation_id: str
    ready: list[Candidate]
    left_out: list[tuple[Candidate, Obstacle]]


def plan_claim(
    session: Session, actor: Actor, *, programme: str, period: str, organisation_id: str | None = None, now: datetime
) -> ClaimPlan:
    """Find a programme's unclaimed voucher money: of a range's days, or all up to the end of another period.

    What lacks a paper, or was paid between parties that look related, is left out with its reason and can be claimed
    once that is mended. Money taken back stands in it as negative lines, also from before a range.

    Raises:
        NothingToClaimError: nothing is left to claim; names what was left out.
        DaysOverlapError: another claim has days of the range.
        NotFoundError: no such programme or firm. InvalidValueError: no such period.
    """
    actor.require(Role.OPERATOR)
    asked = read_period(period)
    if organisation_id is not None:
        find_organisation(session, organisation_id)
    found = find_programme(session, programme)
    if now < asked.start:
        raise NothingToClaimError(
            f"Period {period} begins at {asked.start.isoformat()}; nothing of it can be claimed yet.",
            f"期间 {period} 自 {asked.start.isoformat()} 开始，尚无可申报金额。",
            field="period",
        )
    check_days(session, found.id, asked, organisation_id or "")
    since = asked.start if asked.is_range else None
    candidates = list_candidates(session, found, organisation_id=organisation_id, since=since, before=asked.end)
    ready, left_out = judge_candidates(session, candidates, now)
    if not ready:
        raise _nothing(found, period, left_out)
    return ClaimPlan(found, period, organisation_id or "", ready, left_out)


def draft_claim(
    session: Session, actor: Actor, *, programme: str, period: str, organisation_id: str | None = None, now: datetime
) -> Claim:
    """Plan and place a claim in one transaction, where few transfers are at stake. Raises: as both."""
    plan = plan_claim(session, actor, programme=programme, period=period, organisation_id=organisation_id, now=now)
    return place_claim(session, actor, plan, now=now)


def place_claim(session: Session, actor: Actor, plan: ClaimPlan, *, now: datetime) -> Claim:
    """Make a drafted claim of a plan.

    Raises:
        NothingToClaimError: somebody else claimed a part of it meanwhile; plan again.
        DaysOverlapError: somebody else claimed days of the range meanwhile.
    """
    actor.require(Role.OPERATOR)
    # One draft at a time per programme; what another one took since the plan must not be taken twice.
    programme = session.get_one(Programme, plan.programme.id, with_for_update=True)
    check_days(session, programme.id, read_period(plan.period), plan.organisation_id)
    wanted = [candidate.transfer.id for candidate in plan.ready]
    if _count_claimed(session, wanted):
        raise NothingToClaimError(
            "Another claim has taken a part of this money meanwhile; look again and draft what is left.",
            "期间内部分金额已被另一份申报纳入，请重新起草。",
            field="period",
        )
    claim = _build_claim(session, actor, programme, period=plan.period, organisation_id=plan.organisation_id, now=now)
    claim.amount_fen = sum(candidate.amount_fen for candidate in plan.ready)
    claim.left_out = [_describe_left_out(candidate, obstacle) for candidate, obstacle in plan.left_out]
    session.add(claim)
    session.flush()
    session.add_all(_build_line(claim, position, candidate) for position, candidate in enumerate(plan.ready))
    session.flush()
    _record(session, "claim.drafted", claim, actor, now, lines=len(plan.ready), left_out=len(plan.left_out))
    return claim


def submit_claim(session: Session, actor: Actor, claim_id: str, *, pack_sha256: str, now: datetime) -> Claim:
    """Hand a claim in with the sha256 of its pack; a second person does.

    Raises:
        FourEyesError: the actor drafted it. ClaimStepError: it is not a draft.
    """
    claim = _lock(session, actor, claim_id)
    check_step(claim.id, claim.state, ClaimState.SUBMITTED)
    require_second_person(
        session,
        actor,
        [claim.drafted_by],
        en=f"You drafted claim '{claim.id}'; another person of the operator must submit it.",
        zh=f"您起草了申报“{claim.id}”，须由运营方另一人提交。",
    )
    claim.state, claim.submitted_by, claim.submitted_at = ClaimState.SUBMITTED, actor.user_id, now
    claim.pack_sha256 = pack_sha256
    _record(session, "claim.submitted", claim, actor, now, pack_sha256=pack_sha256)
    return claim


def withdraw_claim(session: Session, actor: Actor, claim_id: str, *, reason: str, now: datetime) -> Claim:
    """Take a draft back; its transfers can be claimed again.

    Raises:
        ClaimStepError: it was submitted. InvalidValueError: no reason.
    """
    return _give_up(session, actor, claim_id, ClaimState.WITHDRAWN, reason=reason, now=now)


def refuse_claim(session: Session, actor: Actor, claim_id: str, *, reason: str, now: datetime) -> Claim:
    """Note that the authority refused a claim or sent it back, with its reason; its transfers can be claimed again.

    Pack and checksum stay as they were submitted.

    Raises:
        ClaimStepError: not submitted, or paid. InvalidValueError: no reason.
    """
    return _give_up(session, actor, claim_id, ClaimState.REFUSED, reason=reason, now=now)


def record_payment(
    session: Session, actor: Actor, claim_id: str, *, paid_fen: int, reference: str, now: datetime
) -> Claim:
    """Book what the authority paid on a claim (negative: what it was repaid) under the bank's reference.

    Raises:
        ClaimStepError: not submitted, or paid before. InvalidValueError: no reference, or an amount out of range.
    """
    claim = _lock(session, actor, claim_id)
    check_step(claim.id, claim.state, ClaimState.PAID)
    if not reference.strip() or abs(paid_fen) > MAX_AMOUNT_FEN or (paid_fen < 0) != (claim.amount_fen < 0):
        raise InvalidValueError(
            f"Payment of {paid_fen} fen with reference '{reference}' on a claim of {claim.amount_fen} fen: give the "
            "bank's reference and an amount of the same direction.",
            f"付款 {paid_fen} 分（“{reference}”）有误：须有银行流水号，且与申报额 {claim.amount_fen} 分同向。",
            field="paid_fen" if reference.strip() else "reference",
        )
    if paid_fen:
        _post_payment(session, claim, paid_fen, actor=actor, now=now)
    claim.state, claim.paid_fen, claim.paid_reference = ClaimState.PAID, paid_fen, reference.strip()
    claim.paid_by, claim.paid_at = actor.user_id, now
    _record(session, "claim.paid", claim, actor, now, paid_fen=paid_fen, reference=claim.paid_reference)
    return claim


def reconcile_claim(session: Session, actor: Actor, claim_id: str, *, reason: str, now: datetime) -> Claim:
    """Close a paid claim. Where the authority paid another amount, the reason names the difference.

    Raises:
        DifferenceUnexplainedError: a difference without a reason. ClaimStepError: not paid.
    """
    claim = _lock(session, actor, claim_id)
    check_step(claim.id, claim.state, ClaimState.RECONCILED)
    difference = (claim.paid_fen or 0) - claim.amount_fen
    if difference and not reason.strip():
        raise DifferenceUnexplainedError(
            f"{claim.paid_fen} fen came in for {claim.amount_fen} fen claimed, a difference of {difference} fen; "
            "name it.",
            f"申报 {claim.amount_fen} 分，到账 {claim.paid_fen} 分，差额 {difference} 分，请说明原因。",
            field="reason",
        )
    claim.state, claim.ended_by, claim.ended_at = ClaimState.RECONCILED, actor.user_id, now
    claim.ended_reason = reason.strip()
    _record(session, "claim.reconciled", claim, actor, now, difference_fen=difference, reason=claim.ended_reason)
    return claim


def list_lines(session: Session, claim_id: str) -> list[ClaimLine]:
    """Return the lines of a claim in order."""
    query = select(ClaimLine).where(ClaimLine.claim_id == claim_id)
    return list(session.scalars(query.order_by(ClaimLine.position)))


def list_claims(session: Session, actor: Actor, *, state: ClaimState | None = None) -> list[Claim]:
    """Return claims, newest first, for operator and auditor; a firm asks for its own lines."""
    actor.require(*READERS)
    query = select(Claim)
    if state is not None:
        query = query.where(Claim.state == state)
    return list(session.scalars(query.order_by(Claim.id.desc()).limit(500)))


def list_own_lines(session: Session, organisation_id: str) -> list[tuple[ClaimLine, Claim]]:
    """Return a firm's lines in claims that were handed in, refused ones too, with their claims, newest first."""
    query = (
        select(ClaimLine, Claim)
        .join(Claim, Claim.id == ClaimLine.claim_id)
        .where(
            ClaimLine.organisation_id == organisation_id,
            Claim.submitted_at.is_not(None),
        )
        .order_by(Claim.id.desc(), ClaimLine.position)
        .limit(500)
    )
    return [(line, claim) for line, claim in session.execute(query)]


def find_claim(session: Session, actor: Actor, claim_id: str) -> Claim:
    """Return a claim; only operator and auditor see whole ones, because other firms stand in them.

    Raises:
        NotFoundError: missing, or not the actor's to see.
    """
    claim = session.get(Claim, claim_id)
    if claim is None or not actor.reads_all:
        raise NotFoundError.of("claim", claim_id)
    return claim


def _count_claimed(session: Session, transfer_ids: list[str]) -> int:
    """Return how many of these transfers are in a claim, asked in portions that every database takes."""
    found = 0
    for start in range(0, len(transfer_ids), 500):
        portion = transfer_ids[start : start + 500]
        query = select(func.count()).select_from(ClaimLine).where(ClaimLine.claimed_transfer_id.in_(portion))
        found += int(session.scalar(query) or 0)
    return found


def _lock(session: Session, actor: Actor, claim_id: str) -> Claim:
    actor.require(Role.OPERATOR)
    claim = session.get(Claim, claim_id, with_for_update=True, populate_existing=True)
    if claim is None:
        raise NotFoundError.of("claim", claim_id)
    return claim


def _give_up(session: Session, actor: Actor, claim_id: str, state: ClaimState, *, reason: str, now: datetime) -> Claim:
    claim = _lock(session, actor, claim_id)
    check_step(claim.id, claim.state, state)
    if not reason.strip():
        raise InvalidValueError(
            "A claim is taken back or refused with a reason; say why.", "撤回或退回申报须说明理由。", field="reason"
        )
    for line in list_lines(session, claim.id):
        line.claimed_transfer_id = None
    claim.state, claim.ended_by, claim.ended_at = state, actor.user_id, now
    claim.ended_reason = reason.strip()
    _record(session, f"claim.{state}", claim, actor, now, reason=claim.ended_reason)
    return claim


def _build_claim(
    session: Session, actor: Actor, programme: Programme, *, period: str, organisation_id: str, now: datetime
) -> Claim:
    last = session.scalar(select(func.max(Claim.number)).where(Claim.programme_id == programme.id))
    return Claim(
        id=new_id("clm"),
        organisation_id=organisation_id,
        programme_id=programme.id,
        number=(last or 0) + 1,
        period=period,
        state=ClaimState.DRAFTED,
        cut_at=now,
        drafted_by=actor.user_id,
        created_at=now,
    )


def _build_line(claim: Claim, position: int, candidate: Candidate) -> ClaimLine:
    return ClaimLine(
        id=new_id("cln"),
        organisation_id=candidate.grant.organisation_id,
        claim_id=claim.id,
        position=position,
        grant_id=candidate.grant.id,
        transfer_id=candidate.transfer.id,
        claimed_transfer_id=candidate.transfer.id,
        amount_fen=candidate.amount_fen,
        booked_at=candidate.transfer.event_at,
    )


def _describe_left_out(candidate: Candidate, obstacle: Obstacle) -> dict[str, object]:
    return {
        "transfer_id": candidate.transfer.id,
        "organisation_id": candidate.grant.organisation_id,
        "grant_id": candidate.grant.id,
        "amount_fen": candidate.amount_fen,
        "code": obstacle.code,
        "zh": obstacle.zh,
        "en": obstacle.en,
    }


def _nothing(programme: Programme, period: str, left_out: list[tuple[Candidate, Obstacle]]) -> NothingToClaimError:
    why = left_out[0][1] if left_out else None
    blocked = sum(candidate.amount_fen for candidate, _ in left_out)
    en = f" {blocked} fen are left out, first because: {why.en}." if why else ""
    zh = f"另有 {blocked} 分未纳入，首要原因：{why.zh}。" if why else ""
    return NothingToClaimError(
        f"{programme.title_en} has nothing to claim for {period}.{en}",
        f"{programme.title_zh}在期间 {period} 没有可申报的金额。{zh}",
        field="period",
        left_out_fen=blocked,
    )


def _post_payment(session: Session, claim: Claim, paid_fen: int, *, actor: Actor, now: datetime) -> None:
    """Move what came in from the bank against what the authority had appropriated, or back where it is repaid."""
    bank = open_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK, now=now)
    owed = open_account(
        session, organisation_id=PLATFORM, kind=AccountKind.APPROPRIATION, subject=claim.programme_id, now=now
    )
    debit, credit = (bank, owed) if paid_fen > 0 else (owed, bank)
    key = derive_id("tra", "claim_paid", claim.id)
    movement = move(key, debit, credit, amount_fen=abs(paid_fen), code="claim_paid")
    post_group(session, key, [movement], Posted("claim", claim.id, actor.user_id, now))


def _record(session: Session, topic: str, claim: Claim, actor: Actor, now: datetime, **more: object) -> None:
    record_event(
        session,
        topic,
        claim.id,
        organisation_id=claim.organisation_id or PLATFORM,
        actor_id=actor.user_id,
        now=now,
        number=claim.number,
        period=claim.period,
        amount_fen=claim.amount_fen,
        **more,
    )
