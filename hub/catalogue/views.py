"""What the catalogue's API answers: rows and pages as JSON values. It leaves who may see them to the services."""

from typing import Any

from hub.catalogue.page import Link, ModelPage
from hub.catalogue.search import Found, SearchPage
from hub.catalogue.tables import Model, ModelVersion, Review, UploadSession
from hub.catalogue.taxonomy import Entry
from hub.filings.service import Standing, explain_standing
from hub.filings.tables import DerivativeDecision
from hub.prices.tables import PriceVersion


def show_model(row: Model) -> dict[str, Any]:
    """Return a model's texts and facets, without its card."""
    return {
        "id": row.id,
        "name": row.name,
        "organisation_id": row.organisation_id,
        "kind": row.kind,
        "engine": row.engine,
        "task": row.task,
        "title_zh": row.title_zh,
        "title_en": row.title_en,
        "summary_zh": row.summary_zh,
        "summary_en": row.summary_en,
        "industry": row.industry,
        "scenario": row.scenario,
        "stage": row.stage,
        "licence": row.licence,
        "locality": row.locality,
        "two_high": row.two_high,
        "two_high_evidence": row.two_high_evidence,
        "manufacturing_base": row.manufacturing_base,
        "manufacturing_base_evidence": row.manufacturing_base_evidence,
        "visibility": row.visibility,
        "has_endpoint": row.has_endpoint,
        "created_at": row.created_at.isoformat(),
    }


def show_version(row: ModelVersion, name: str) -> dict[str, Any]:
    """Return a version; `name` is its model's `org/name`."""
    return {
        "id": row.id,
        "name": f"{name}@{row.number}",
        "number": row.number,
        "kind": row.kind,
        "state": row.state,
        "artifact_digest": row.artifact_digest,
        "weights_digest": row.weights_digest,
        "base_version_id": row.base_version_id,
        "tokenizer_digest": row.tokenizer_digest,
        "template_digest": row.template_digest,
        "rank": row.rank,
        "size_bytes": row.size_bytes,
        "parameters": row.parameters,
        "facts": row.facts,
        "metrics": row.metrics,
        "lineage": row.lineage,
        "run_id": row.run_id,
        "price_version_id": row.price_version_id,
        "split_terms_id": row.split_terms_id,
        "mlflow_model": row.mlflow_model,
        "mlflow_version": row.mlflow_version,
        "retires_at": row.retires_at.isoformat() if row.retires_at else None,
        "created_at": row.created_at.isoformat(),
    }


def show_standing(standing: Standing, language: str) -> dict[str, Any]:
    """Return how a base stands, with the filed name and number that a public service must show."""
    en, zh = explain_standing(standing)
    filing = standing.filing
    return {
        "state": standing.state,
        "text": zh if language == "zh" else en,
        "filing_id": filing.id if filing else None,
        "model_name": filing.model_name if filing else None,
        "number": filing.number if filing else None,
        "valid_until": filing.valid_until.isoformat() if filing and filing.valid_until else None,
        "demo": filing.demo if filing else False,
    }


def show_found(found: Found, language: str) -> dict[str, Any]:
    """Return one search result."""
    return {
        **show_model(found.model),
        "owner": found.owner,
        "version": show_version(found.version, found.model.name),
        "filing": show_standing(found.standing, language),
    }


def show_search(page: SearchPage, language: str) -> dict[str, Any]:
    """Return a page of search results with the facets' counts."""
    return {
        "models": [show_found(item, language) for item in page.items],
        "next_cursor": page.next_cursor,
        "facets": page.facets,
        "total": page.total,
    }


def show_price(row: PriceVersion | None) -> dict[str, Any] | None:
    """Return the price of calls, None where there is none."""
    if row is None:
        return None
    lines = {line.meter: {"amount_fen": line.amount_fen, "per_units": line.per_units} for line in row.lines}
    return {"price_version_id": row.id, "lines": lines}


def show_decision(row: DerivativeDecision | None) -> dict[str, Any] | None:
    """Return the ruling on a derivative, None where nobody decided."""
    if row is None:
        return None
    return {
        "ruling": row.ruling,
        "number": row.number,
        "reason": row.reason,
        "decided_by": row.decided_by,
        "decided_at": row.decided_at.isoformat(),
    }


def show_page(page: ModelPage, language: str) -> dict[str, Any]:
    """Return a model's page."""
    servability = page.servability
    answer: dict[str, Any] = {
        **show_model(page.model),
        "card_markdown": page.model.card_markdown,
        "owner": {"id": page.owner.id, "slug": page.owner.slug, "name": page.owner.name, "demo": page.owner.demo},
        "version": show_version(page.version, page.model.name),
        "versions": [show_version(row, page.model.name) for row in page.versions],
        "filing": show_standing(page.standing, language),
        "derivative": show_decision(page.decision),
        "lineage": [_show_link(link) for link in page.lineage],
        "derivatives": [_show_link(link) for link in page.derivatives],
        "price": show_price(page.price),
        "can_fine_tune": page.can_fine_tune,
        "may_call": None,
    }
    if servability is not None:
        text = servability.zh if language == "zh" else servability.en
        answer["may_call"] = {"ok": servability.ok, "code": servability.code, "text": text}
    return answer


def show_review(row: Review) -> dict[str, Any]:
    """Return one review."""
    return {
        "id": row.id,
        "version_id": row.version_id,
        "decision": row.decision,
        "reason": row.reason,
        "reviewed_by": row.reviewed_by,
        "reviewed_at": row.reviewed_at.isoformat(),
    }


def show_upload(row: UploadSession) -> dict[str, Any]:
    """Return one upload with its report."""
    return {
        "id": row.id,
        "model_name": row.model_name,
        "base_version_id": row.base_version_id,
        "state": row.state,
        "report": row.report,
        "version_id": row.version_id,
        "created_at": row.created_at.isoformat(),
    }


def show_taxonomy(axes: dict[str, list[Entry]]) -> dict[str, Any]:
    """Return the taxonomy by axis."""
    return {
        axis: [{"code": item.code, "title_zh": item.title_zh, "title_en": item.title_en} for item in entries]
        for axis, entries in axes.items()
    }


def _show_link(link: Link) -> dict[str, Any]:
    version = link.version
    return {
        "name": link.name,
        "version_id": version.id,
        "kind": version.kind,
        "state": version.state,
        "artifact_digest": version.artifact_digest,
        "weights_digest": version.weights_digest,
    }
