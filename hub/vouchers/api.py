"""HTTP of vouchers: programmes and rules to read, rules to draft and approve, applications, reviews, grants.

It leaves spending to orders; rules are public, applications and grants are their firm's.
"""

from datetime import datetime
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import AwareDatetime, Field
from sqlalchemy.orm import Session

from hub.actor import Role
from hub.errors import NotFoundError
from hub.vouchers import service
from hub.vouchers.service import GrantBalance
from hub.vouchers.tables import Application, Programme, RuleVersion
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("vouchers", __name__, url_prefix="/api/v1")


class ProgrammePath(Query):
    """One programme."""

    code: str


class RulePath(Query):
    """One rule version."""

    rule_version_id: str


class ApplicationPath(Query):
    """One application."""

    application_id: str


class GrantsQuery(Query):
    """Whose grants; others' only for operator and auditor."""

    organisation_id: str | None = None


class RuleBodyIn(Body):
    """A rule to draft; `body` has the fields of `hub.vouchers.rules.RuleBody`."""

    body: dict[str, Any]
    effective_from_at: AwareDatetime = Field(strict=False)
    effective_to_at: AwareDatetime | None = Field(None, strict=False)
    source: str = Field(min_length=1)


class PaperBody(Body):
    """One paper of evidence; `digest` is its sha256."""

    kind: str = Field(pattern="^(contract|invoice|payment|delivery|filing|other)$")
    name: str = Field(min_length=1, max_length=200)
    digest: str = Field(pattern="^[0-9a-f]{64}$")


class ApplicationBody(Body):
    """An application."""

    programme: str
    asked_fen: int
    contract_no: str = Field(min_length=1, max_length=100)
    evidence: list[PaperBody] = Field(max_length=20)


class ReviewBody(Body):
    """A decision; `granted_fen` only with `approve`, to award less than asked."""

    decision: str
    reason: str = Field("", max_length=1000)
    granted_fen: int | None = None


def present_programme(session: Session, programme: Programme, now: datetime) -> dict[str, Any]:
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


def present_rule(rule: RuleVersion) -> dict[str, Any]:
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
    }


def present_application(session: Session, application: Application) -> dict[str, Any]:
    """Return an application with its decisions as JSON values."""
    programme = session.get_one(Programme, application.programme_id)
    return {
        "id": application.id,
        "organisation_id": application.organisation_id,
        "programme": programme.code,
        "title": {"zh": programme.title_zh, "en": programme.title_en},
        "rule_version_id": application.rule_version_id,
        "asked_fen": application.asked_fen,
        "contract_no": application.contract_no,
        "evidence": application.evidence,
        "state": application.state,
        "applicant_id": application.applicant_id,
        "created_at": application.created_at.isoformat(),
        "reviews": [
            {
                "actor_id": review.actor_id,
                "decision": review.decision,
                "reason": review.reason,
                "created_at": review.created_at.isoformat(),
            }
            for review in service.list_reviews(session, application.id)
        ],
    }


def present_grant(balance: GrantBalance) -> dict[str, Any]:
    """Return a grant with balances as JSON values."""
    return {
        "id": balance.grant.id,
        "organisation_id": balance.grant.organisation_id,
        "application_id": balance.grant.application_id,
        "account_id": balance.grant.account_id,
        "programme": balance.programme.code,
        "title": {"zh": balance.programme.title_zh, "en": balance.programme.title_en},
        "rule_version_id": balance.rule_version.id,
        "rule_number": balance.rule_version.number,
        "period": balance.grant.period_key,
        "awarded_fen": balance.awarded_fen,
        "held_fen": balance.held_fen,
        "settled_fen": balance.settled_fen,
        "left_fen": balance.left_fen,
    }


@blueprint.get("/programmes")
def list_programmes() -> dict[str, Any]:
    """Return every programme with its rule of the day; public."""
    with context().sessions.read() as session:
        now = context().clock()
        return {"items": [present_programme(session, row, now) for row in service.list_programmes(session)]}


@blueprint.get("/programmes/<code>/rules")
def list_rules(path: ProgrammePath) -> dict[str, Any]:
    """Return every rule version of a programme; public."""
    with context().sessions.read() as session:
        programme = service.find_programme(session, path.code)
        return {"items": [present_rule(rule) for rule in service.list_rules(session, programme.id)]}


@blueprint.post("/programmes/<code>/rules")
def draft_rule(path: ProgrammePath, body: RuleBodyIn) -> tuple[dict[str, Any], int]:
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
            now=context().clock(),
        )
        return present_rule(rule), 201


@blueprint.post("/rules/<rule_version_id>/approve")
def approve_rule(path: RulePath) -> dict[str, Any]:
    """Approve a rule version that somebody else drafted."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_rule(service.approve_rule(session, actor, path.rule_version_id, now=context().clock()))


@blueprint.post("/voucher-applications")
def apply_for_voucher(body: ApplicationBody) -> tuple[dict[str, Any], int]:
    """Apply for a voucher."""
    actor = current_actor()
    with context().sessions.write() as session:
        application = service.apply_for_voucher(
            session,
            actor,
            programme=body.programme,
            asked_fen=body.asked_fen,
            contract_no=body.contract_no,
            evidence=[paper.model_dump() for paper in body.evidence],
            now=context().clock(),
        )
        return present_application(session, application), 201


@blueprint.get("/voucher-applications")
def list_applications() -> dict[str, Any]:
    """Return applications: the own ones, all for operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_applications(session, actor)
        return {"items": [present_application(session, application) for application in found]}


@blueprint.get("/voucher-applications/<application_id>")
def read_application(path: ApplicationPath) -> dict[str, Any]:
    """Return one application."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_application(session, service.find_application(session, actor, path.application_id))


@blueprint.post("/voucher-applications/<application_id>/reviews")
def review_application(path: ApplicationPath, body: ReviewBody) -> tuple[dict[str, Any], int]:
    """Check, approve or refuse an application."""
    actor = current_actor()
    with context().sessions.write() as session:
        service.review_application(
            session,
            actor,
            path.application_id,
            decision=body.decision,
            reason=body.reason,
            granted_fen=body.granted_fen,
            now=context().clock(),
        )
        return present_application(session, service.find_application(session, actor, path.application_id)), 201


@blueprint.get("/grants")
def list_grants(query: GrantsQuery) -> dict[str, Any]:
    """Return grants with balances; operator and auditor see all unless they name a firm."""
    actor = current_actor()
    wide = actor.role in (Role.OPERATOR, Role.AUDITOR)
    if query.organisation_id not in (None, actor.organisation_id) and not wide:
        raise NotFoundError.of("organisation", query.organisation_id or "")
    owner = query.organisation_id if wide else actor.organisation_id
    with context().sessions.read() as session:
        return {"items": [present_grant(balance) for balance in service.list_grants(session, owner)]}
