"""HTTP for what happens to a version: review, price, access, ruling, quarantine, end.

It leaves bringing bytes in to `upload_routes`.
"""

from typing import Any

from sqlalchemy.orm import Session

from hub.catalogue import service
from hub.catalogue.blueprint import blueprint
from hub.catalogue.bodies import (
    Access,
    Because,
    DerivativeBody,
    Flags,
    Listing,
    Retirement,
    ReviewBody,
    Stop,
    VersionPath,
)
from hub.catalogue.tables import ModelVersion
from hub.catalogue.views import show_decision, show_model, show_review, show_version
from hub.filings.service import decide_derivative
from hub.web import context, current_actor


@blueprint.post("/versions/<version_id>/submit", summary="Ask for review of an own private version")
def submit_version(path: VersionPath) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        return _show(session, service.submit_version(session, actor, path.version_id, now=context().clock()))


@blueprint.post("/versions/<version_id>/reviews", summary="Approve or reject a version in review (operator)")
def review_version(path: VersionPath, body: ReviewBody) -> tuple[dict[str, Any], int]:
    actor = current_actor()
    with context().sessions.write() as session:
        review = service.review_version(
            session,
            actor,
            path.version_id,
            decision=body.decision,
            reason=body.reason,
            ruling=body.ruling,
            ruling_number=body.ruling_number,
            now=context().clock(),
        )
        version = service.find_version(session, actor, path.version_id)
        return {**show_review(review), "version": _show(session, version)}, 201


@blueprint.post("/versions/<version_id>/derivative", summary="Rule on a derivative's own filing (operator)")
def rule_on_derivative(path: VersionPath, body: DerivativeBody) -> tuple[dict[str, Any] | None, int]:
    actor = current_actor()
    with context().sessions.write() as session:
        version = service.find_owned_version(session, actor, path.version_id)
        decision = decide_derivative(
            session,
            actor,
            organisation_id=version.organisation_id,
            version_id=version.id,
            ruling=body.ruling,
            reason=body.reason,
            number=body.number,
            now=context().clock(),
        )
        return show_decision(decision), 201


@blueprint.post("/versions/<version_id>/listing", summary="Set the price of calls and the revenue split (owner)")
def price_version(path: VersionPath, body: Listing) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        version = service.price_version(
            session,
            actor,
            path.version_id,
            lines={meter: (price.amount_fen, price.per_units) for meter, price in body.prices.items()},
            parts=[part.model_dump() for part in body.split],
            now=context().clock(),
        )
        return _show(session, version)


@blueprint.put("/versions/<version_id>/access", summary="Who may see and call the listed versions (owner)")
def set_access(path: VersionPath, body: Access) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        model = service.set_access(
            session, actor, path.version_id, visibility=body.visibility, acl=body.acl, now=context().clock()
        )
        return show_model(model)


@blueprint.put("/versions/<version_id>/flags", summary="Set the flags that the authority counts (operator)")
def set_flags(path: VersionPath, body: Flags) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        model = service.set_flags(session, actor, path.version_id, **body.model_dump(), now=context().clock())
        return show_model(model)


@blueprint.post("/versions/<version_id>/quarantine", summary="Stop a version at once (operator)")
def quarantine_version(path: VersionPath, body: Stop) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        service.quarantine_version(
            session,
            actor,
            path.version_id,
            reason_en=body.reason_en,
            reason_zh=body.reason_zh,
            now=context().clock(),
        )
        return _show(session, service.find_version(session, actor, path.version_id))


@blueprint.post("/versions/<version_id>/release", summary="End a quarantine (operator)")
def release_version(path: VersionPath, body: Because) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        version = service.release_version(session, actor, path.version_id, reason=body.reason, now=context().clock())
        return _show(session, version)


@blueprint.post("/versions/<version_id>/retire", summary="End a version now or at a time (owner)")
def retire_version(path: VersionPath, body: Retirement) -> dict[str, Any]:
    actor = current_actor()
    now = context().clock()
    with context().sessions.write() as session:
        version = service.retire_version(
            session, actor, path.version_id, retires_at=body.retires_at or now, successor=body.successor, now=now
        )
        return _show(session, version)


def _show(session: Session, version: ModelVersion) -> dict[str, Any]:
    return show_version(version, service.model_of(session, version).name)
