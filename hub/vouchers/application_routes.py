"""HTTP of applications and their reviews: apply, complete, withdraw, appeal, decide.

It leaves who may do what to the services; an application is its firm's, the operator's and the auditor's.
"""

from pydantic import Field
from sqlalchemy.orm import Session

from hub.answers import Items
from hub.vouchers import service
from hub.vouchers.answers import ApplicationView
from hub.vouchers.blueprint import blueprint
from hub.vouchers.tables import Application, ApplicationState, Programme
from hub.web import Body, Query, context, current_actor


class ApplicationPath(Query):
    """One application."""

    application_id: str


class ApplicationQuery(Query):
    """Applications in one state; all of them when left out."""

    state: ApplicationState | None = None


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
    tier: str | None = Field(None, max_length=100)
    evidence: list[PaperBody] = Field(max_length=20)


class ApplicationReviewBody(Body):
    """A decision; `granted_fen` only with `approve`, to award less than asked."""

    decision: str
    reason: str = Field("", max_length=1000)
    granted_fen: int | None = None


class ResubmissionBody(Body):
    """What completes a returned application."""

    asked_fen: int
    evidence: list[PaperBody] = Field([], max_length=20)


class ReasonBody(Body):
    """Why."""

    reason: str = Field(min_length=1, max_length=1000)


def present_application(session: Session, application: Application) -> ApplicationView:
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
        "tier": application.tier,
        "evidence": application.evidence,
        "state": application.state,
        "round": application.round,
        "appeal": application.appeal_reason,
        "applicant_id": application.applicant_id,
        "created_at": application.created_at.isoformat(),
        "reviews": [
            {
                "round": review.round,
                "actor_id": review.actor_id,
                "decision": review.decision,
                "reason": review.reason,
                "created_at": review.created_at.isoformat(),
            }
            for review in service.list_reviews(session, application.id)
        ],
    }


@blueprint.post("/voucher-applications")
def apply_for_voucher(body: ApplicationBody) -> tuple[ApplicationView, int]:
    """Apply for a voucher."""
    actor = current_actor()
    with context().sessions.write() as session:
        application = service.apply_for_voucher(
            session,
            actor,
            programme=body.programme,
            asked_fen=body.asked_fen,
            contract_no=body.contract_no,
            tier=body.tier,
            evidence=[paper.model_dump() for paper in body.evidence],
            now=context().clock(),
        )
        return present_application(session, application), 201


@blueprint.get("/voucher-applications")
def list_applications(query: ApplicationQuery) -> Items[ApplicationView]:
    """Return applications: the own ones, all for operator and auditor."""
    actor = current_actor()
    with context().sessions.read() as session:
        found = service.list_applications(session, actor, state=query.state)
        return {"items": [present_application(session, application) for application in found]}


@blueprint.get("/voucher-applications/<application_id>")
def read_application(path: ApplicationPath) -> ApplicationView:
    """Return one application."""
    actor = current_actor()
    with context().sessions.read() as session:
        return present_application(session, service.find_application(session, actor, path.application_id))


@blueprint.post("/voucher-applications/<application_id>/reviews")
def review_application(path: ApplicationPath, body: ApplicationReviewBody) -> tuple[ApplicationView, int]:
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


@blueprint.post("/voucher-applications/<application_id>/resubmission")
def resubmit_application(path: ApplicationPath, body: ResubmissionBody) -> ApplicationView:
    """Complete a returned application and hand it in again."""
    actor = current_actor()
    with context().sessions.write() as session:
        application = service.resubmit_application(
            session,
            actor,
            path.application_id,
            asked_fen=body.asked_fen,
            evidence=[paper.model_dump() for paper in body.evidence],
            now=context().clock(),
        )
        return present_application(session, application)


@blueprint.post("/voucher-applications/<application_id>/withdrawal")
def withdraw_application(path: ApplicationPath) -> ApplicationView:
    """Take an application back."""
    actor = current_actor()
    with context().sessions.write() as session:
        application = service.withdraw_application(session, actor, path.application_id, now=context().clock())
        return present_application(session, application)


@blueprint.post("/voucher-applications/<application_id>/appeal")
def appeal_application(path: ApplicationPath, body: ReasonBody) -> ApplicationView:
    """Appeal a refusal, once."""
    actor = current_actor()
    with context().sessions.write() as session:
        application = service.appeal_application(
            session, actor, path.application_id, reason=body.reason, now=context().clock()
        )
        return present_application(session, application)
