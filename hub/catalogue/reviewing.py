"""Reviews versions: submit, approve or send back, with a reason and a ruling on the derivative's own filing.

It leaves prices and access to `listing`. Whoever made a version never approves it.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.states import record_step, require_state
from hub.catalogue.tables import ModelVersion, Review, VersionDecision, VersionState
from hub.catalogue.versions import find_owned_version, model_of, root_base
from hub.errors import ConflictError, FourEyesError
from hub.filings.service import decide_derivative, explain_standing, find_decision, standing_of
from hub.filings.tables import Ruling
from hub.ids import new_id
from hub.organisations.service import require_second_person, require_verified
from serving.contract import Visibility


class NotListableError(ConflictError):
    """The version may not be listed publicly as it stands."""

    code = "not_listable"


def submit_version(session: Session, actor: Actor, version_id: str, *, now: datetime) -> ModelVersion:
    """Ask the operator to review a private version for listing.

    Raises:
        ConflictError: it is not private. NotVerifiedError: the organisation is not verified.
    """
    version = find_owned_version(session, actor, version_id)
    require_verified(session, version.organisation_id)
    require_state(version, (VersionState.PRIVATE,), "submitted")
    version.state = VersionState.IN_REVIEW
    record_step(session, "version.submitted", version, actor, now)
    return version


def review_version(
    session: Session,
    actor: Actor,
    version_id: str,
    *,
    decision: VersionDecision,
    reason: str,
    now: datetime,
    ruling: Ruling | None = None,
    ruling_number: str | None = None,
) -> Review:
    """Approve a version in review (it becomes listed) or send it back to private (operator).

    Approval of a derivative needs a recorded ruling on its own filing: `ruling` here, or one decided before.

    Raises:
        FourEyesError: the reviewer made the version or belongs to its organisation.
        NotListableError: the base has no valid filing, or no ruling is recorded. ConflictError: not in review.
    """
    actor.require(Role.OPERATOR)
    version = find_owned_version(session, actor, version_id)
    require_state(version, (VersionState.IN_REVIEW,), "reviewed")
    en = "You or your organisation made this version, so somebody else must review it."
    zh = "该版本由您或您的机构提交，须由他人审核。"
    if version.organisation_id == actor.organisation_id:
        raise FourEyesError(en, zh)
    require_second_person(session, actor, [version.created_by], en=en, zh=zh)
    if ruling is not None:
        decide_derivative(
            session,
            actor,
            organisation_id=version.organisation_id,
            version_id=version.id,
            ruling=ruling,
            reason=reason,
            number=ruling_number,
            now=now,
        )
        session.flush()
    if decision is VersionDecision.APPROVE:
        _require_listable(session, version, now)
        _show_listed(session, version)
        version.state, version.listed_at = VersionState.LISTED, now
    else:
        version.state = VersionState.PRIVATE
    review = Review(
        id=new_id("rev"),
        organisation_id=version.organisation_id,
        version_id=version.id,
        decision=decision,
        reason=reason,
        reviewed_by=actor.user_id,
        reviewed_at=now,
    )
    session.add(review)
    record_step(session, "version.reviewed", version, actor, now, decision=decision, reason=reason)
    return review


def list_reviews(session: Session, actor: Actor | None, version: ModelVersion) -> list[Review]:
    """Return the reviews of a version, newest first; nothing for whoever is neither owner, operator nor auditor."""
    if actor is None or not actor.may_read(version.organisation_id):
        return []
    query = select(Review).where(Review.version_id == version.id)
    return list(session.scalars(query.order_by(Review.id.desc())))


def _require_listable(session: Session, version: ModelVersion, now: datetime) -> None:
    standing = standing_of(session, root_base(session, version).weights_digest, now)
    if not standing.valid:
        en, zh = explain_standing(standing)
        raise NotListableError(f"No public listing: {en}", f"不能公开上架：{zh}", standing=str(standing.state))
    if version.base_version_id is not None and find_decision(session, version.id) is None:
        raise NotListableError(
            "Decide first whether this derivative needs its own filing: send 'ruling' (filed, registered or "
            "not_applicable) with this review.",
            "请先决定该衍生模型是否需单独备案：在审核时填写 ruling（filed、registered 或 not_applicable）。",
            field="ruling",
        )


def _show_listed(session: Session, version: ModelVersion) -> None:
    model = model_of(session, version)
    if model.visibility is Visibility.PRIVATE:
        model.visibility = Visibility.PUBLIC
