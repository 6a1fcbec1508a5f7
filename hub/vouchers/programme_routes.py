"""HTTP of programmes: rules to read, to preview, to draft, to approve and to refuse; public to read.

It leaves applications and grants to their own files of routes.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, Field
from sqlalchemy.orm import Session

from hub.actor import READERS
from hub.answers import Items
from hub.vouchers import service
from hub.vouchers.answers import ProgrammeView, RulePreview, RuleView
from hub.vouchers.blueprint import blueprint
from hub.vouchers.rule_changes import list_changes
from hub.vouchers.tables import Programme, RuleVersion
from hub.web import Body, Query, context, current_actor, find_actor


class ProgrammePath(Query):
    """One programme."""

    code: str


class RulePath(Query):
    """One rule version."""

    rule_version_id: str


class RulePreviewBody(Body):
    """A rule to compare with the one in force."""

    body: dict[str, Any]


class RuleBodyIn(Body):
    """A rule to draft; `body` has the fields of `hub.vouchers.rules.RuleBody`."""

    body: dict[str, Any]
    effective_from_at: AwareDatetime = Field(strict=False)
    effective_to_at: AwareDatetime | None = Field(None, strict=False)
    source: str = Field(min_length=1)
    tz: str = "Asia/Shanghai"
    basis_date: str | None = None


class RefusalBody(Body):
    """Why a draft is refused, for whoever drafts the next one."""

    reason: str = Field(max_length=1000)


def present_programme(session: Session, programme: Programme, now: datetime) -> ProgrammeView:
    """Return a programme with its rule of the day and its fund as JSON values."""
    rule = service.rule_of_day(session, programme.id, now)
    return {
        "code": programme.code,
        "title": {"zh": programme.title_zh, "en": programme.title_en},
        "authority": programme.authority,
        "source": programme.source,
        "open": programme.objects_held and rule is not None,
        "refusal": {"zh": programme.refusal_zh, "en": programme.refusal_en},
        "fund_fen": programme.fund_fen,
        "tranches": [
            {
                "label": tranche.label,
                "amount_fen": tranche.amount_fen,
                "release_at": tranche.release_at.isoformat(),
                "released": tranche.released_at is not None,
                "our_default": tranche.our_default,
                "source": tranche.source,
            }
            for tranche in service.list_tranches(session, programme.id)
        ],
        "rule": present_rule(rule) if rule else None,
    }


def present_rule(rule: RuleVersion) -> RuleView:
    """Return a rule version as JSON values."""
    return {
        "id": rule.id,
        "number": rule.number,
        "state": rule.state,
        "effective_from_at": rule.effective_from_at.isoformat(),
        "effective_to_at": rule.effective_to_at.isoformat() if rule.effective_to_at else None,
        "tz": rule.tz,
        "basis_date": rule.basis_date,
        "source": rule.source,
        "body": rule.body,
        "sha256": rule.sha256,
        "drafted_by": rule.drafted_by,
        "approved_by": rule.approved_by,
        "refused_by": rule.refused_by,
        "refusal_reason": rule.refusal_reason,
    }


@blueprint.get("/programmes")
def list_programmes() -> Items[ProgrammeView]:
    """Return every programme with its rule of the day; public."""
    with context().sessions.read() as session:
        now = context().clock()
        return {"items": [present_programme(session, row, now) for row in service.list_programmes(session)]}


@blueprint.get("/programmes/<code>/rules")
def list_rules(path: ProgrammePath) -> Items[RuleView]:
    """Return every rule version of a programme; public, but for who refused one and why: operator and auditor."""
    actor = find_actor()
    with context().sessions.read() as session:
        programme = service.find_programme(session, path.code)
        rules = [present_rule(rule) for rule in service.list_rules(session, programme.id)]
    hidden: Any = {} if actor is not None and actor.role in READERS else {"refused_by": None, "refusal_reason": None}
    return {"items": [{**rule, **hidden} for rule in rules]}


@blueprint.post("/programmes/<code>/rules")
def draft_rule(path: ProgrammePath, body: RuleBodyIn) -> tuple[RuleView, int]:
    """Draft the next rule version."""
    actor = current_actor()
    with context().sessions.write() as session:
        rule = service.draft_rule(
            session,
            actor,
            programme=path.code,
            body=body.body,
            effective_from_at=body.effective_from_at,
            effective_to_at=body.effective_to_at,
            source=body.source,
            tz=body.tz,
            basis_date=body.basis_date,
            now=context().clock(),
        )
        return present_rule(rule), 201


@blueprint.post("/programmes/<code>/rules/preview")
def preview_rule(path: ProgrammePath, body: RulePreviewBody) -> RulePreview:
    """Return what a rule would change against the one in force; nothing is kept."""
    current_actor()
    with context().sessions.read() as session:
        programme = service.find_programme(session, path.code)
        rule = service.rule_of_day(session, programme.id, context().clock())
    changes = list_changes(rule.body if rule else None, body.body)
    return {"against": rule.number if rule else None, "items": [asdict(change) for change in changes]}


@blueprint.post("/rules/<rule_version_id>/approve")
def approve_rule(path: RulePath) -> RuleView:
    """Approve a rule version that somebody else drafted."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_rule(service.approve_rule(session, actor, path.rule_version_id, now=context().clock()))


@blueprint.post("/rules/<rule_version_id>/refuse")
def refuse_rule(path: RulePath, body: RefusalBody) -> RuleView:
    """Refuse a drafted rule version with a reason; its drafter takes it back so."""
    actor = current_actor()
    with context().sessions.write() as session:
        rule = service.refuse_rule(session, actor, path.rule_version_id, reason=body.reason, now=context().clock())
        return present_rule(rule)
