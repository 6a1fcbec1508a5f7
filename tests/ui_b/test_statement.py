"""The statement on the page: lines to the fen, parts, balances, months, who reads whose."""

import re

from tests.ui_b.conftest import Shop


def test_lines_add_up_to_the_fen_and_name_their_rule(shop: Shop) -> None:
    page = shop.world.visit("factory").get("/statement").text
    for text in ("Compute rental", "Tuning service", "Compute voucher", "rule version 1", "1/2", "Who received it"):
        assert text in page, text
    amounts = dict(re.findall(r"<dt>(List price|By vouchers|Own money)</dt><dd>¥([0-9.]+)", page))
    fen = {name: int(amount.replace(".", "")) for name, amount in amounts.items()}
    assert fen["List price"] == fen["By vouchers"] + fen["Own money"] > 0
    assert "Sum over the whole ledger: </" not in page
    assert re.search(r"Sum over the whole ledger: <strong>¥0\.00</strong>", page)
    assert "DEMO" in page
    assert 'href="/api/v1/statement.csv?month=' in page


def test_balances_stand_before_and_after_in_chinese(shop: Shop) -> None:
    page = shop.world.visit("factory", "zh").get("/statement").text
    for text in ("企业资金", "模型券（终身）", "模型券资金池", "期初", "期末", "演示", "款项去向"):
        assert text in page, text


def test_bad_month_is_refused_at_its_field_and_the_page_still_stands(shop: Shop) -> None:
    answer = shop.world.visit("factory").get("/statement?month=2026-13")
    assert answer.status_code == 422
    assert 'id="e-month"' in answer.text
    empty = shop.world.visit("factory").get("/statement?month=2020-01").text
    assert "Nothing was charged this month" in empty
    assert 'value="2020-01" selected' in empty


def test_only_operator_and_auditor_read_others_and_the_books(shop: Shop) -> None:
    firm = shop.world.actors["factory"].organisation_id
    path = f"/statement?organisation_id={firm}"
    for who in ("operator", "auditor"):
        page = shop.world.visit(who).get(path).text
        assert "Tuning service" in page
        assert "Trial balance" in page
        assert f"organisation_id={firm}" in page
    assert shop.world.visit("developer").get(path).status_code == 404
    assert "Trial balance" not in shop.world.visit("factory").get("/statement").text
    assert shop.world.visit().get("/statement").status_code == 302
