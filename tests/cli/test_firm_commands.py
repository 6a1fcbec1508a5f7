"""The commands of money as a firm's finance walks through them, against a running hub."""

import json
from pathlib import Path

import pytest

from hub.errors import InvalidValueError
from hub.orders import service as orders
from hub.orders.tables import Order
from hub.organisations.service import find_organisation
from tests.cli.terminal import Terminal, street, terminal, write_paper
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.money.market import Market
from tests.hub.orders.conftest import rich
from tests.hub.orders.test_rentals import HOUR_MS
from tests.hub.vouchers.steps import assert_books, buy, shanghai

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "street", "terminal"]


def settle(market: Market, order_id: str) -> Order:
    with market.sessions.write() as session:
        metered = {"device_ms": HOUR_MS, "trained_tokens": 1_000_000}
        return orders.settle_order(session, order_id, metered=metered, now=market.now)


def apply(terminal: Terminal, folder: Path) -> str:
    words = ("vouchers", "apply", "model", "--amount-fen", "30000", "--contract", "HT-1")
    made: str = terminal.read("factory", *words, "--paper", f"contract={write_paper(folder)}")["id"]
    return made


def test_a_deposit_is_asked_for_and_in_the_firms_wallet(street: Terminal) -> None:
    firm = street.market.owner("factory")
    words = ("wallet", "deposit", firm, "--amount-fen", "10000", "--reference", "bank-1")
    assert street.declined("operator", *words)
    assert street.refused("factory", *words, "--yes") == "forbidden"
    assert street.read("factory", "wallet", "show")["balance_fen"] == 0
    assert street.read("operator", *words, "--yes")["wallet"]["available_fen"] == 10_000
    assert "¥100.00" in street.run("factory", "wallet", "show")
    assert street.read("auditor", "wallet", "show", "--organisation", firm)["balance_fen"] == 10_000
    assert street.refused("rival", "wallet", "show", "--organisation", firm) == "not_found"
    cash = next(row for row in street.read("factory", "ledger", "accounts")["items"] if row["kind"] == "firm_cash")
    [entry] = street.read("factory", "ledger", "entries", cash["id"])["items"]
    assert (entry["amount_fen"], entry["balance_fen"]) == (10_000, 10_000)
    assert "¥100.00" in street.run("factory", "ledger", "entries", cash["id"])
    assert_books(street.market)


def test_a_firm_applies_completes_and_two_officers_award(street: Terminal, tmp_path: Path) -> None:
    application = apply(street, tmp_path)
    assert street.refused("rival", "vouchers", "show", application) == "not_found"
    assert street.read("checker", "vouchers", "return", application, "--reason", "page 2")["state"] == "returned"
    assert "page 2" in street.run("factory", "vouchers", "show", application)
    more = ("--paper", f"delivery={write_paper(tmp_path, 'delivery.pdf')}")
    completed = street.read("factory", "vouchers", "complete", application, *more)
    assert (completed["round"], completed["asked_fen"], len(completed["evidence"])) == (2, 30_000, 2)
    digest, seen = completed["evidence"][0]["digest"], tmp_path / "seen.pdf"
    assert digest in street.run("checker", "vouchers", "show", application)
    street.run("checker", "grants", "paper", digest, "--to", str(seen))
    assert seen.read_bytes() == write_paper(tmp_path).read_bytes()
    assert street.refused("factory", "grants", "paper", digest) == "forbidden"
    assert street.refused("factory", "vouchers", "check", application) == "forbidden"
    assert street.read("checker", "vouchers", "check", application)["state"] == "checked"
    assert street.refused("checker", "vouchers", "approve", application, "--yes") == "four_eyes"
    assert street.declined("approver", "vouchers", "approve", application)
    assert "approved" in street.run(
        "approver", "vouchers", "approve", application, "--granted-fen", "20000", typed="y\n"
    )
    [grant] = street.read("factory", "grants", "list")["items"]
    assert (grant["left_fen"], grant["state"]) == (20_000, "active")
    assert street.read("auditor", "vouchers", "list", "--state", "submitted")["items"] == []
    assert "HT-1" in street.run("auditor", "vouchers", "list", "--state", "approved")
    assert street.declined("operator", "grants", "revoke", grant["id"], "--reason", "false papers")
    assert "revoked" in street.run("operator", "grants", "revoke", grant["id"], "--reason", "false papers", "--yes")
    assert "false papers" in street.run("factory", "grants", "list")
    assert_books(street.market)


def test_a_refused_firm_appeals_and_another_officer_hears_it(street: Terminal, tmp_path: Path) -> None:
    application = apply(street, tmp_path)
    assert street.read("checker", "vouchers", "refuse", application, "--reason", "not eligible")["state"] == "refused"
    assert street.read("factory", "vouchers", "appeal", application, "--reason", "we are")["state"] == "appealed"
    assert street.refused("checker", "vouchers", "check", application) == "four_eyes"
    assert street.read("approver", "vouchers", "check", application)["state"] == "checked"
    assert street.refused("factory", "vouchers", "withdraw", application, "--yes") == "conflict"


def test_papers_out_of_shape_are_refused_before_anything_is_sent(street: Terminal, tmp_path: Path) -> None:
    words = ("vouchers", "apply", "model", "--amount-fen", "30000", "--contract", "HT-1", "--paper")
    for paper, said in (("contract", "is no paper"), ("coffee=x.pdf", "is no paper"), ("contract=gone.pdf", "be read")):
        with pytest.raises(InvalidValueError, match=said):
            street.run("factory", *words, paper)
    (tmp_path / "tool.exe").write_bytes(b"MZ")
    assert street.refused("factory", *words, f"contract={tmp_path / 'tool.exe'}") == "bad_filing"
    assert street.read("factory", "vouchers", "list")["items"] == []


