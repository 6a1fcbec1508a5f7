"""Searches the catalogue: text, facets with counts, pages by cursor. It leaves one model's page to `page`."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, Subquery, case, func, literal, not_, select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.rules import fold_text
from hub.catalogue.tables import TUNABLE_KINDS, Model, ModelKind, ModelVersion, Task, VersionState
from hub.catalogue.versions import visible_to
from hub.columns import Flag
from hub.errors import GuanmoError
from hub.filings.service import Standing, StandingState, standings_of
from hub.organisations.tables import Organisation

MAX_LIMIT = 100
_COUNTED = {
    "industry": Model.industry,
    "scenario": Model.scenario,
    "stage": Model.stage,
    "kind": Model.kind,
    "task": Model.task,
}
_ORDER = (
    case(
        (ModelVersion.state == VersionState.LISTED, 2),
        (ModelVersion.state.in_((VersionState.PRIVATE, VersionState.IN_REVIEW)), 1),
        else_=0,
    )
    * 1_000_000_000
    + ModelVersion.number
)


class BadCursorError(GuanmoError):
    """The cursor was edited or belongs to another search."""

    code = "bad_cursor"


@dataclass(frozen=True, kw_only=True)
class SearchFilters:
    """What to keep; None keeps all. `base` is a public name, `mine` the own organisation's models."""

    industry: str | None = None
    scenario: str | None = None
    stage: str | None = None
    kind: ModelKind | None = None
    task: Task | None = None
    base: str | None = None
    filing: StandingState | None = None
    priced: bool | None = None
    can_fine_tune: bool | None = None
    has_endpoint: bool | None = None
    two_high: bool | None = None
    mine: bool | None = None


@dataclass(frozen=True)
class Found:
    """One model as search shows it: its newest version that the caller sees, and how its base stands."""

    model: Model
    version: ModelVersion
    owner: str
    standing: Standing


@dataclass(frozen=True)
class SearchPage:
    """One page, newest models first. `facets` counts by axis and code what the text matches, whatever the filters."""

    items: list[Found]
    next_cursor: str | None
    facets: dict[str, dict[str, int]]
    total: int


def search_models(
    session: Session,
    actor: Actor | None,
    *,
    text: str,
    filters: SearchFilters,
    limit: int,
    cursor: str | None,
    now: datetime,
) -> SearchPage:
    """Return a page of the models that somebody may see.

    Raises:
        BadCursorError: the cursor is not one that this search gave.
    """
    limit = min(max(limit, 1), MAX_LIMIT)
    best = _best_versions(actor)
    joined = select(Model.id).join(best, best.c.model_id == Model.id)
    found = _match_text(joined.join(ModelVersion, _is_best(best)), text)
    kept = _apply_filters(session, found, filters, actor, now=now)
    after = _read_cursor(cursor, text, filters)
    page = kept if after is None else kept.where(Model.id < after)
    ids = list(session.scalars(page.order_by(Model.id.desc()).limit(limit + 1)))
    more = len(ids) > limit
    return SearchPage(
        items=_load(session, best, ids[:limit], now),
        next_cursor=_write_cursor(ids[limit - 1], text, filters) if more else None,
        facets=_count_facets(session, found),
        total=session.scalar(select(func.count()).select_from(kept.subquery())) or 0,
    )


def _best_versions(actor: Actor | None) -> Subquery:
    """Per model the order number of the version to show: the newest listed one, else own ones in use, else any."""
    return (
        select(ModelVersion.model_id, func.max(_ORDER).label("place"))
        .join(Model, Model.id == ModelVersion.model_id)
        .where(visible_to(actor))
        .group_by(ModelVersion.model_id)
        .subquery("best")
    )


def _is_best(best: Subquery) -> ColumnElement[bool]:
    return (ModelVersion.model_id == best.c.model_id) & (best.c.place == _ORDER)


def _match_text(query: Select[str], text: str) -> Select[str]:
    for word in fold_text(text).split():
        query = query.where(Model.search_text.contains(word, autoescape=True))
    return query


def _apply_filters(
    session: Session, query: Select[str], filters: SearchFilters, actor: Actor | None, *, now: datetime
) -> Select[str]:
    for axis, column in _COUNTED.items():
        if (code := getattr(filters, axis)) is not None:
            query = query.where(column == code)
    own = actor.organisation_id if actor else ""
    switches = (
        (filters.has_endpoint, Model.has_endpoint == literal(True, Flag)),
        (filters.two_high, Model.two_high == literal(True, Flag)),
        (filters.priced, ModelVersion.price_version_id.is_not(None)),
        (filters.can_fine_tune, ModelVersion.kind.in_(TUNABLE_KINDS)),
        (filters.mine, Model.organisation_id == own),
    )
    for wanted, condition in switches:
        if wanted is not None:
            query = query.where(condition if wanted else not_(condition))
    if filters.base is not None:
        named = select(Model.id).where(Model.name == filters.base).scalar_subquery()
        query = query.where(Model.base_model_id == named)
    if filters.filing is not None:
        query = query.where(ModelVersion.weights_digest.in_(_digests_standing(session, filters.filing, now)))
    return query


def _digests_standing(session: Session, state: StandingState, now: datetime) -> list[str]:
    digests = session.scalars(select(ModelVersion.weights_digest).distinct())
    return [digest for digest, standing in standings_of(session, digests, now).items() if standing.state is state]


def _count_facets(session: Session, found: Select[str]) -> dict[str, dict[str, int]]:
    ids = found.subquery()
    facets: dict[str, dict[str, int]] = {}
    for axis, column in _COUNTED.items():
        rows = session.execute(select(column, func.count()).where(Model.id.in_(select(ids.c.id))).group_by(column))
        facets[axis] = {str(code): count for code, count in rows if code is not None}
    return facets


def _load(session: Session, best: Subquery, ids: Sequence[str], now: datetime) -> list[Found]:
    query = (
        select(Model, ModelVersion, Organisation.name)
        .join(best, best.c.model_id == Model.id)
        .join(ModelVersion, _is_best(best))
        .join(Organisation, Organisation.id == Model.organisation_id)
        .where(Model.id.in_(ids))
        .order_by(Model.id.desc())
    )
    rows = session.execute(query).all()
    standings = standings_of(session, {row[1].weights_digest for row in rows}, now)
    return [Found(row[0], row[1], row[2], standings[row[1].weights_digest]) for row in rows]


def _write_cursor(last_id: str, text: str, filters: SearchFilters) -> str:
    body = f"{last_id}.{_fingerprint(last_id, text, filters)}"
    return base64.urlsafe_b64encode(body.encode()).decode()


def _read_cursor(cursor: str | None, text: str, filters: SearchFilters) -> str | None:
    """Return the id after which the page begins. The fingerprint only catches mistakes: a cursor grants nothing."""
    if cursor is None:
        return None
    try:
        last_id, _, fingerprint = base64.urlsafe_b64decode(cursor.encode("ascii")).decode("ascii").partition(".")
    except (UnicodeError, binascii.Error):
        last_id, fingerprint = "", ""
    if fingerprint != _fingerprint(last_id, text, filters):
        raise BadCursorError(
            "This cursor is not from this search. Leave it out to begin at the first page.",
            "翻页标记不属于本次搜索，请从第一页开始。",
            field="cursor",
        )
    return last_id


def _fingerprint(last_id: str, text: str, filters: SearchFilters) -> str:
    query = json.dumps([last_id, text, asdict(filters)], sort_keys=True)
    return hashlib.sha256(query.encode()).hexdigest()[:16]
