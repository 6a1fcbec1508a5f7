"""Every page of this part in both languages: whole, translated, nothing inline; every state has a word."""

from importlib import import_module

import pytest

from marketplace_ui.journey_words import FAMILIES
from tests.ui.pages import CHINESE, read_page
from tests.ui_b.conftest import Shop

PAGES = (
    ("/datasets", "factory"),
    ("/datasets/{ready}", "factory"),
    ("/datasets/{warned}", "factory"),
    ("/datasets/{broken}", "factory"),
    ("/datasets/{columns}", "factory"),
    ("/runs", "factory"),
    ("/runs", "developer"),
    ("/runs/new", "factory"),
    ("/runs/new?base=guanmo/demo-zh", "factory"),
    ("/runs/new?base=guanmo/demo-zh&data={ready}", "factory"),
    ("/runs/{planned}", "factory"),
    ("/runs/{quoted}", "factory"),
    ("/runs/{done}", "factory"),
    ("/runs/{failed}", "factory"),
    ("/runs/{done}/rerun", "factory"),
    ("/models/demo-precision/orders@1", "factory"),
    ("/vouchers", None),
    ("/vouchers", "factory"),
    ("/vouchers", "operator"),
    ("/vouchers/apply", "factory"),
    ("/vouchers/applications/{application}", "operator"),
    ("/statement", "factory"),
    ("/statement", "operator"),
    ("/filings", None),
    ("/filings", "operator"),
    ("/filings/new", "operator"),
    ("/operator", "operator"),
    ("/operator", "auditor"),
    ("/operator/organisations", "operator"),
    ("/operator/money", "operator"),
    ("/operator/pool", "operator"),
    ("/operator/meters", "operator"),
    ("/operator/meters", "auditor"),
    ("/operator/versions/{review}", "operator"),
)
ENUMERATIONS = {
    "finetune.kinds_of_files:Severity": "severity",
    "finetune.kinds_of_files:Remedy": "fix",
    "finetune.spec:FixAction": "fix_all",
    "finetune.spec:ColumnRole": "column",
    "finetune.spec:Fault": "fault",
    "hub.orders.tables:Fault": "fault",
    "hub.tuning.states:AttemptState": "attempt",
    "hub.tuning.gate:Unmeasured": "unmeasured",
    "hub.ledger.tables:AccountKind": "account",
    "hub.vouchers.tables:Decision": "voucher_step",
    "serving.contract:ReplicaState": "replica",
    "serving.contract:AdapterState": "loaded",
    "hub.compute.tables:NodeState": "node",
}


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_page_is_whole_and_says_no_chinese_in_english(shop: Shop, path: str, who: str | None) -> None:
    for language in ("en", "zh"):
        answer = shop.world.visit(who, language).get(path.format(**shop.shown))
        assert answer.status_code == 200
        page = read_page(answer.text)
        assert page.inline == []
        assert len(page.ids) == len(set(page.ids))
        assert all(address.startswith("/static/") for address in page.loads)
        assert len(answer.data) <= 60_000
        if language == "en":
            assert len(page.texts) > 15
            # A title of the window may end with a name that its owner gave.
            texts = [text for text in page.texts if not text.endswith("· Guanmo")]
            assert [text for text in texts if CHINESE.search(text)] == []


@pytest.mark.parametrize("who", ["factory", "operator", "auditor"])
def test_every_link_leads_somewhere(shop: Shop, who: str) -> None:
    client = shop.world.visit(who)
    paths = [path.format(**shop.shown) for path, person in PAGES if person == who]
    links = {link.partition("#")[0] for path in paths for link in read_page(client.get(path).text).links}
    own = sorted(
        link for link in links if link.startswith("/") and not link.startswith(("/language/", "/api/", "/models/"))
    )
    assert len(own) > 10
    assert {link: status for link in own if (status := client.get(link).status_code) not in (200, 302)} == {}


@pytest.mark.parametrize(("place", "family"), ENUMERATIONS.items())
def test_every_state_has_a_word(place: str, family: str) -> None:
    module, name = place.split(":")
    assert {str(member) for member in getattr(import_module(module), name)} <= set(FAMILIES[family])


def test_every_fix_of_a_check_has_a_word() -> None:
    from finetune.issues import KINDS

    fixes = {kind.fix for kind in KINDS.values() if kind.fix}
    assert len(fixes) >= 3
    assert fixes <= set(FAMILIES["fix"])
