"""Every page in both languages, for everybody who may open it: whole, translated, light, safe."""

import gzip
import re
from importlib import import_module
from pathlib import Path

import pytest
from jinja2 import nodes

from hub.actor import Role
from marketplace_ui.app import POLICY
from marketplace_ui.assets_manifest import read_manifest
from marketplace_ui.layout import MENU
from marketplace_ui.words import WORDS
from tests.ui.pages import CHINESE, read_page
from tests.ui.world import World

OPEN = (
    "/",
    "/models",
    "/models?kind=adapter&sort=price",
    "/models?q=nothing-of-that-name",
    "/models/guanmo/demo-zh",
    "/models/guanmo/demo-trial",
    "/models/demo-integrator/orders@1",
    "/offers",
    "/offers?region=nowhere",
    "/sign-in",
    "/sign-up",
    "/no-such-page",
)
OF_PEOPLE = (
    "/",
    "/account",
    "/endpoints",
    "/endpoints/keys/new",
    "/rollouts",
    "/models/guanmo/demo-zh",
    "/models/guanmo/demo-trial",
)
OF_SELLERS = ("/uploads", "/uploads/new")
PAGES = (
    *((path, None) for path in OPEN),
    *((path, "factory") for path in OF_PEOPLE),
    *((path, "integrator") for path in (*OF_PEOPLE, *OF_SELLERS)),
)
SAME_IN_BOTH = re.compile(r"Python · openai SDK|[0-9.]+ [kM]?B(ytes)?")
TEMPLATES = Path(__file__).parents[2] / "marketplace_ui" / "templates"
ENUMERATIONS = {
    "hub.actor:Role": "role",
    "hub.organisations.rules:OrganisationKind": "role",
    "hub.organisations.tables:OrganisationState": "organisation",
    "hub.filings.rules:StandingState": "standing",
    "hub.filings.tables:Ruling": "ruling",
    "hub.filings.tables:Track": "track",
    "hub.catalogue.tables:ModelKind": "kind",
    "hub.catalogue.tables:VersionState": "version",
    "hub.catalogue.tables:UploadState": "upload",
    "hub.catalogue.tables:Locality": "locality",
    "serving.contract:Visibility": "visibility",
    "hub.deployments.tables:DeploymentState": "deployment",
    "hub.deployments.tables:RolloutState": "rollout",
    "hub.prices.tables:Meter": "meter",
    "hub.prices.rules:Party": "party",
    "hub.tuning.states:RunState": "run",
    "hub.vouchers.tables:ApplicationState": "application",
    "hub.orders.tables:QuoteState": "quote",
    "hub.orders.tables:OrderState": "order",
    "hub.datasets.tables:DatasetState": "dataset",
}


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_page_is_whole_in_both_languages(market: World, path: str, who: str | None) -> None:
    expected = 404 if path == "/no-such-page" else 200
    for language, html in (("en", "en"), ("zh", "zh-CN")):
        answer = market.visit(who, language).get(path)
        assert answer.status_code == expected
        page = read_page(answer.text)
        assert f'<html lang="{html}">' in answer.text
        assert answer.headers["Content-Security-Policy"] == POLICY
        assert page.inline == []
        assert all(address.startswith("/static/") for address in page.loads)
        assert len(page.ids) == len(set(page.ids))
        assert len(answer.data) <= 60_000


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_english_page_says_nothing_in_chinese(market: World, path: str, who: str | None) -> None:
    texts = read_page(market.visit(who, "en").get(path).text).texts
    assert len(texts) > 15
    assert [text for text in texts if CHINESE.search(text)] == []


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_chinese_page_translates_every_english_text(market: World, path: str, who: str | None) -> None:
    """No text longer than a name may be the same in both languages."""
    english = set(read_page(market.visit(who, "en").get(path).text).texts)
    chinese = read_page(market.visit(who, "zh").get(path).text).texts
    kept = {
        text for text in chinese if text in english and " " in text and any(part.isalpha() for part in text.split())
    }
    assert {text for text in kept if not SAME_IN_BOTH.fullmatch(text)} == set()


@pytest.mark.parametrize("who", [None, "factory", "integrator"])
def test_every_link_leads_somewhere(market: World, who: str | None) -> None:
    client = market.visit(who)
    paths = [path for path, person in PAGES if person in (None, who) and path != "/no-such-page"]
    links = {link.partition("#")[0] for path in paths for link in read_page(client.get(path).text).links}
    own = sorted(link for link in links if link.startswith("/") and not link.startswith("/language/"))
    assert len(own) > 15
    assert {link: status for link in own if (status := client.get(link).status_code) not in (200, 302)} == {}


def test_every_pair_of_texts_has_both_languages(market: World) -> None:
    pairs = 0
    for path in sorted(TEMPLATES.rglob("*.html")):
        tree = market.app.jinja_env.parse(path.read_text())
        for call in tree.find_all(nodes.Call):
            if not isinstance(call.node, nodes.Name) or call.node.name != "t":
                continue
            pairs += 1
            assert len(call.args) == 2, f"{path.name}:{call.lineno}"
            english = call.args[1]
            text = str(english.value) if isinstance(english, nodes.Const) else ""
            assert not CHINESE.search(text), f"{path}:{call.lineno}"
    assert pairs > 300


@pytest.mark.parametrize(("place", "family"), ENUMERATIONS.items())
def test_every_state_has_a_word(place: str, family: str) -> None:
    module, name = place.split(":")
    members = {str(member) for member in getattr(import_module(module), name)}
    assert len(members) >= 2
    assert members <= set(WORDS[family])


def test_scripts_and_styles_are_light() -> None:
    manifest = read_manifest()
    sizes = {name: len(gzip.compress((manifest.folder / built).read_bytes())) for name, built in manifest.names.items()}
    assert set(sizes) == {"app.js", "app.css"}
    assert sizes["app.js"] <= 70 * 1024
    assert sizes["app.css"] <= 90 * 1024


def test_styles_load_nothing_from_elsewhere() -> None:
    manifest = read_manifest()
    styles = (manifest.folder / manifest.names["app.css"]).read_text()
    assert "url(http" not in styles
    assert "@import" not in styles


def test_built_files_are_kept_by_browsers_and_found(market: World) -> None:
    page = read_page(market.visit().get("/").text)
    assert len(page.loads) == 2
    for address in page.loads:
        answer = market.visit().get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        answer.close()


@pytest.mark.parametrize("role", [None, *Role])
def test_menu_offers_only_what_the_role_may_open(market: World, role: Role | None) -> None:
    who = {None: None, Role.OPERATOR: "operator", Role.PROVIDER: "provider"}.get(role, str(role))
    answer = market.visit(who).get("/models")
    shown = {entry.path for entry in MENU if f'class="tab" href="{entry.path}"' in answer.text} | {"/models"}
    assert shown == {entry.path for entry in MENU if not entry.roles or role in entry.roles}
