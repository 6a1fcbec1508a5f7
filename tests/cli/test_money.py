"""`guanmo corrections`, `redemptions` and `offers` against a running hub: who may, refusals by code, asked before."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from hub.cli.calling import HubCallError
from hub.cli.main import app, main
from hub.compute.tables import Provider
from hub.errors import InvalidValueError
from hub.events.tables import Event
from hub.orders.service import refund_order
from hub.orders.tables import BillVersion, Charge
from hub.vouchers.tables import Grant
from tests.cli.terminal import Terminal, serve, terminal
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.money.market import PASSWORD, Market
from tests.hub.orders.call_steps import FEN, call, find_line
from tests.hub.orders.conftest import rich
from tests.hub.orders.test_corrections import fresh_order
from tests.hub.orders.test_rentals import HOUR_MS, Shop
from tests.hub.vouchers.steps import assert_books, buy, pay_in_full

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "terminal"]


@pytest.fixture
def paid(market: Market, tmp_path: Path) -> Iterator[tuple[Terminal, Grant]]:
    """The model voucher reimburses a third; the factory has paid 4201 fen in full and holds invoice and proof."""
    grant = pay_in_full(market)
    for served in serve(market, tmp_path):
        yield served, grant


def count_versions(market: Market) -> int:
    with market.sessions.read() as session:
        return len(session.scalars(select(BillVersion)).all())


def test_a_small_correction_of_a_bill_is_asked_for_and_posted(terminal: Terminal) -> None:
    order = buy(terminal.market)
    words = ("corrections", "bill", order.id, "--reason", "stood still", "--fault", "provider")
    assert terminal.invoke("operator", *words, typed="n\n").exit_code == 1
    assert count_versions(terminal.market) == 0
    said = terminal.run("operator", *words, typed="y\n")
    assert "posted" in said
    assert "-¥42.01" in said
    listed = terminal.read("auditor", "corrections", "list")["items"]
    assert [item["fee_fen"] for item in listed] == [-4201]
    assert terminal.read("factory", "corrections", "list", "--bill", order.id)["items"] == listed
    assert terminal.read("factory", "corrections", "show", listed[0]["id"])["reason"] == "stood still"
    assert terminal.refused("rival", "corrections", "show", listed[0]["id"]) == "not_found"
    assert terminal.refused("factory", "corrections", "list") == "forbidden"
    assert terminal.refused("auditor", *words, "--yes") == "forbidden"
    assert_books(terminal.market)


def test_a_correction_needs_figures_or_a_fault(terminal: Terminal) -> None:
    order = buy(terminal.market)
    with pytest.raises(InvalidValueError, match="--device-ms"):
        terminal.run("operator", "corrections", "bill", order.id, "--reason", "odd")
    halved = ("--device-ms", str(HOUR_MS // 2), "--trained-tokens", "1000000", "--yes")
    made = terminal.read("operator", "corrections", "bill", order.id, "--reason", "half", *halved)
    assert (made["state"], made["metered"]["device_ms"], made["fee_fen"]) == ("posted", HOUR_MS // 2, -601)


def test_the_auditor_finds_a_runs_bill_by_the_run_and_others_do_not(terminal: Terminal) -> None:
    order = buy(terminal.market)
    words = ("corrections", "list", "--bill", order.subject)
    correct = ("corrections", "bill", order.subject, "--reason", "stood still", "--fault", "provider", "--yes")
    made = terminal.read("operator", *correct)
    assert (made["order_id"], made["fee_fen"]) == (order.id, -4201)
    for who in ("auditor", "operator", "factory"):
        assert terminal.read(who, *words)["items"] == [made]
    for who, bill in (("rival", order.subject), ("provider", order.subject), ("auditor", "run_none")):
        with pytest.raises(InvalidValueError, match="no bill of run_"):
            terminal.run(who, "corrections", "list", "--bill", bill)
    assert terminal.refused("rival", "corrections", "list", "--bill", order.id) == "not_found"
    assert terminal.refused("auditor", *correct) == "forbidden"


def test_a_rental_is_corrected_by_its_own_id(terminal: Terminal) -> None:
    shop = Shop(terminal.market)
    rental = shop.rent()
    shop.send(shop.report(rental, 1, HOUR_MS // 2, at=1800))
    shop.end(rental, at=1800)
    words = ("corrections", "bill", rental.id, "--reason", "it hung", "--fault", "provider", "--yes")
    assert terminal.read("operator", *words)["fee_fen"] == -600


def test_above_the_limit_another_operator_decides(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.orders.correction_steps.APPROVAL_LIMIT_FEN", 1000)
    order = buy(terminal.market)
    words = ("corrections", "bill", order.id, "--reason", "hung", "--fault", "platform", "--yes")
    waiting = terminal.read("operator", *words)
    assert (waiting["state"], waiting["number"]) == ("proposed", None)
    assert terminal.refused("operator", "corrections", "approve", waiting["id"], "--yes") == "four_eyes"
    assert "Aborted" in terminal.invoke("checker", "corrections", "approve", waiting["id"], typed="n\n").output
    assert terminal.read("checker", "corrections", "list", "--state", "proposed")["items"] == [waiting]
    assert "posted" in terminal.run("checker", "corrections", "approve", waiting["id"], typed="y\n")
    assert terminal.refused("checker", "corrections", "refuse", waiting["id"], "--reason", "no") == "conflict"


def test_who_approves_is_told_the_time_that_is_taken_back(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.orders.correction_steps.APPROVAL_LIMIT_FEN", 1000)
    order, passed = fresh_order(terminal.market), {"elapsed_device_ms": HOUR_MS}
    with terminal.market.sessions.write() as session:
        refund_order(session, order.id, fault="platform", reason_code="x", metered=passed, now=terminal.market.now)
    words = ("corrections", "bill", order.id, "--reason", "its own fault", "--fault", "provider", "--yes")
    waiting = terminal.read("operator", *words)
    assert (waiting["state"], waiting["fee_fen"], waiting["elapsed_fen"]) == ("proposed", 0, -1201)
    asked = terminal.invoke("checker", "corrections", "approve", waiting["id"], typed="n\n")
    assert "-¥12.01 of time" in asked.output
    assert "-¥12.01" in terminal.run("checker", "corrections", "show", waiting["id"])
    approved = terminal.read("checker", "corrections", "approve", waiting["id"], "--yes")
    assert (approved["state"], approved["elapsed_fen"]) == ("posted", -1201)
    with terminal.market.sessions.read() as session:
        event = session.scalars(select(Event).where(Event.topic == "bill.corrected")).one()
        assert event.payload["elapsed_fen"] == -1201
    assert_books(terminal.market)


def test_hosted_calls_are_corrected_by_line_and_from_a_file(terminal: Terminal, tmp_path: Path) -> None:
    line_id = call(terminal.market, "one", 125_000)
    call(terminal.market, "two", 125_000)
    words = ("corrections", "calls", line_id, "--reason", "counted twice", "--yes")
    assert terminal.read("operator", *words, "--call", "one 0 0 31250")["fee_fen"] == -75
    file = tmp_path / "calls.txt"
    file.write_text("two:0 0 0 0\n\n")
    assert terminal.read("operator", *words, "--file", str(file))["fee_fen"] == -100
    with pytest.raises(InvalidValueError, match="is no call"):
        terminal.run("operator", *words, "--call", "one 5")
    assert terminal.refused("operator", *words, "--call", "nobody 0 0 5") == "not_found"
    assert terminal.read("operator", *words, "--fault", "platform")["fee_fen"] == -25
    assert len(terminal.read("factory", "corrections", "list", "--bill", line_id)["items"]) == 3
    assert_books(terminal.market)


def test_late_calls_are_listed_and_billed(terminal: Terminal) -> None:
    market = terminal.market
    piece: Any = market.draw("late", want_ufen=499 * FEN)
    market.close(piece.allowance_id, through_seq=0)
    market.settle()
    market.send(market.record(piece.allowance_id, "late", (0, 0, 125_000)))
    assert "gw:1:1" in terminal.run("auditor", "corrections", "late")
    with pytest.raises(InvalidValueError, match="is no source"):
        terminal.run("operator", "corrections", "bill-late", "gw", "--reason", "came late")
    words = ("corrections", "bill-late", "gw:1:1", "--reason", "came late")
    assert terminal.invoke("operator", *words, typed="n\n").exit_code == 1
    assert "¥1.00" in terminal.run("operator", *words, typed="y\n")
    assert terminal.read("operator", "corrections", "late")["items"] == []
    assert find_line(market).posted_fen == 100


def test_a_firm_redeems_and_two_officers_pay(paid: tuple[Terminal, Grant]) -> None:
    terminal, grant = paid
    open_ones = terminal.read("factory", "redemptions", "redeemable", grant.id)["items"]
    assert sum(row["fee_fen"] for row in open_ones) == 4201
    assert terminal.refused("rival", "redemptions", "redeemable", grant.id) == "not_found"
    assert terminal.invoke("factory", "redemptions", "request", grant.id, "--all", typed="n\n").exit_code == 1
    asked = terminal.read("factory", "redemptions", "request", grant.id, "--all", "--yes")
    assert (asked["state"], asked["amount_fen"]) == ("requested", 1400)
    assert terminal.refused("auditor", "redemptions", "check", asked["id"]) == "forbidden"
    assert "checked" in terminal.run("checker", "redemptions", "check", asked["id"])
    assert terminal.refused("checker", "redemptions", "approve", asked["id"], "--yes") == "four_eyes"
    assert terminal.invoke("approver", "redemptions", "approve", asked["id"], typed="n\n").exit_code == 1
    assert "paid" in terminal.run("approver", "redemptions", "approve", asked["id"], typed="y\n")
    shown = terminal.read("factory", "redemptions", "show", asked["id"])
    with terminal.market.sessions.read() as session:
        charges = set(session.scalars(select(Charge.id)))
    assert {line["charge_id"] for line in shown["lines"]} == charges
    assert terminal.refused("rival", "redemptions", "show", asked["id"]) == "not_found"
    assert [row["state"] for row in terminal.read("auditor", "redemptions", "list")["items"]] == ["paid"]
    assert terminal.read("auditor", "redemptions", "list", "--state", "refused")["items"] == []
    assert_books(terminal.market)


def test_a_refused_redemption_keeps_its_reason_and_a_request_is_taken_back(paid: tuple[Terminal, Grant]) -> None:
    terminal, grant = paid
    charge = terminal.read("factory", "redemptions", "redeemable", grant.id)["items"][0]["id"]
    asked = terminal.read("factory", "redemptions", "request", grant.id, charge, "--yes")
    refused = terminal.read("checker", "redemptions", "refuse", asked["id"], "--reason", "wrong receipt")
    assert (refused["state"], refused["reason"]) == ("refused", "wrong receipt")
    assert "wrong receipt" in terminal.run("factory", "redemptions", "list")
    again = terminal.read("factory", "redemptions", "request", grant.id, charge, "--yes")
    assert terminal.refused("rival", "redemptions", "withdraw", again["id"], "--yes") == "not_found"
    assert terminal.invoke("factory", "redemptions", "withdraw", again["id"], typed="n\n").exit_code == 1
    assert terminal.read("factory", "redemptions", "withdraw", again["id"], "--yes")["state"] == "withdrawn"
    assert terminal.refused("checker", "redemptions", "check", again["id"]) == "conflict"


def test_a_provider_drafts_publishes_changes_pauses_and_withdraws(terminal: Terminal, tmp_path: Path) -> None:
    shop = Shop(terminal.market)
    drafted = json.loads(terminal.run_plain("offers", "draft", shop.offer.id))
    assert drafted["amount_fen"] == 1201
    file = tmp_path / "offer.json"
    file.write_text(json.dumps(drafted | {"title_en": "Cheaper card", "amount_fen": 900}), encoding="utf-8")
    words = ("offers", "publish", str(file), "--replaces", shop.offer.id)
    assert terminal.invoke("provider", *words, typed="n\n").exit_code == 1
    assert terminal.refused("factory", *words, "--yes") == "forbidden"
    made = terminal.read("provider", *words, "--yes")
    assert (made["state"], made["price"]["hour_fen"]) == ("open", 900)
    every = terminal.read("provider", "offers", "list", "--provider", shop.provider_id)["offers"]
    assert {row["id"]: row["state"] for row in every} == {made["id"]: "open", shop.offer.id: "withdrawn"}
    assert terminal.refused("rival", "offers", "list", "--provider", shop.provider_id) == "not_found"
    assert "paused" in terminal.run("provider", "offers", "pause", made["id"])
    assert terminal.read("factory", "offers", "list")["offers"] == []
    assert "open" in terminal.run("provider", "offers", "resume", made["id"])
    assert terminal.invoke("provider", "offers", "withdraw", made["id"], typed="n\n").exit_code == 1
    assert "withdrawn" in terminal.run("provider", "offers", "withdraw", made["id"], typed="y\n")
    assert terminal.refused("provider", "offers", "resume", made["id"]) == "conflict"


def test_an_offer_file_out_of_shape_is_refused(terminal: Terminal, tmp_path: Path) -> None:
    shop = Shop(terminal.market)
    file = tmp_path / "offer.json"
    for text, said in (("{", "is not an offer"), ("[]", "lacks"), ('{"title_zh": "x"}', "lacks accelerator")):
        file.write_text(text)
        with pytest.raises(InvalidValueError, match=said):
            terminal.run("provider", "offers", "publish", str(file), "--yes")
    drafted = json.loads(terminal.run_plain("offers", "draft", shop.offer.id))
    file.write_text(json.dumps(drafted | {"amount_fen": 0}))
    assert terminal.refused("provider", "offers", "publish", str(file), "--yes") == "invalid_value"
    with terminal.market.sessions.read() as session:
        assert session.scalars(select(Provider.id)).all() == [shop.provider_id]


def test_a_firm_compares_offers_with_its_vouchers(terminal: Terminal, tmp_path: Path) -> None:
    shop = Shop(terminal.market)
    file = tmp_path / "offer.json"
    drafted = json.loads(terminal.run_plain("offers", "draft", shop.offer.id))
    file.write_text(json.dumps(drafted | {"title_en": "Private card", "via_city_platform": False}))
    other = terminal.read("provider", "offers", "publish", str(file), "--yes")["id"]
    found = terminal.read("factory", "offers", "compare", shop.offer.id, other)["offers"]
    paid = [(row["estimate"]["voucher_fen"], row["estimate"]["self_paid_fen"]) for row in found]
    assert paid == [(600, 601), (0, 1201)]
    table = terminal.run("factory", "offers", "compare", shop.offer.id, other)
    assert "One card" in table
    assert "Private card" in table
    assert "estimate" not in json.loads(terminal.run_plain("offers", "show", other, "--json"))["offers"][0]
    with pytest.raises(InvalidValueError, match="two to four"):
        terminal.run("factory", "offers", "compare", other)
    listed = terminal.read("factory", "offers", "list", "--city")["offers"]
    assert [row["id"] for row in listed] == [shop.offer.id]


def test_signing_in_prints_a_token_that_works(terminal: Terminal) -> None:
    result = CliRunner().invoke(app, ["sign-in", "factory@demo.example", "--hub", terminal.hub], input=f"{PASSWORD}\n")
    token = result.stdout.strip()
    listed = CliRunner().invoke(app, ["redemptions", "list", "--hub", terminal.hub, "--key", token])
    assert (listed.exit_code, "Nothing here" in listed.stdout) == (0, True)
    wrong = CliRunner().invoke(app, ["sign-in", "factory@demo.example", "--hub", terminal.hub], input="guess\n")
    assert isinstance(wrong.exception, HubCallError)
    assert wrong.exception.code == "bad_credentials"


def test_a_refusal_is_one_line_with_the_hubs_code(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["guanmo", "corrections", "show", "bvr_none", "--hub", terminal.hub]
    monkeypatch.setattr("sys.argv", [*words, "--key", terminal.market.tokens["factory"]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith("[not_found]\n")


@pytest.mark.parametrize(("language", "said"), [("zh_CN.UTF-8", "更正"), ("en_US.UTF-8", "correction")])
def test_the_terminals_language_is_spoken(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    monkeypatch.setenv("LANG", language)
    order = buy(terminal.market)
    words = ("corrections", "bill", order.id, "--reason", "x", "--fault", "provider", "--yes")
    assert said in terminal.run("operator", *words)
