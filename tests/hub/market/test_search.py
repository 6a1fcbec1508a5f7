"""Search: text, facets with counts, pages that lose and repeat nothing, cursors that cannot be edited."""

import pytest

from hub.catalogue.rules import ModelTexts, fold_text
from hub.catalogue.service import mark_endpoint
from hub.catalogue.tables import Model
from tests.hub.market.world import World

PRICES = {"prompt": {"amount_fen": 1, "per_units": 1_000}, "completion": {"amount_fen": 1, "per_units": 1_000}}


CASES: list[tuple[str, list[str]]] = [
    ("kind=base", ["unfiled", "filed"]),
    ("kind=adapter", ["faults", "orders"]),
    ("scenario=work-orders", ["orders"]),
    ("stage=operation", ["faults"]),
    ("industry=chain-a1", ["unfiled", "filed"]),
    ("base=operator-co/filed", ["faults", "orders"]),
    ("base=operator-co/none", []),
    ("filing=valid", ["faults", "orders", "filed"]),
    ("filing=never", ["unfiled"]),
    ("filing=withdrawn", []),
    ("priced=true", ["orders"]),
    ("priced=false", ["faults", "unfiled", "filed"]),
    ("can_fine_tune=true", ["unfiled", "filed"]),
    ("has_endpoint=true", ["orders"]),
    ("two_high=true", []),
    ("task=text_generation&kind=adapter&priced=true", ["orders"]),
    ("q=工单", ["orders"]),
    ("q=work%20助手", ["orders"]),
    ("q=ORDERS", ["orders"]),
    ("q=100%25", ["orders"]),
    ("q=%25", ["orders"]),
    ("q=_", ["orders"]),
    ("q=%5C", []),
    ("q=%27%20OR%201%3D1--", []),
    ("q=integrator-co", ["faults", "orders"]),
]


@pytest.fixture
def market(world: World) -> World:
    """One filed base, one unfiled, three adapters: listed and priced, listed, private."""
    filed, unfiled = world.add_base("filed"), world.add_base("unfiled", seed=8)
    world.add_filing(filed)
    for name in ("orders", "faults", "secret"):
        version = world.add_adapter(filed, name=name)
        if name != "secret":
            world.list_adapter(version)
        if name == "orders":
            world.call("POST", f"/versions/{version.id}/listing", "integrator", json={"prices": PRICES})
            with world.sessions.write() as session:
                mark_endpoint(session, version.id, deployed=True)
    world.add_adapter(unfiled, who="factory", name="own")
    set_texts(
        world,
        "integrator-co/orders",
        title_zh="工单助手",
        summary_en="Writes 100% of work_orders",
        scenario="work-orders",
    )
    set_texts(world, "integrator-co/faults", title_zh="故障描述", scenario="predictive-maintenance", stage="operation")
    return world


def set_texts(world: World, name: str, **texts: str) -> None:
    from hub.catalogue.models import apply_texts

    with world.sessions.write() as session:
        model = session.query(Model).filter(Model.name == name).one()
        apply_texts(model, ModelTexts(**texts))  # type: ignore[arg-type]


def names(world: World, query: str = "", who: str | None = None) -> list[str]:
    answer = world.call("GET", f"/models?{query}", who)
    assert answer.status_code == 200, answer.json
    return [model["name"].partition("/")[2] for model in answer.json["models"]]


def test_everybody_sees_what_is_listed_and_owners_their_own(market: World) -> None:
    assert names(market) == ["faults", "orders", "unfiled", "filed"]
    assert names(market, who="rival") == names(market)
    assert names(market, who="integrator") == ["secret", "faults", "orders", "unfiled", "filed"]
    assert names(market, who="factory") == ["own", "faults", "orders", "unfiled", "filed"]
    assert names(market, who="operator") == ["own", "secret", "faults", "orders", "unfiled", "filed"]
    assert names(market, "mine=true", "integrator") == ["secret", "faults", "orders"]
    assert names(market, "mine=true") == []


def test_text_and_facets(market: World) -> None:
    assert len(CASES) == 25
    for query, expected in CASES:
        assert names(market, query) == expected, query


def test_facets_count_what_the_text_matches(market: World) -> None:
    everything = market.call("GET", "/models").json
    assert everything["total"] == 4
    assert everything["facets"]["kind"] == {"adapter": 2, "base": 2}
    assert everything["facets"]["scenario"] == {"predictive-maintenance": 1, "work-orders": 1}
    narrowed = market.call("GET", "/models?q=工单&kind=base").json
    assert (narrowed["total"], narrowed["facets"]["kind"]) == (0, {"adapter": 1})


def test_pages_lose_and_repeat_nothing(market: World) -> None:
    for limit in (1, 2, 3, 4, 100):
        assert read_pages(market, limit) == ["faults", "orders", "unfiled", "filed"]


def read_pages(market: World, limit: int) -> list[str]:
    seen: list[str] = []
    cursor = ""
    while True:
        answer = market.call("GET", f"/models?limit={limit}{cursor}").json
        seen += [model["name"] for model in answer["models"]]
        assert len(answer["models"]) <= limit
        if answer["next_cursor"] is None:
            return [name.partition("/")[2] for name in seen]
        cursor = f"&cursor={answer['next_cursor']}"


def test_edited_and_foreign_cursors_are_refused(market: World) -> None:
    cursor = market.call("GET", "/models?limit=1").json["next_cursor"]
    for query in (f"cursor=A{cursor[1:]}", f"cursor={cursor}&kind=base", "cursor=%01", "cursor=é", "cursor=a"):
        answer = market.call("GET", f"/models?limit=1&{query}")
        assert (answer.status_code, answer.json["code"]) == (400, "bad_cursor"), query


def test_bad_queries_are_refused(world: World) -> None:
    bad = ("limit=0", "limit=-1", "limit=101", "limit=x", "kind=car", "filing=maybe", "colour=red", "priced=perhaps")
    for query in (*bad, "q=" + "x" * 201):
        assert world.call("GET", f"/models?{query}").status_code == 422, query


def test_the_taxonomy_holds_the_papers_axes_and_the_operators_titles(world: World) -> None:
    axes = world.call("GET", "/taxonomy").json
    sizes = {axis: len(entries) for axis, entries in axes.items()}
    assert (sizes["industry"], sizes["scenario"], sizes["stage"]) == (20, 16, 5)
    title = {"title_zh": "电子信息", "title_en": "Electronics"}
    assert world.call("PUT", "/taxonomy/industry/chain-a1", "factory", json=title).status_code == 403
    assert world.call("PUT", "/taxonomy/industry/chain-z9", "operator", json=title).status_code == 404
    assert world.call("PUT", "/taxonomy/kind/base", "operator", json=title).status_code == 404
    named = world.call("PUT", "/taxonomy/industry/chain-a1", "operator", json=title).json
    assert named["industry"][0] == {"code": "chain-a1", **title}


def test_every_enumeration_is_titled_in_the_taxonomy(world: World) -> None:
    from hub.catalogue.tables import Engine, Locality, ModelKind, Task

    axes = world.call("GET", "/taxonomy").json
    for axis, members in {"kind": ModelKind, "engine": Engine, "task": Task, "locality": Locality}.items():
        assert {entry["code"] for entry in axes[axis]} == set(members), axis


def test_folding_makes_widths_and_cases_equal() -> None:
    assert fold_text("ＡＢＣ１") == fold_text("abc1")
