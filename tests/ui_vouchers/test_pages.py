"""The officer's, the firm's and the auditor's pages of vouchers and claims, in both languages."""

import io
import re
from importlib import import_module

import pytest

from hub.ledger.periods import SHANGHAI
from hub.organisations.rules import make_demo_uscc
from hub.vouchers.papers import add_paper
from hub.vouchers.rules import RuleBody, read_body
from hub.vouchers.tables import PaperKind, RuleVersion
from marketplace_ui.rule_form import FIELDS, MEMBERS
from marketplace_ui.words import WORDS
from tests.ui.pages import CHINESE, read_page
from tests.ui_vouchers.scene import Scene

PAGES = (
    ("/operator/programmes", "operator"),
    ("/operator/programmes", "auditor"),
    ("/operator/programmes/model", "operator"),
    ("/operator/programmes/model/draft", "operator"),
    ("/operator/rules/{rule}", "operator"),
    ("/operator/rules/{rule}", "reviewer"),
    ("/operator/claims", "operator"),
    ("/operator/claims", "auditor"),
    ("/operator/claims/{claim}", "operator"),
    ("/operator/claims/{claim}", "reviewer"),
    ("/operator/claims/{claim}", "auditor"),
    ("/operator/reports", "operator"),
    ("/operator/reports/{month}", "auditor"),
    ("/operator/related", "operator"),
    ("/vouchers/owners", "factory"),
    ("/vouchers/grants/{grant_model}", "factory"),
    ("/vouchers/grants/{grant_model}", "operator"),
    ("/vouchers/grants/{grant_compute}", "auditor"),
    ("/vouchers/applications/{application}", "integrator"),
    ("/vouchers/applications/{application}", "operator"),
)
ENUMERATIONS = {
    "hub.claims.tables:ClaimState": "claim",
    "hub.claims.tables:RedemptionState": "redemption",
    "hub.vouchers.tables:GrantState": "grant",
    "hub.vouchers.tables:RuleState": "rule",
    "hub.vouchers.tables:Verdict": "verdict",
    "hub.organisations.tables:OwnerKind": "owner",
}


@pytest.mark.parametrize(("path", "who"), PAGES)
def test_page_is_whole_and_says_no_chinese_in_english(scene: Scene, path: str, who: str) -> None:
    for language in ("en", "zh"):
        answer = scene.world.visit(who, language).get(path.format(**scene.ids))
        assert answer.status_code == 200, answer.text[:500]
        page = read_page(answer.text)
        assert page.inline == []
        assert len(page.ids) == len(set(page.ids)), sorted(page.ids)
        assert len(answer.data) <= 60_000
        if language == "en":
            assert len(page.texts) > 15
            texts = [text for text in page.texts if not text.endswith("· Guanmo")]
            assert [text for text in texts if CHINESE.search(text)] == []


@pytest.mark.parametrize("who", ["factory", "operator", "auditor"])
def test_every_link_leads_somewhere(scene: Scene, who: str) -> None:
    client = scene.world.visit(who)
    paths = [path.format(**scene.ids) for path, person in PAGES if person == who]
    links = {link.partition("#")[0] for path in paths for link in read_page(client.get(path).text).links}
    own = sorted(link for link in links if link.startswith(("/operator", "/vouchers")))
    assert own
    assert {link: status for link in own if (status := client.get(link).status_code) != 200} == {}


def test_every_state_and_rule_field_has_a_word() -> None:
    for place, family in ENUMERATIONS.items():
        module, name = place.split(":")
        assert {str(member) for member in getattr(import_module(module), name)} <= set(WORDS[family])
    assert set(FIELDS) == set(RuleBody.model_fields)
    assert set(MEMBERS["eligible_kinds"]) <= set(WORDS["role"])


@pytest.mark.parametrize(
    "path", ["/operator/programmes", "/operator/claims", "/operator/reports", "/operator/related", "/operator/claims/x"]
)
def test_firms_and_strangers_see_none_of_it(scene: Scene, path: str) -> None:
    assert scene.world.visit("factory").get(path).status_code in (403, 404)
    assert scene.world.visit(None).get(path).status_code in (302, 401)


