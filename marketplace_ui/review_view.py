"""One version as its reviewer sees it: model, maker, base with its filing, scores, and the gate's report.

It leaves the decision to `hub.catalogue`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.service import model_of, name_of, root_base
from hub.catalogue.tables import Model, ModelVersion, UploadSession
from hub.filings.service import Standing, find_decision, standing_of
from hub.filings.tables import DerivativeDecision
from hub.organisations.service import find_organisation
from hub.organisations.tables import Organisation
from hub.web import context


@dataclass(frozen=True)
class ReviewView:
    """`checks` are the upload gate's, failed ones first; empty for a version that was trained here."""

    version: ModelVersion
    model: Model
    name: str
    maker: Organisation
    base_name: str
    standing: Standing
    decision: DerivativeDecision | None
    checks: list[Mapping[str, Any]]


def view_review(session: Session, version: ModelVersion) -> ReviewView:
    """Return what a reviewer needs to know of a version."""
    root = root_base(session, version)
    return ReviewView(
        version=version,
        model=model_of(session, version),
        name=name_of(session, version),
        maker=find_organisation(session, version.organisation_id),
        base_name=name_of(session, root),
        standing=standing_of(session, root.weights_digest, context().clock()),
        decision=find_decision(session, version.id),
        checks=_list_checks(session, version),
    )


def _list_checks(session: Session, version: ModelVersion) -> list[Mapping[str, Any]]:
    report = session.scalar(
        select(UploadSession.report).where(UploadSession.version_id == version.id).order_by(UploadSession.id.desc())
    )
    checks: list[Mapping[str, Any]] = (report or {}).get("checks", [])
    return sorted(checks, key=lambda check: bool(check["passed"]))
