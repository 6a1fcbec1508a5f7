"""Filings on the pages: the public list, recording with evidence, withdrawal with a reason."""

import io

from tests.ui.world import World
from tests.ui_b.conftest import Shop


def test_list_is_public_and_offers_nothing_to_strangers(shop: Shop) -> None:
    page = shop.world.visit(None, "zh").get("/filings").text
    assert "DEMO-备案-0001" in page
    assert "/models/guanmo/demo-zh" in page
    assert "登记备案" not in page
    assert "/withdraw" not in page
    assert "/evidence" not in page
    for who in ("factory", "auditor"):
        assert shop.world.visit(who).get("/filings/new").status_code == 403
    assert "/evidence" in shop.world.visit("auditor").get("/filings").text


def test_operator_files_a_base_after_a_mistake_without_choosing_the_paper_again(market: World) -> None:
    operator = market.visit("operator")
    form = {
        "weights_digest": "7" * 64,
        "model_name": "Trial base",
        "holder": "Demo firm",
        "number": "DEMO-备案-0042",
        "body": "demonstration body",
        "authority": "demonstration",
        "scope": "work orders",
        "filed_at": "2026-03-01",
        "valid_until": "2026-02-01",
    }
    paper = {"evidence": (io.BytesIO(b"%PDF-1.7 filed"), "filing.pdf")}
    answer = operator.post("/filings/new", data=form | paper, content_type="multipart/form-data")
    assert answer.status_code == 422
    assert 'id="e-valid_until"' in answer.text
    assert 'value="DEMO-备案-0042"' in answer.text
    kept = answer.text.partition('name="kept_evidence" value="')[2].partition('"')[0]
    assert kept.endswith("filing.pdf")
    sound = form | {"valid_until": "2028-02-01", "kept_evidence": kept}
    assert operator.post("/filings/new", data=sound).headers["Location"] == "/filings?done=filed"
    page = market.visit().get("/filings").text
    assert "DEMO-备案-0042" in page
    assert "2028-02-01" in page
    _withdraw(market)


def test_empty_form_names_every_missing_field(market: World) -> None:
    answer = market.visit("operator", "zh").post("/filings/new", data={"number": "X"})
    assert answer.status_code == 422
    for name in ("weights_digest", "model_name", "holder", "filed_at", "evidence"):
        assert f'id="e-{name}"' in answer.text, name
    assert 'value="X"' in answer.text


def _withdraw(market: World) -> None:
    operator = market.visit("operator", "en")
    row = operator.get("/filings").text.partition("DEMO-备案-0042")[2].partition("</tr>")[0]
    path = row.partition('href="/filings/')[2].partition('"')[0]
    address = f"/filings/{path}"
    assert "cannot be taken back" in operator.get(address).text
    refused = operator.post(address, data={"reason": " "})
    assert refused.status_code == 422
    assert 'id="e-reason"' in refused.text
    assert market.visit("factory").post(address, data={"reason": "x"}).status_code == 403
    assert operator.post(address, data={"reason": "holder asked"}).status_code == 302
    assert "holder asked" in market.visit().get("/filings").text
