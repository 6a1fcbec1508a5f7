"""HTTP of grants: balances, papers of their months, revocation.

It leaves spending to orders and claims to `hub.claims`.
"""

from pydantic import Field

from hub.answers import Items
from hub.errors import NotFoundError
from hub.vouchers import papers, service
from hub.vouchers.answers import GrantView, PaperView
from hub.vouchers.application_routes import ReasonBody
from hub.vouchers.blueprint import blueprint
from hub.vouchers.service import GrantBalance
from hub.vouchers.tables import PaperKind, VoucherPaper
from hub.web import Body, Query, context, current_actor


class GrantPath(Query):
    """One grant."""

    grant_id: str


class PaperPath(Query):
    """One paper."""

    paper_id: str


class GrantsQuery(Query):
    """Whose grants; others' only for operator and auditor."""

    organisation_id: str | None = None


class MonthPaperBody(Body):
    """A paper for a month of a grant; `digest` is its artefact's. An invoice needs number, issuer and amount."""

    month: str
    kind: PaperKind = Field(strict=False)
    name: str = Field(min_length=1, max_length=200)
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    number: str = Field("", max_length=60)
    issuer_uscc: str = Field("", max_length=18)
    amount_fen: int | None = None


def present_grant(balance: GrantBalance) -> GrantView:
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
        "returned_fen": balance.returned_fen,
        "state": balance.grant.state,
        "lapse_at": balance.grant.lapse_at.isoformat() if balance.grant.lapse_at else None,
        "ended_at": balance.grant.ended_at.isoformat() if balance.grant.ended_at else None,
        "ended_reason": balance.grant.ended_reason,
    }


def present_paper(paper: VoucherPaper) -> PaperView:
    """Return a paper as JSON values."""
    return {
        "id": paper.id,
        "grant_id": paper.grant_id,
        "month": paper.month,
        "kind": paper.kind,
        "name": paper.name,
        "digest": paper.digest,
        "number": paper.number,
        "issuer_uscc": paper.issuer_uscc,
        "amount_fen": paper.amount_fen,
        "withdrawn": paper.withdrawn_at is not None,
    }


@blueprint.get("/grants")
def list_grants(query: GrantsQuery) -> Items[GrantView]:
    """Return grants with balances; operator and auditor see all unless they name a firm."""
    actor = current_actor()
    wide = actor.reads_all
    if query.organisation_id not in (None, actor.organisation_id) and not wide:
        raise NotFoundError.of("organisation", query.organisation_id or "")
    owner = query.organisation_id if wide else actor.organisation_id
    with context().sessions.read() as session:
        return {"items": [present_grant(balance) for balance in service.list_grants(session, owner)]}


@blueprint.post("/grants/<grant_id>/revocation")
def revoke_grant(path: GrantPath, body: ReasonBody) -> GrantView:
    """Revoke a grant; what is left goes back to the fund."""
    actor = current_actor()
    with context().sessions.write() as session:
        grant = service.revoke_grant(session, actor, path.grant_id, reason=body.reason, now=context().clock())
        [balance] = [row for row in service.list_grants(session, grant.organisation_id) if row.grant.id == grant.id]
        return present_grant(balance)


@blueprint.get("/grants/<grant_id>/papers")
def list_papers(path: GrantPath) -> Items[PaperView]:
    """Return the papers of a grant: the own one's, any for operator and auditor."""
    actor = current_actor()
    wide = actor.reads_all
    with context().sessions.read() as session:
        own = {row.grant.id for row in service.list_grants(session, None if wide else actor.organisation_id)}
        if path.grant_id not in own:
            raise NotFoundError.of("grant", path.grant_id)
        return {"items": [present_paper(paper) for paper in papers.list_papers(session, [path.grant_id])]}


@blueprint.post("/grants/<grant_id>/papers")
def add_paper(path: GrantPath, body: MonthPaperBody) -> tuple[PaperView, int]:
    """Add a paper to a month of a grant."""
    actor = current_actor()
    with context().sessions.write() as session:
        paper = papers.add_paper(session, actor, path.grant_id, **body.model_dump(), now=context().clock())
        return present_paper(paper), 201


@blueprint.post("/papers/<paper_id>/withdrawal")
def withdraw_paper(path: PaperPath) -> PaperView:
    """Take a wrong paper out of later claims."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_paper(papers.withdraw_paper(session, actor, path.paper_id, now=context().clock()))
