"""Programmes, their rule versions and the release of their funds: as data, drafted by one, approved by another.

It leaves applications to `hub.vouchers.applications` and what a rule pays to `hub.vouchers.cover`.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, FourEyesError, InvalidValueError, NotFoundError
from hub.events.service import SYSTEM, record_event
from hub.ids import new_id
from hub.ledger.movements import move
from hub.ledger.periods import SHANGHAI
from hub.ledger.rules import derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.organisations.service import require_second_person
from hub.vouchers.rules import check_frame, check_words, digest_body, read_body
from hub.vouchers.tables import Programme, RuleState, RuleVersion, Tranche

SHIPPED = Path(__file__).with_name("programmes.json")


def seed_programmes(session: Session, drafted_by: str, approved_by: str, now: datetime) -> list[Programme]:
    """Bring in the shipped programmes with rule version 1 and their tranches; present ones stay as they are.

    Raises:
        FourEyesError: drafter and approver are one person.
    """
    if drafted_by == approved_by:
        raise FourEyesError(*_explain(drafted_by))
    programmes = []
    for shipped in json.loads(SHIPPED.read_text(encoding="utf-8")):
        programme = session.scalar(select(Programme).where(Programme.code == shipped["code"]))
        if programme is None:
            programme = _add_shipped(session, shipped, drafted_by=drafted_by, approved_by=approved_by, now=now)
        programmes.append(programme)
    release_due_tranches(session, now)
    return programmes


def list_programmes(session: Session) -> list[Programme]:
    """Return all programmes by code."""
    return list(session.scalars(select(Programme).order_by(Programme.code)))


def find_programme(session: Session, code: str) -> Programme:
    """Return a programme by its code.

    Raises:
        NotFoundError: there is none.
    """
    programme = session.scalar(select(Programme).where(Programme.code == code))
    if programme is None:
        raise NotFoundError.of("programme", code)
    return programme


def list_rules(session: Session, programme_id: str) -> list[RuleVersion]:
    """Return every rule version of a programme, drafts too, newest first."""
    query = select(RuleVersion).where(RuleVersion.programme_id == programme_id)
    return list(session.scalars(query.order_by(RuleVersion.number.desc())))


def list_tranches(session: Session, programme_id: str) -> list[Tranche]:
    """Return the tranches of a programme's fund by their day."""
    query = select(Tranche).where(Tranche.programme_id == programme_id)
    return list(session.scalars(query.order_by(Tranche.release_at, Tranche.id)))


def rule_of_day(session: Session, programme_id: str, moment: datetime) -> RuleVersion | None:
    """Return the approved rule version in force at an instant: the highest number; None if none is."""
    return session.scalar(
        select(RuleVersion)
        .where(RuleVersion.programme_id == programme_id, *_in_force(moment))
        .order_by(RuleVersion.number.desc())
        .limit(1)
    )


def list_rules_of_day(session: Session, moment: datetime) -> list[tuple[Programme, RuleVersion]]:
    """Return every programme that has a rule in force at an instant, with it, by code; in one query."""
    rows = session.execute(
        select(Programme, RuleVersion)
        .join(RuleVersion, RuleVersion.programme_id == Programme.id)
        .where(*_in_force(moment))
        .order_by(Programme.code, RuleVersion.number)
    )
    return list({programme.id: (programme, version) for programme, version in rows}.values())


def draft_rule(
    session: Session,
    actor: Actor,
    *,
    programme: str,
    body: Mapping[str, Any],
    effective_from_at: datetime,
    effective_to_at: datetime | None,
    source: str,
    now: datetime,
    tz: str = "Asia/Shanghai",
    basis_date: str | None = None,
) -> RuleVersion:
    """Draft the next rule version of a programme; it counts once another operator approves it.

    `basis_date` dates the cap period: `hold` where money is deducted; `charge` (the default) or `redeem` where it is
    reimbursed.

    Raises:
        RuleRefusedError: the body is out of shape, or zone or basis date do not fit.
        InvalidValueError: dates that reach into the past or end before they begin.
    """
    actor.require(Role.OPERATOR)
    found = find_programme(session, programme)
    if effective_from_at < now:
        raise InvalidValueError(
            f"A rule from {effective_from_at.isoformat()} would reach into the past; start at or after now.",
            f"规则生效时间 {effective_from_at.isoformat()} 早于当前时间，不得追溯。",
            field="effective_from_at",
        )
    if effective_to_at is not None and effective_to_at <= effective_from_at:
        raise InvalidValueError(
            f"A rule until {effective_to_at.isoformat()} would end before it begins; give a later day or none.",
            f"规则终止时间 {effective_to_at.isoformat()} 不晚于生效时间，请改晚或留空。",
            field="effective_to_at",
        )
    basis = basis_date or ("charge" if body.get("mode") == "reimburse" else "hold")
    shape = {"tz": tz, "basis_date": basis, "source": source, "body": dict(body)}
    rule = _build_rule(session, found.id, shape, drafted_by=actor.user_id, period=(effective_from_at, effective_to_at))
    rule.created_at = now
    session.add(rule)
    session.flush()
    _record(session, "rule.drafted", rule.id, actor.user_id, now)
    return rule


def approve_rule(session: Session, actor: Actor, rule_version_id: str, *, now: datetime) -> RuleVersion:
    """Put a drafted rule version in force.

    Raises:
        FourEyesError: the actor drafted it.
        ConflictError: it is approved or refused already.
    """
    rule = _lock_draft(session, actor, rule_version_id)
    en, zh = _explain(rule.drafted_by)
    require_second_person(session, actor, [rule.drafted_by], en=en, zh=zh)
    if rule.effective_from_at < now:
        # A draft that lay too long would change days that are over.
        rule.effective_from_at = now
    rule.state, rule.approved_by, rule.approved_at = RuleState.APPROVED, actor.user_id, now
    _record(session, "rule.approved", rule.id, actor.user_id, now)
    return rule


