"""Vouchers on the pages: rules, application with papers, two persons' review, who sees what."""

import io

import pytest

from tests.ui.world import World
from tests.ui_b.conftest import Shop
from tests.ui_b.scene import apply, id_in


@pytest.mark.parametrize("who", [None, "factory", "operator", "auditor", "provider"])
def test_rules_are_public_with_source_version_and_our_defaults(shop: Shop, who: str | None) -> None:
    english = shop.world.visit(who, "en").get("/vouchers").text
    for text in (
        "Model voucher",
        "Compute voucher",
        "50 %",
        "our default",
        "DG-1 §3",
        "version 1",
        "Edge-node subsidy",
    ):
        assert text in english, text
    assert "Edge-node subsidy" in english
    assert "does not hold edge nodes" in english
    assert "平台默认" in shop.world.visit(who, "zh").get("/vouchers").text


def test_grants_show_awarded_held_used_and_left(shop: Shop) -> None:
    page = shop.world.visit("factory").get("/vouchers").text
    assert page.count("¥100,000.00") >= 2
    assert "¥99,999." in page
    assert "No voucher granted yet" in shop.world.visit("integrator").get("/vouchers").text


def test_refused_application_keeps_values_and_papers(market: World) -> None:
    client = market.visit("integrator")
    paper = (io.BytesIO(b"signed by both"), "our contract.txt")
    form = {"programme": "model", "asked_fen": "2.000.000", "contract_no": "C-100", "paper_contract": paper}
    answer = client.post("/vouchers/apply", data=form, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert 'value="2.000.000"' in answer.text
    assert 'value="C-100"' in answer.text
    assert "&#39;2.000.000&#39; is not an amount" in answer.text
    assert "our contract.txt" in answer.text
    kept = answer.text.partition('name="kept_paper_contract" value="')[2].partition('"')[0]
    again = {"programme": "model", "asked_fen": "20000", "contract_no": "C-100", "kept_paper_contract": kept}
    assert client.post("/vouchers/apply", data=again).status_code == 302
    page = client.get(f"/vouchers/applications/{id_in(client.get('/vouchers').text, 'app')}").text
    assert "our contract.txt" in page


def test_missing_paper_and_wrong_kind_of_paper_are_said_at_their_place(market: World) -> None:
    client = market.visit("integrator", "zh")
    form = {"programme": "compute", "asked_fen": "100", "contract_no": "C-101"}
    assert 'id="e-evidence"' in client.post("/vouchers/apply", data=form).text
    bad = form | {"paper_invoice": (io.BytesIO(b"MZ"), "invoice.exe")}
    answer = client.post("/vouchers/apply", data=bad, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert 'id="e-paper_invoice"' in answer.text
    above = form | {"asked_fen": "9000000", "paper_contract": (io.BytesIO(b"x"), "c.txt")}
    answer = client.post("/vouchers/apply", data=above, content_type="multipart/form-data")
    assert 'id="e-asked_fen"' in answer.text


def test_two_persons_review_and_the_first_is_told_to_wait(market: World) -> None:
    application = apply(market.visit("developer"), contract="C-200")
    path = f"/vouchers/applications/{application}"
    operator, reviewer = market.visit("operator"), market.visit("reviewer")
    assert application in operator.get("/vouchers").text
    assert operator.post(path, data={"decision": "check", "reason": "papers complete"}).status_code == 302
    page = operator.get(path).text
    assert "another person of the operator must go on (four eyes)" in page
    assert 'name="decision"' not in page
    forced = operator.post(path, data={"decision": "approve", "reason": "me again"})
    assert forced.status_code == 422
    assert reviewer.post(path, data={"decision": "approve", "reason": "ok", "granted_fen": "150.00"}).status_code == 302
    seen = market.visit("developer").get(path).text
    assert "papers complete" in seen
    assert "¥150.00" in seen


def test_refusal_needs_a_reason_and_keeps_the_choice(market: World) -> None:
    path = f"/vouchers/applications/{apply(market.visit('developer'), 'compute', 'C-201')}"
    operator = market.visit("operator", "zh")
    answer = operator.post(path, data={"decision": "refuse", "reason": ""})
    assert answer.status_code == 422
    assert 'id="e-reason"' in answer.text
    assert 'value="refuse" checked' in answer.text
    assert operator.post(path, data={"decision": "refuse", "reason": "合同未签字"}).status_code == 302
    assert "合同未签字" in market.visit("developer", "zh").get(path).text


def test_applications_are_their_firms_and_the_auditor_writes_nothing(shop: Shop) -> None:
    path = f"/vouchers/applications/{shop.shown['application']}"
    assert shop.world.visit("factory").get(path).status_code == 404
    auditor = shop.world.visit("auditor")
    assert auditor.get(path).status_code == 200
    assert 'name="decision"' not in auditor.get(path).text
    assert auditor.post(path, data={"decision": "check", "reason": "x"}).status_code == 422
    assert "Submitted" in auditor.get(path).text
    for who in ("operator", "auditor", "provider"):
        assert shop.world.visit(who).get("/vouchers/apply").status_code == 403