def test_a_firm_accepts_a_quote_once_and_sees_its_lines(terminal: Terminal) -> None:
    quote = terminal.market.quote()
    shown = terminal.read("factory", "quotes", "show", quote.id)
    assert [(line["voucher_fen"], line["self_paid_fen"]) for line in shown["lines"]] == [(600, 601), (1500, 1500)]
    assert "¥42.01" in terminal.run("factory", "quotes", "list")
    assert terminal.declined("factory", "quotes", "accept", quote.id)
    words = ("quotes", "accept", quote.id, "--yes", "--idempotency-key", "k-1")
    order = terminal.read("factory", *words)
    assert terminal.read("factory", *words)["id"] == order["id"]
    assert terminal.refused("rival", "quotes", "show", quote.id) == "not_found"
    settle(terminal.market, order["id"])
    found = terminal.read("auditor", "orders", "show", order["id"])
    assert (found["charged_fen"], [line["position"] for line in found["lines"]]) == (4201, [0, 1])
    listed = terminal.run("auditor", "orders", "list", "--subject", quote.subject)
    assert order["id"] in listed
    assert "device_ms" in terminal.run("factory", "orders", "show", order["id"])
    assert_books(terminal.market)


def test_a_key_for_a_retry_is_told_where_none_was_given(terminal: Terminal) -> None:
    quote = terminal.market.quote()
    told = terminal.invoke("factory", "quotes", "accept", quote.id, "--yes", "--json")
    key = told.stderr.split()[-1]
    again = terminal.read("factory", "quotes", "accept", quote.id, "--yes", "--idempotency-key", key)
    assert json.loads(told.stdout)["id"] == again["id"]


def test_a_statement_is_shown_downloaded_and_opened_to_its_records(terminal: Terminal, tmp_path: Path) -> None:
    buy(terminal.market)
    told = terminal.read("factory", "statements", "show", "--month", "2026-11")
    assert (told["list_fen"], told["voucher_fen"]) == (4201, 2100)
    assert "still growing" in terminal.run("factory", "statements", "show")
    records = terminal.read("factory", "statements", "records", told["lines"][0]["line_id"])
    assert records["items"][-1]["figures"] == {"device_ms": HOUR_MS, "trained_tokens": 1_000_000}
    assert terminal.refused("rival", "statements", "records", told["lines"][0]["line_id"]) == "not_found"
    starts = {"html": b"<!doctype html>", "csv": "\ufeffGuanmo".encode(), "xlsx": b"PK", "pdf": b"%PDF"}
    for form, start in starts.items():
        words = ("statements", "download", "--format", form, "--to", str(tmp_path / f"november.{form}"))
        assert terminal.run("factory", *words).strip().endswith(f"november.{form}")
        assert (tmp_path / f"november.{form}").read_bytes().startswith(start)
        with pytest.raises(InvalidValueError, match="is there already"):
            terminal.run("factory", *words)
    assert "42.01" in (tmp_path / "november.html").read_text(encoding="utf-8")
    assert terminal.invoke("factory", "statements", "download", "--format", "doc").exit_code == 2


def test_a_file_takes_the_hubs_name_and_is_whole_or_not_there(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert terminal.read("factory", "statements", "download", "--format", "csv") == {"file": "statement-2026-11.csv"}
    firm = terminal.market.owner("factory")
    assert terminal.refused("rival", "statements", "download", "--organisation", firm) == "not_found"
    with pytest.raises(InvalidValueError, match="cannot be written"):
        terminal.run("factory", "statements", "download", "--to", "gone/november.pdf")
    assert [file.name for file in tmp_path.glob("*statement*")] == ["statement-2026-11.csv"]


def test_a_download_takes_no_name_that_something_has(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv.part").write_text("mine")
    (tmp_path / "link.csv").symlink_to("nowhere")
    words = ("statements", "download", "--format", "csv", "--to")
    terminal.run("factory", *words, "own.csv")
    assert (tmp_path / "own.csv.part").read_text() == "mine"
    for name in ("own.csv", "link.csv"):
        with pytest.raises(InvalidValueError, match="is there already"):
            terminal.run("factory", *words, name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link.csv", "own.csv", "own.csv.part"]
    assert (tmp_path / "link.csv").is_symlink()


def test_the_statement_of_another_firm_carries_its_name(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    firm = terminal.market.owner("factory")
    with terminal.market.sessions.read() as session:
        slug = find_organisation(session, firm).slug
    words = ("statements", "download", "--format", "csv", "--month", "2026-11", "--organisation", firm)
    assert terminal.read("auditor", *words) == {"file": f"statement-2026-11-{slug}.csv"}
    assert terminal.read("factory", *words) == {"file": "statement-2026-11.csv"}


def test_a_month_is_closed_by_the_operator_and_listed(terminal: Terminal) -> None:
    buy(terminal.market)
    firm = terminal.market.owner("factory")
    terminal.market.now = shanghai(2026, 12, 3)
    terminal.sign_in("operator", "factory", "auditor", "rival")
    assert terminal.declined("operator", "statements", "close", firm, "2026-11")
    assert terminal.refused("factory", "statements", "close", firm, "2026-11", "--yes") == "forbidden"
    closed = terminal.read("operator", "statements", "close", firm, "2026-11", "--yes")
    assert terminal.read("factory", "statements", "list")["items"] == [closed]
    assert closed["sha256"] in terminal.run("auditor", "statements", "list")
    assert terminal.read("rival", "statements", "list")["items"] == []
    assert terminal.refused("rival", "statements", "list", "--organisation", firm) == "not_found"