def test_the_auditor_finds_no_form_and_is_refused(scene: Scene) -> None:
    auditor = scene.world.visit("auditor")
    for path in ("/operator/claims", "/operator/claims/{claim}", "/operator/reports", "/operator/related"):
        page = auditor.get(path.format(**scene.ids)).text
        forms = re.findall(r'<form method="post" action="([^"]+)"', page)
        assert [address for address in forms if address.startswith(("/operator", "/vouchers"))] == []
    forced = auditor.post("/operator/claims", data={"programme": "model", "period": scene.ids["month"]})
    assert forced.status_code == 422
    assert auditor.get("/operator/programmes/model/draft").status_code == 403
    assert auditor.post("/operator/reports", data={"period": "2025"}).status_code == 422


def test_a_draft_is_previewed_then_kept_and_its_drafter_cannot_approve(scene: Scene) -> None:
    operator, reviewer = scene.world.visit("operator"), scene.world.visit("reviewer")
    form = _typed(operator.get("/operator/programmes/compute/draft").text)
    form |= {"per_firm_cap_fen": "900000", "effective_from": "2027-01-01", "step": "preview"}
    page = operator.post("/operator/programmes/compute/draft", data=form)
    assert page.status_code == 200
    assert "¥1,000,000.00" in page.text
    assert "¥900,000.00" in page.text
    kept = operator.post("/operator/programmes/compute/draft", data=form | {"step": "draft"})
    assert kept.status_code == 302
    path = kept.headers["Location"].partition("?")[0]
    assert "another person of the operator approves it" in operator.get(path).text
    assert f"{path}/approve" not in operator.get(path).text
    assert f"{path}/approve" in reviewer.get(path).text
    assert operator.post(f"{path}/approve").status_code == 422
    assert reviewer.post(f"{path}/approve").status_code == 302
    second = operator.post("/operator/programmes/compute/draft", data=form | {"step": "draft"}).location
    path = second.partition("?")[0]
    assert "Take the draft back" in operator.get(path).text
    assert reviewer.post(f"{path}/refuse", data={"reason": ""}).status_code == 422
    assert reviewer.post(f"{path}/refuse", data={"reason": "a year too late"}).status_code == 302
    for language, said in (("en", "Refused by"), ("zh", "已驳回")):
        page = scene.world.visit("auditor", language).get(path).text
        assert said in page
        assert "a year too late" in page
        assert f"{path}/refuse" not in page
    wrong = form | {"share_num": "3", "share_den": "2"}
    assert "share above 1" in operator.post("/operator/programmes/compute/draft", data=wrong).text
    wrong = form | {"mode": "reimburse"}
    assert operator.post("/operator/programmes/compute/draft", data=wrong | {"step": "draft"}).status_code == 422


def test_tiers_are_filled_in_changed_and_taken_away(scene: Scene) -> None:
    operator = scene.world.visit("operator")
    path = "/operator/programmes/data_standard/draft"
    form = _typed(operator.get(path).text)
    assert [form[f"tier_{part}-0"] for part in ("zh", "en", "cap")] == ["牵头", "leading", "300000.00"]
    assert form["tier_zh-3"] == ""
    form |= {"effective_from": "2027-01-01", "tier_cap-0": "250000", "step": "preview"}
    form |= {"tier_zh-3": "支持", "tier_en-3": "supporting", "tier_cap-3": "5,000.50"}
    page = operator.post(path, data=form).text
    assert "leading ¥300,000.00, joining ¥100,000.00" in page
    assert "leading ¥250,000.00, joining ¥100,000.00, supporting ¥5,000.50" in page
    assert 'name="tier_zh-5"' in page
    form |= dict.fromkeys(("tier_zh-1", "tier_en-1", "tier_cap-1"), "")
    kept = operator.post(path, data=form | {"step": "draft"})
    assert kept.status_code == 302
    drafted = kept.headers["Location"].partition("?")[0].rpartition("/")[2]
    with scene.world.sessions.read() as session:
        tiers = read_body(session.get_one(RuleVersion, drafted).body).tiers
    assert [(tier.label_zh, tier.label_en, tier.cap_fen) for tier in tiers] == [
        ("牵头", "leading", 25_000_000),
        ("支持", "supporting", 500_050),
    ]


