"""The catalogue: search, facets, order, cards. The address holds the whole state, so a list can be sent on.

It leaves which models somebody may see to `hub.catalogue`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, make_response, render_template, request
from pydantic import ValidationError
from werkzeug.wrappers import Response

from hub.catalogue.bodies import SearchQuery
from hub.catalogue.search import MAX_LIMIT, SearchPage
from hub.catalogue.service import search_models
from hub.filings.service import StandingState
from hub.web import context, find_actor
from marketplace_ui.cards import Card, Titles, make_cards, read_titles, title_of
from marketplace_ui.layout import address_with, is_part, translate
from marketplace_ui.words import say

blueprint = Blueprint("catalogue", __name__)
PAGE_SIZE = 24
AXES = ("kind", "task", "scenario", "stage", "industry")
SWITCHES = ("can_fine_tune", "has_endpoint", "priced", "two_high", "mine")
SORTS = ("new", "name", "price", "size")
"""Orders of the list; all but `new` are made here, among the newest hundred matches."""


@dataclass(frozen=True)
class Option:
    """One value of a facet with how many models of this text have it; None: not counted."""

    value: str
    title: str
    count: int | None


@blueprint.get("/models")
def list_models() -> Response:
    typed = {name: value for name, value in request.args.items() if value}
    asked = typed.pop("sort", "new")
    order = asked if asked in SORTS else "new"
    query, refused = _read_query(typed)
    actor, now = find_actor(), context().clock()
    with context().sessions.read() as session:
        page = search_models(
            session,
            actor,
            text=query.q,
            filters=query.filters(),
            limit=PAGE_SIZE if order == "new" else MAX_LIMIT,
            cursor=query.cursor,
            now=now,
        )
        shown = {
            "cards": _sort(make_cards(session, page.items, now), order),
            "page": page,
            "query": query,
            "order": order,
            "refused": refused,
        }
        if is_part():
            body = render_template("catalogue/results.html", **shown)
        else:
            facets = _list_facets(page, read_titles(session))
            body = render_template("catalogue/catalogue.html", **shown, facets=facets, switches=_list_switches())
    response = make_response(body)
    response.headers["Vary"] = "HX-Request"
    if is_part():
        response.headers["HX-Push-Url"] = address_with(sort=None if order == "new" else order)
    return response


def _read_query(typed: Mapping[str, str]) -> tuple[SearchQuery, list[str]]:
    """Return the query with the parts that are none left out, and the names of those."""
    known = {name: value for name, value in typed.items() if name in SearchQuery.model_fields and name != "limit"}
    try:
        return SearchQuery.model_validate(known), []
    except ValidationError as error:
        wrong = sorted({str(item["loc"][0]) for item in error.errors()})
        sound = {name: value for name, value in known.items() if name not in wrong}
        return SearchQuery.model_validate(sound), wrong


def _sort(cards: list[Card], order: str) -> list[Card]:
    if order == "name":
        return sorted(cards, key=lambda card: (title_of(card.model).casefold(), card.model.name))
    if order == "price":
        return sorted(cards, key=lambda card: (card.price_fen is None, card.price_fen or 0, card.model.name))
    if order == "size":
        return sorted(cards, key=lambda card: (-(card.found.version.parameters or 0), card.model.name))
    return cards


def _list_facets(page: SearchPage, titles: Titles) -> list[tuple[str, str, list[Option]]]:
    names = {
        "kind": translate("类型", "Kind"),
        "task": translate("任务", "Task"),
        "scenario": translate("场景", "Scenario"),
        "stage": translate("环节", "Stage"),
        "industry": translate("产业链", "Industrial chain"),
    }
    counted = [
        (axis, names[axis], [Option(code, titles.of(axis, code), count) for code, count in sorted(counts.items())])
        for axis in AXES
        if (counts := page.facets.get(axis))
    ]
    standings = [Option(str(state), say("standing", state), None) for state in StandingState]
    return [("filing", translate("备案", "Filing"), standings), *counted]


def _list_switches() -> list[tuple[str, str]]:
    titles = {
        "can_fine_tune": translate("可微调", "Can be fine-tuned"),
        "has_endpoint": translate("可直接调用", "Callable now"),
        "priced": translate("卖方已定价", "Priced by its seller"),
        "two_high": translate("两高模型（高精度、高稳定）", "High precision, high stability"),
        "mine": translate("本机构的", "My organisation's"),
    }
    shown = SWITCHES if find_actor() else SWITCHES[:-1]
    return [(name, titles[name]) for name in shown]
