"""HTTP of related parties: a firm's owners, the signs between two organisations, an officer's decision.

It leaves what a relation stops to vouchers and claims.
"""

from pydantic import Field

from hub.actor import READERS
from hub.answers import Items
from hub.errors import NotFoundError
from hub.organisations import ownership
from hub.organisations.tables import Owner, OwnerKind
from hub.vouchers import related
from hub.vouchers.answers import OwnerView, RelationView, RulingView
from hub.vouchers.blueprint import blueprint
from hub.vouchers.related import Relation
from hub.vouchers.tables import RelatedRuling, Verdict
from hub.web import Body, Query, context, current_actor


class FirmPath(Query):
    """One organisation."""

    organisation_id: str


class OwnerPath(Query):
    """One declared owner."""

    owner_id: str


class PairQuery(Query):
    """A buyer and a seller, and how many days back money that goes round is looked for."""

    buyer_id: str
    seller_id: str
    window_days: int = Field(90, ge=0, le=730)


class OwnerBody(Body):
    """A legal person or holder; `code` is a credit code, the last six of an identity card, or empty."""

    kind: OwnerKind = Field(strict=False)
    name: str = Field(min_length=1, max_length=200)
    code: str = Field("", max_length=18)
    share_bp: int | None = None


class RulingBody(Body):
    """An officer's decision on a pair."""

    buyer_id: str
    seller_id: str
    verdict: Verdict = Field(strict=False)
    reason: str = Field(min_length=1, max_length=1000)


@blueprint.get("/organisations/<organisation_id>/owners")
def list_owners(path: FirmPath) -> Items[OwnerView]:
    """Return who stands behind a firm: the own one, any for operator and auditor."""
    actor = current_actor()
    if not actor.may_read(path.organisation_id):
        raise NotFoundError.of("organisation", path.organisation_id)
    with context().sessions.read() as session:
        return {"items": [present_owner(owner) for owner in ownership.list_owners(session, path.organisation_id)]}


@blueprint.post("/organisations/<organisation_id>/owners")
def declare_owner(path: FirmPath, body: OwnerBody) -> tuple[OwnerView, int]:
    """Declare a legal person or holder."""
    actor = current_actor()
    with context().sessions.write() as session:
        owner = ownership.declare_owner(
            session, actor, path.organisation_id, **body.model_dump(), now=context().clock()
        )
        return present_owner(owner), 201


@blueprint.get("/owners")
def list_unconfirmed() -> Items[OwnerView]:
    """Return what firms declared and nobody has confirmed yet, oldest first (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"items": [present_owner(owner) for owner in ownership.list_unconfirmed(session)]}


@blueprint.post("/owners/<owner_id>/confirmation")
def confirm_owner(path: OwnerPath) -> OwnerView:
    """Confirm what a firm declared."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_owner(ownership.confirm_owner(session, actor, path.owner_id, now=context().clock()))


@blueprint.post("/owners/<owner_id>/end")
def end_owner(path: OwnerPath) -> OwnerView:
    """End an entry."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_owner(ownership.end_owner(session, actor, path.owner_id, now=context().clock()))


@blueprint.get("/related-parties")
def read_relation(query: PairQuery) -> RelationView:
    """Return the signs between a buyer and a seller, for operator and auditor."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        found = related.find_relation(
            session, query.buyer_id, query.seller_id, window_days=query.window_days, now=context().clock()
        )
        return present_relation(found)


@blueprint.get("/related-parties/decisions")
def list_rulings() -> Items[RulingView]:
    """Return the decisions on pairs, newest first (operator, auditor)."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"items": [present_ruling(ruling) for ruling in related.list_rulings(session)]}


@blueprint.post("/related-parties")
def rule_on_pair(body: RulingBody) -> tuple[RulingView, int]:
    """Decide on a pair with a written reason."""
    actor = current_actor()
    with context().sessions.write() as session:
        ruling = related.rule_on_pair(
            session,
            actor,
            body.buyer_id,
            body.seller_id,
            verdict=body.verdict,
            reason=body.reason,
            now=context().clock(),
        )
        return present_ruling(ruling), 201


def present_owner(owner: Owner) -> OwnerView:
    """Return an owner as JSON values."""
    return {
        "id": owner.id,
        "organisation_id": owner.organisation_id,
        "kind": owner.kind,
        "name": owner.name,
        "code": owner.code,
        "share_bp": owner.share_bp,
        "confirmed": owner.confirmed_at is not None,
        "ended": owner.ended_at is not None,
    }


def present_relation(relation: Relation) -> RelationView:
    """Return the signs of a pair as JSON values."""
    return {
        "buyer_id": relation.buyer_id,
        "seller_id": relation.seller_id,
        "blocks": relation.blocks,
        "signs": [{"key": sign.key, "zh": sign.zh, "en": sign.en} for sign in relation.signs],
        "ruling": present_ruling(relation.ruling) if relation.ruling else None,
    }


def present_ruling(ruling: RelatedRuling) -> RulingView:
    """Return a decision as JSON values."""
    return {
        "id": ruling.id,
        "organisation_ids": [ruling.organisation_id, ruling.other_id],
        "verdict": ruling.verdict,
        "signs": ruling.signs,
        "reason": ruling.reason,
        "decided_by": ruling.decided_by,
        "created_at": ruling.created_at.isoformat(),
    }