@pytest.mark.parametrize(
    ("field", "typed", "said_en", "said_zh"),
    [
        ("tier_cap-0", "400000", "above the firm", "高于企业上限"),
        ("tier_cap-0", "", "Give a cap above 0", "请填写大于 0 的上限"),
        ("tier_cap-0", "0", "Give a cap above 0", "请填写大于 0 的上限"),
        ("tier_cap-1", "-1", "is not an amount", "不是金额"),
        ("tier_cap-1", "0.001", "is not an amount", "不是金额"),
        ("tier_en-1", "", "Please fill this in", "请填写此项"),
        ("tier_zh-1", "牵头", "stands twice", "重复"),
        ("tier_en-1", "参与", "stands twice", "重复"),
        ("tier_zh-2", "只有名称", "", ""),
        ("tier_zh-0", "长" * 41, "the limit is 40", "上限 40"),
    ],
)
def test_a_tier_that_cannot_be_is_refused_at_its_input(
    scene: Scene, field: str, typed: str, said_en: str, said_zh: str
) -> None:
    path = "/operator/programmes/data_standard/draft"
    for language, said in (("en", said_en), ("zh", said_zh)):
        operator = scene.world.visit("operator", language)
        form = _typed(operator.get(path).text) | {"effective_from": "2027-01-01", "step": "draft", field: typed}
        answer = operator.post(path, data=form)
        assert answer.status_code == 422
        shown = field if said else "tier_cap-2"
        error = answer.text.partition(f'id="e-{shown}">')[2].partition("</div>")[0]
        assert error
        assert said in error
        assert f'aria-invalid="true" aria-describedby="e-{shown}"' in answer.text
        assert f'value="{typed}"' in answer.text


def test_claim_is_submitted_by_another_paid_and_reconciled(scene: Scene) -> None:
    operator, reviewer = scene.world.visit("operator"), scene.world.visit("reviewer")
    path = f"/operator/claims/{scene.ids['claim']}"
    assert f"{path}/submission" not in operator.get(path).text
    assert f"{path}/submission" in reviewer.get(path).text
    assert operator.post(f"{path}/submission").status_code == 422
    assert reviewer.post(f"{path}/submission").status_code == 302
    assert reviewer.get(f"/api/v1/claims/{scene.ids['claim']}/pack", buffered=True).status_code == 200
    assert operator.post(f"{path}/payment", data={"paid_fen": "0.01", "reference": "TR-1"}).status_code == 302
    refused = operator.post(f"{path}/reconciliation", data={"reason": ""})
    assert refused.status_code == 422
    assert "a difference of" in refused.text
    assert operator.post(f"{path}/reconciliation", data={"reason": "partly paid"}).status_code == 302
    assert "partly paid" in operator.get(path).text
    assert "no. 1" in scene.world.visit("factory").get(f"/vouchers/grants/{scene.ids['grant_model']}").text


def test_a_claims_lines_lead_to_voucher_papers_and_statement(scene: Scene) -> None:
    owner = scene.world.actors["factory"].organisation_id
    for who in ("operator", "auditor"):
        client = scene.world.visit(who)
        links = read_page(client.get(f"/operator/claims/{scene.ids['claim']}").text).links
        wanted = {f"/vouchers/grants/{scene.ids['grant_model']}"}
        wanted.add(f"/statement?month={scene.ids['month']}&organisation_id={owner}")
        assert wanted <= set(links)
        assert {link: client.get(link).status_code for link in wanted} == dict.fromkeys(wanted, 200)


def test_a_claim_of_days_that_no_other_has_is_drafted_and_refused(scene: Scene) -> None:
    operator, month = scene.world.visit("operator"), scene.ids["month"]
    days = {"from_day": f"{month}-01", "to_day": f"{month}-28"}
    typed = {"programme": "model", "period": "", "organisation_id": ""}
    for language, said in (("en", "which has days of"), ("zh", "有重叠")):
        overlapping = scene.world.visit("operator", language).post("/operator/claims", data=typed | days)
        assert (overlapping.status_code, said in overlapping.text) == (422, True)
        assert f'value="{month}-28"' in overlapping.text
    both = operator.post("/operator/claims", data=typed | days | {"period": month})
    assert (both.status_code, "not both" in both.text) == (422, True)
    neither = operator.post("/operator/claims", data=typed)
    assert (neither.status_code, "Please fill this in" in neither.text) == (422, True)
    with scene.world.sessions.write() as session:
        add_paper(
            session, scene.world.actors["factory"], scene.ids["grant_compute"], month=month, kind=PaperKind.INVOICE,
            name="发票.pdf", digest="f" * 64, number="F-2", issuer_uscc=make_demo_uscc(40), amount_fen=1201,
            now=scene.world.now,
        )  # fmt: skip
    days["to_day"] = f"{scene.world.now.astimezone(SHANGHAI).date()}"
    drafted = operator.post("/operator/claims", data=typed | days | {"programme": "compute"})
    assert drafted.status_code == 302
    assert f"{days['from_day']}--{days['to_day']}" in operator.get(drafted.location).text
    path, reviewer = drafted.location.partition("?")[0], scene.world.visit("reviewer")
    assert f"{path}/refusal" not in operator.get(path).text
    assert reviewer.post(f"{path}/submission").status_code == 302
    assert f"{path}/refusal" in operator.get(path).text
    assert operator.post(f"{path}/refusal", data={"reason": ""}).status_code == 422
    assert operator.post(f"{path}/refusal", data={"reason": "x" * 1001}).status_code == 422
    assert f"{path}/refusal" in operator.get(path).text, "what the page did not accept is not done"
    assert operator.post(f"{path}/refusal", data={"reason": "form 3 lacks"}).status_code == 302
    for language, said in (("en", "Refused by the authority"), ("zh", "主管部门退回")):
        page = scene.world.visit("operator", language).get(path).text
        assert said in page
        assert "form 3 lacks" in page


