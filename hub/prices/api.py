"""HTTP of prices: read what things cost, publish and withdraw versions and split terms.

It leaves prices of offers and listings to the rooms that own those; they call the same service.
"""

from typing import Annotated, Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from hub.answers import Items, ShapeOf
from hub.prices import service
from hub.prices.rules import SplitPart
from hub.prices.tables import Meter, PriceState, PriceSubject, PriceVersion, SplitTerms
from hub.web import Body, Query, context, current_actor

blueprint = APIBlueprint("prices", __name__, url_prefix="/api/v1")


class PriceQuery(Query):
    """Filters of the price list."""

    subject_kind: str | None = None
    subject: str | None = None


class PricePath(Query):
    """One price version."""

    price_version_id: str


class SplitPath(Query):
    """One set of split terms."""

    split_terms_id: str


class LineBody(Body):
    """`amount_fen` for each `per_units` of a meter."""

    meter: str
    amount_fen: int
    per_units: int


class PriceBody(Body):
    """A price to publish; `organisation_id` only where an operator publishes for somebody else."""

    subject_kind: str
    subject: str
    lines: list[LineBody] = Field(min_length=1, max_length=5)
    split_terms_id: str | None = None
    organisation_id: str | None = None


class PartBody(Body):
    """One party's share."""

    party: str = Field(pattern="^(integrator|base_owner|provider|pool|platform)$")
    organisation_id: str | None = None
    num: int
    den: int


class SplitBody(Body):
    """Split terms to publish."""

    parts: list[PartBody] = Field(max_length=10)
    organisation_id: str | None = None


class PriceLineView(TypedDict):
    """`amount_fen` for each `per_units` of a meter."""

    meter: Meter
    amount_fen: int
    per_units: int


class PriceView(TypedDict):
    """A price version."""

    id: str
    organisation_id: str
    subject_kind: PriceSubject
    subject: str
    state: PriceState
    split_terms_id: str | None
    valid_from_at: str
    lines: list[PriceLineView]


class SplitView(TypedDict):
    """Split terms; the platform takes the rest."""

    id: str
    organisation_id: str
    parts: list[Annotated[dict[str, Any], ShapeOf(SplitPart)]]


def present_price(version: PriceVersion) -> PriceView:
    """Return a price version as JSON values."""
    return {
        "id": version.id,
        "organisation_id": version.organisation_id,
        "subject_kind": version.subject_kind,
        "subject": version.subject,
        "state": version.state,
        "split_terms_id": version.split_terms_id,
        "valid_from_at": version.valid_from_at.isoformat(),
        "lines": [
            {"meter": line.meter, "amount_fen": line.amount_fen, "per_units": line.per_units} for line in version.lines
        ],
    }


def present_split(terms: SplitTerms) -> SplitView:
    """Return split terms as JSON values."""
    return {"id": terms.id, "organisation_id": terms.organisation_id, "parts": terms.parts}


@blueprint.get("/prices")
def list_prices(query: PriceQuery) -> Items[PriceView]:
    """Return active prices, newest first."""
    current_actor()
    with context().sessions.read() as session:
        found = service.list_prices(session, subject_kind=query.subject_kind, subject=query.subject)
        return {"items": [present_price(version) for version in found]}


@blueprint.get("/prices/<price_version_id>")
def read_price(path: PricePath) -> PriceView:
    """Return one price version, withdrawn ones too, because bills name them."""
    current_actor()
    with context().sessions.read() as session:
        return present_price(service.find_price_version(session, path.price_version_id))


@blueprint.post("/prices")
def publish_price(body: PriceBody) -> tuple[PriceView, int]:
    """Publish a price version."""
    actor = current_actor()
    with context().sessions.write() as session:
        version = service.publish_price(
            session,
            actor,
            organisation_id=body.organisation_id or actor.organisation_id,
            subject_kind=body.subject_kind,
            subject=body.subject,
            lines={line.meter: (line.amount_fen, line.per_units) for line in body.lines},
            split_terms_id=body.split_terms_id,
            now=context().clock(),
        )
        return present_price(version), 201


@blueprint.post("/prices/<price_version_id>/withdraw")
def withdraw_price(path: PricePath) -> PriceView:
    """Withdraw a price version."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_price(service.withdraw_price(session, actor, path.price_version_id, now=context().clock()))


@blueprint.post("/splits")
def publish_split(body: SplitBody) -> tuple[SplitView, int]:
    """Publish split terms."""
    actor = current_actor()
    with context().sessions.write() as session:
        terms = service.publish_split(
            session,
            actor,
            organisation_id=body.organisation_id or actor.organisation_id,
            parts=[part.model_dump() for part in body.parts],
            now=context().clock(),
        )
        return present_split(terms), 201


@blueprint.get("/splits/<split_terms_id>")
def read_split(path: SplitPath) -> SplitView:
    """Return split terms."""
    current_actor()
    with context().sessions.read() as session:
        return present_split(service.find_split(session, path.split_terms_id))
