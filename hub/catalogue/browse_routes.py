"""HTTP for choosing: search, a model's page, versions, taxonomy. It leaves changing anything to the other routes."""

from typing import Any

from hub.catalogue import service
from hub.catalogue.blueprint import blueprint
from hub.catalogue.bodies import ModelPath, SearchQuery, StateQuery, Title, TitlePath, VersionPath
from hub.catalogue.views import show_page, show_review, show_search, show_taxonomy, show_version
from hub.errors import NotFoundError
from hub.web import context, current_actor, find_actor, request_language


@blueprint.get("/models", summary="Search models: text, facets, cursor (public)")
def search_models(query: SearchQuery) -> dict[str, Any]:
    actor = find_actor()
    with context().sessions.read() as session:
        page = service.search_models(
            session,
            actor,
            text=query.q,
            filters=query.filters(),
            limit=query.limit,
            cursor=query.cursor,
            now=context().clock(),
        )
        return show_search(page, request_language())


@blueprint.get("/models/<organisation>/<name>", summary="A model's page; the name may carry @N (public)")
def read_model(path: ModelPath) -> dict[str, Any]:
    actor = find_actor()
    with context().sessions.read() as session:
        page = service.read_page(session, actor, _check_name(path), context().clock())
        return show_page(page, request_language())


@blueprint.get("/models/<organisation>/<name>/versions", summary="Versions of a model (public)")
def list_versions(path: ModelPath) -> dict[str, Any]:
    actor = find_actor()
    name = _check_name(path)
    with context().sessions.read() as session:
        model = service.find_model(session, actor, name)
        rows = service.list_versions(session, actor, name)
        return {"versions": [show_version(row, model.name) for row in rows]}


@blueprint.get("/versions/<version_id>", summary="One version with its reviews (public if listed)")
def read_version(path: VersionPath) -> dict[str, Any]:
    actor = find_actor()
    with context().sessions.read() as session:
        row = service.find_version(session, actor, path.version_id)
        reviews = service.list_reviews(session, actor, row)
        return {
            **show_version(row, service.model_of(session, row).name),
            "reviews": [show_review(review) for review in reviews],
        }


@blueprint.get("/versions", summary="Versions in one state: own ones, all for operators and auditors")
def list_in_state(query: StateQuery) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.read() as session:
        rows = service.list_in_state(session, actor, query.state)
        return {"versions": [show_version(row, service.model_of(session, row).name) for row in rows]}


@blueprint.get("/taxonomy", summary="Industries, scenarios, stages, kinds, engines, tasks (public)")
def read_taxonomy() -> dict[str, Any]:
    with context().sessions.read() as session:
        return show_taxonomy(service.read_taxonomy(session))


@blueprint.put("/taxonomy/<axis>/<code>", summary="Give an entry its official title (operator)")
def set_title(path: TitlePath, body: Title) -> dict[str, Any]:
    actor = current_actor()
    with context().sessions.write() as session:
        service.set_title(
            session,
            actor,
            axis=path.axis,
            code=path.code,
            title_zh=body.title_zh,
            title_en=body.title_en,
            now=context().clock(),
        )
        return show_taxonomy(service.read_taxonomy(session))


def _check_name(path: ModelPath) -> str:
    """Return `org/name`, so that a name in the address can never reach a version by its id."""
    name = f"{path.organisation}/{path.name}"
    if service.parse_public_name(name) is None:
        raise NotFoundError.of("model", name[:120])
    return name