def test_application_is_returned_completed_refused_and_appealed(scene: Scene) -> None:
    firm, operator, reviewer = (scene.world.visit(who) for who in ("developer", "operator", "reviewer"))
    form = {
        "programme": "model",
        "asked_fen": "200",
        "contract_no": "C-9",
        "paper_contract": (io.BytesIO(b"x"), "c.txt"),
    }
    assert firm.post("/vouchers/apply", data=form, content_type="multipart/form-data").status_code == 302
    page = firm.get("/vouchers").text
    path = "/vouchers/applications/" + page.partition("/vouchers/applications/")[2].partition('"')[0]
    document = re.search(r'href="(/api/v1/papers/\w+)"', operator.get(path).text)
    assert document
    assert operator.get(document[1]).data == scene.world.visit("auditor").get(document[1]).data == b"x"
    assert "/api/v1/papers/" not in firm.get(path).text
    assert operator.post(path, data={"decision": "return", "reason": "page two"}).status_code == 302
    assert "Complete and hand in again" in firm.get(path).text
    more = {"asked_fen": "150", "kind": "other", "paper": (io.BytesIO(b"y"), "more.txt")}
    assert firm.post(f"{path}/resubmit", data=more, content_type="multipart/form-data").status_code == 302
    assert "more.txt" in firm.get(path).text
    assert operator.post(path, data={"decision": "refuse", "reason": "not eligible"}).status_code == 302
    assert firm.post(f"{path}/appeal", data={"reason": ""}).status_code == 422
    assert firm.post(f"{path}/appeal", data={"reason": "we are"}).status_code == 302
    assert "four eyes" in operator.get(path).text
    assert reviewer.post(path, data={"decision": "check", "reason": "they are right"}).status_code == 302
    assert scene.world.visit("integrator").post(f"{path}/withdraw").status_code == 422


def test_an_owner_is_declared_confirmed_and_a_pair_decided(scene: Scene) -> None:
    provider, operator = scene.world.visit("provider"), scene.world.visit("operator")
    bad = provider.post("/vouchers/owners", data={"kind": "legal_person", "name": "王建国", "code": "12"})
    assert bad.status_code == 422
    assert 'id="e-code"' in bad.text
    assert provider.post("/vouchers/owners", data={"kind": "legal_person", "name": "王建国"}).status_code == 302
    pair = {
        name: scene.world.actors[who].organisation_id
        for name, who in (("buyer_id", "factory"), ("seller_id", "provider"))
    }
    page = operator.get("/operator/related", query_string=pair).text
    assert "Vouchers are stopped" in page
    assert operator.post("/operator/related", data={**pair, "verdict": "cleared", "reason": ""}).status_code == 422
    assert (
        operator.post("/operator/related", data={**pair, "verdict": "cleared", "reason": "namesakes"}).status_code
        == 302
    )
    assert "Vouchers may pay" in operator.get("/operator/related", query_string=pair).text


def _typed(html: str) -> dict[str, str]:
    """Return what a form sends as it stands: texts, chosen options, checked boxes."""
    form = html.partition('<form method="post" action="/operator/programmes/')[2].partition("</form>")[0]
    values = dict(re.findall(r'<input class="form-control[^>]*?name="([^"]+)"[^>]*?value="([^"]*)"', form))
    values |= {
        name: "yes" for name in re.findall(r'type="checkbox" value="yes" id="[^"]+" name="([^"]+)"[^>]*checked', form)
    }
    for name, body in re.findall(r'<select[^>]*name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'value="([^"]*)" selected', body)
        values[name] = chosen[1] if chosen else ""
    return values