def refuse_rule(session: Session, actor: Actor, rule_version_id: str, *, reason: str, now: datetime) -> RuleVersion:
    """Refuse a drafted rule version for good, as its reviewer; whoever drafted it takes it back so.

    Raises:
        InvalidValueError: no reason. ConflictError: it is approved or refused already.
    """
    rule = _lock_draft(session, actor, rule_version_id)
    if not reason.strip():
        raise InvalidValueError(
            "A refusal needs its reason; say what the next draft must change.",
            "驳回须说明理由，以便重新起草。",
            field="reason",
        )
    rule.state, rule.refused_by, rule.refused_at = RuleState.REFUSED, actor.user_id, now
    rule.refusal_reason = reason.strip()
    _record(session, "rule.refused", rule.id, actor.user_id, now, reason=rule.refusal_reason)
    return rule


def release_due_tranches(session: Session, now: datetime) -> int:
    """Fund the programmes with every tranche whose day has come and return how many. Idempotent."""
    due = list(
        session.scalars(
            select(Tranche)
            .where(Tranche.release_at <= now, Tranche.released_at.is_(None))
            .order_by(Tranche.id)
            .with_for_update()
        )
    )
    for tranche in due:
        fund = fund_account(session, tranche.programme_id, now)
        books = open_account(
            session,
            organisation_id=PLATFORM,
            kind=AccountKind.APPROPRIATION,
            subject=tranche.programme_id,
            now=now,
        )
        key = derive_id("tra", "tranche", tranche.id)
        released = move(key, books, fund, amount_fen=tranche.amount_fen, code="fund_released")
        post_group(session, key, [released], Posted("tranche", tranche.id, SYSTEM, now))
        tranche.released_at = now
    return len(due)


def fund_account(session: Session, programme_id: str, now: datetime) -> Account:
    """Return the account of a programme's released fund."""
    return open_account(
        session, organisation_id=PLATFORM, kind=AccountKind.PROGRAMME_FUND, subject=programme_id, now=now
    )


def _lock_draft(session: Session, actor: Actor, rule_version_id: str) -> RuleVersion:
    actor.require(Role.OPERATOR)
    rule = session.get(RuleVersion, rule_version_id, with_for_update=True, populate_existing=True)
    if rule is None:
        raise NotFoundError.of("rule version", rule_version_id)
    if rule.state is not RuleState.DRAFT:
        decider = rule.approved_by or rule.refused_by
        raise ConflictError(
            f"Rule version {rule.number} was {rule.state} by {decider}; draft a new version to change it.",
            f"规则版本 {rule.number} 已由 {decider} 处理（{rule.state}）；如需修改请起草新版本。",
        )
    return rule


def _in_force(moment: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        RuleVersion.state == RuleState.APPROVED,
        RuleVersion.effective_from_at <= moment,
        (RuleVersion.effective_to_at.is_(None)) | (RuleVersion.effective_to_at > moment),
    )


def _add_shipped(
    session: Session, shipped: Mapping[str, Any], *, drafted_by: str, approved_by: str, now: datetime
) -> Programme:
    plain = ("code", "title_zh", "title_en", "authority", "source", "objects_held", "refusal_zh", "refusal_en")
    programme = Programme(
        id=new_id("prg"), fund_fen=shipped["fund_fen"], created_at=now, **{name: shipped[name] for name in plain}
    )
    session.add(programme)
    session.flush()
    rule = shipped["rule"]
    period = (_read_day(rule["effective_from"]), _read_day(rule["effective_to"]))
    version = _build_rule(session, programme.id, rule, drafted_by=drafted_by, period=period)
    version.created_at = version.approved_at = now
    version.state, version.approved_by = RuleState.APPROVED, approved_by
    session.add(version)
    for tranche in shipped["tranches"]:
        session.add(
            Tranche(
                id=new_id("trn"),
                programme_id=programme.id,
                label=tranche["label"],
                amount_fen=tranche["amount_fen"],
                release_at=_read_day(tranche["release_on"]),
                our_default=tranche["our_default"],
                source=tranche["source"],
            )
        )
    session.flush()
    _record(session, "rule.approved", version.id, approved_by, now)
    return programme


def _build_rule(
    session: Session,
    programme_id: str,
    shape: Mapping[str, Any],
    *,
    drafted_by: str,
    period: tuple[datetime, datetime | None],
) -> RuleVersion:
    rule = read_body(shape["body"])
    check_words(rule)
    check_frame(rule, shape["tz"], shape["basis_date"])
    top = session.scalar(select(func.max(RuleVersion.number)).where(RuleVersion.programme_id == programme_id))
    return RuleVersion(
        id=new_id("rul"),
        programme_id=programme_id,
        number=(top or 0) + 1,
        state=RuleState.DRAFT,
        effective_from_at=period[0],
        effective_to_at=period[1],
        tz=shape["tz"],
        basis_date=shape["basis_date"],
        source=shape["source"],
        body=shape["body"],
        sha256=digest_body(shape["body"]),
        drafted_by=drafted_by,
    )


def _read_day(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=SHANGHAI)


def _explain(first: str) -> tuple[str, str]:
    return (
        f"'{first}' did the first half and may not approve it too; a second person must.",
        f"“{first}”已完成前一步，须由另一人批准。",
    )


def _record(session: Session, topic: str, subject: str, actor_id: str, now: datetime, **more: object) -> None:
    record_event(session, topic, subject, organisation_id=PLATFORM, actor_id=actor_id, now=now, **more)
