"""The commands of money as two officers walk through them, against a running hub."""

import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from hub.cli.calling import Period
from hub.errors import InvalidValueError
from hub.organisations.rules import make_demo_uscc
from tests.cli.terminal import Terminal, street, terminal, write_paper
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.orders.conftest import rich
from tests.hub.vouchers.steps import add_invoice, assert_books, buy, shanghai

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "street", "terminal"]

RULE_YEAR = "2027-01-01T00:00:00+08:00"


def test_one_officer_drafts_a_rule_and_another_puts_it_in_force(street: Terminal, tmp_path: Path) -> None:
    assert "model" in street.run_plain("programmes", "list")
    shape = json.loads(street.run_plain("programmes", "show", "model"))
    shape |= {"body": {**shape["body"], "share": {"num": 2, "den": 5}}, "effective_from_at": RULE_YEAR}
    file = tmp_path / "rule.json"
    file.write_text(json.dumps(shape), encoding="utf-8")
    previewed = street.run("checker", "programmes", "preview", "model", str(file))
    assert "share" in previewed
    assert "our default" in previewed
    assert street.refused("auditor", "programmes", "draft", "model", str(file)) == "forbidden"
    drafted = street.read("checker", "programmes", "draft", "model", str(file))
    assert street.refused("checker", "programmes", "approve", drafted["id"], "--yes") == "four_eyes"
    assert street.declined("approver", "programmes", "approve", drafted["id"])
    assert street.read("approver", "programmes", "approve", drafted["id"], "--yes")["state"] == "approved"
    assert "approved" in street.run_plain("programmes", "rules", "model")
    second = street.read("checker", "programmes", "draft", "model", str(file))["id"]
    refuse = ("programmes", "refuse", second, "--reason", "a year too late")
    assert street.refused("auditor", *refuse, "--yes") == "forbidden"
    assert street.declined("approver", *refuse)
    assert "a year too late" in street.run("approver", *refuse, "--yes")
    assert "a year too late" in street.run("auditor", "programmes", "rules", "model")
    assert "a year too late" not in street.run_plain("programmes", "rules", "model")
    assert json.loads(street.run_plain("programmes", "show", "model"))["number"] == 1
    assert json.loads(street.run_plain("programmes", "show", "model", "--number", "2"))["body"]["share"]["num"] == 2
    with pytest.raises(InvalidValueError, match="no rule version 9"):
        street.run_plain("programmes", "show", "model", "--number", "9")
    file.write_text("[]")
    with pytest.raises(InvalidValueError, match="is not a rule file"):
        street.run("checker", "programmes", "draft", "model", str(file))


def test_a_claim_from_draft_to_reconciliation_by_two_officers(street: Terminal, tmp_path: Path) -> None:
    market = street.market
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    assert street.refused("checker", "claims", "draft", "coffee", "2026-11") == "not_found"
    invoice = ("--number", "F-1", "--issuer", make_demo_uscc(2), "--amount-fen", "4201")
    file = str(write_paper(tmp_path, "invoice.pdf"))
    words = ("grants", "add-paper", grant.id, "2026-11")
    assert street.refused("factory", *words, "invoice", file) == "invalid_value"
    assert street.refused("rival", *words, "invoice", file, *invoice) == "not_found"
    street.run("factory", *words, "invoice", file, *invoice)
    wrong = street.read("factory", *words, "delivery", file)
    assert street.read("factory", "grants", "withdraw-paper", wrong["id"], "--yes")["withdrawn"] is True
    assert [row["kind"] for row in street.read("auditor", "grants", "papers", grant.id)["items"]] == ["invoice"]
    claim = street.read("checker", "claims", "draft", "model", "2026-Q4")
    assert (claim["amount_fen"], len(claim["lines"])) == (2100, 2)
    assert street.refused("checker", "claims", "draft", "model", "2026-11-01--2026-11-30") == "days_overlap"
    assert street.refused("checker", "claims", "submit", claim["id"], "--yes") == "four_eyes"
    assert street.refused("auditor", "claims", "submit", claim["id"], "--yes") == "forbidden"
    assert street.declined("approver", "claims", "submit", claim["id"])
    sealed = street.read("approver", "claims", "submit", claim["id"], "--yes")["pack_sha256"]
    pack = tmp_path / "pack.zip"
    street.run("auditor", "claims", "pack", claim["id"], "--to", str(pack))
    assert "manifest.json" in zipfile.ZipFile(pack).namelist()
    assert sealed in street.run("auditor", "claims", "show", claim["id"])
    paid = ("claims", "paid", claim["id"], "--amount-fen", "2000", "--reference", "TR-1")
    assert street.declined("operator", *paid)
    assert "-¥1.00" in street.run("operator", *paid, "--yes")
    assert street.refused("operator", "claims", "reconcile", claim["id"]) == "difference_unexplained"
    assert street.read("operator", "claims", "reconcile", claim["id"], "--reason", "capped")["state"] == "reconciled"
    assert [row["amount_fen"] for row in street.read("factory", "claims", "own")["items"]] == [600, 1500]
    assert street.refused("factory", "claims", "list") == "forbidden"
    assert street.read("auditor", "claims", "list", "--state", "drafted")["items"] == []
    assert [row["id"] for row in street.read("auditor", "claims", "list", "--state", "reconciled")["items"]] == [
        claim["id"]
    ]
    assert_books(market)


def test_a_draft_is_taken_back_and_a_submitted_claim_refused_with_a_reason(street: Terminal) -> None:
    market = street.market
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    add_invoice(market, grant.id)
    claim = street.read("checker", "claims", "draft", "model", "2026-11")
    taken = street.read("checker", "claims", "withdraw", claim["id"], "--reason", "a paper is missing")
    assert (taken["state"], taken["reason"]) == ("withdrawn", "a paper is missing")
    again = street.read("checker", "claims", "draft", "model", "2026-11-01--2026-11-30")
    assert (again["period"], again["amount_fen"]) == ("2026-11-01--2026-11-30", 2100)
    street.run("approver", "claims", "submit", again["id"], "--yes")
    refuse = ("claims", "refuse", again["id"], "--reason", "form 3 lacks")
    assert street.declined("operator", *refuse)
    assert street.read("operator", *refuse, "--yes")["state"] == "refused"
    assert {row["state"] for row in street.read("factory", "claims", "own")["items"]} == {"refused"}


def test_an_authority_report_is_previewed_issued_and_compared(street: Terminal, tmp_path: Path) -> None:
    street.market.award("model", 30_000)
    assert "awarded_fen" in street.run("auditor", "reports", "preview", "2026-11")
    assert "2026-11-03--2026-12-15" in get_args(Period)[1].help
    assert "awarded_fen" in street.run("auditor", "reports", "preview", "2026-11-03--2026-11-30")
    assert street.refused("operator", "reports", "issue", "2026-11", "--yes") == "period_running"
    street.market.now = shanghai(2026, 12, 1)
    street.sign_in("operator", "auditor", "factory")
    assert street.declined("operator", "reports", "issue", "2026-11")
    asked = street.invoke("operator", "reports", "issue", "2026-11-03--2026-11-30", typed="n\n").output
    assert "Every month that its days touch is closed whole" in asked
    assert street.refused("auditor", "reports", "issue", "2026-11", "--yes") == "forbidden"
    issued = street.read("operator", "reports", "issue", "2026-11", "--yes")
    assert street.read("auditor", "reports", "list")["items"] == [issued]
    for form in ("json", "csv"):
        street.run("auditor", "reports", "download", "2026-11", "--format", form, "--to", str(tmp_path / f"r.{form}"))
    assert json.loads((tmp_path / "r.json").read_text())["period"] == "2026-11"
    assert "awarded_fen,30000" in (tmp_path / "r.csv").read_text()
    assert "30,000" in street.run("auditor", "reports", "changes", "2026-11")
    assert street.refused("factory", "reports", "list") == "forbidden"
    assert street.refused("auditor", "reports", "download", "2026-10") == "not_found"


def test_an_issued_report_has_a_file_name_of_its_own(
    street: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    street.market.now = shanghai(2026, 12, 1)
    street.sign_in("operator")
    street.run("operator", "reports", "issue", "2026-11", "--yes")
    for form in ("json", "csv"):
        made = street.read("operator", "reports", "download", "2026-11", "--format", form)
        assert made == {"file": f"authority-report-2026-11.{form}"}


def test_owners_are_declared_confirmed_and_a_pair_decided(street: Terminal) -> None:
    buyer, seller = (street.market.owner(who) for who in ("factory", "provider"))
    for who in ("factory", "provider"):
        owner = street.read(who, "related", "declare", "王建国", "--share-bp", "5100")
    waiting = street.read("auditor", "related", "unconfirmed")["items"]
    assert [row["organisation_id"] for row in waiting] == [buyer, seller]
    assert street.refused("factory", "related", "unconfirmed") == "forbidden"
    assert street.read("operator", "related", "confirm", owner["id"])["confirmed"] is True
    assert street.refused("provider", "related", "end", owner["id"], "--yes") == "forbidden"
    assert "王建国" in street.run("auditor", "related", "owners", "--organisation", seller)
    assert street.refused("rival", "related", "owners", "--organisation", seller) == "not_found"
    assert street.read("auditor", "related", "show", buyer, seller)["blocks"] is True
    words = ("related", "decide", buyer, seller, "cleared", "--reason", "namesakes, cards seen")
    assert street.declined("operator", *words)
    assert street.refused("auditor", *words, "--yes") == "forbidden"
    made = street.read("operator", *words, "--yes")
    assert street.read("auditor", "related", "decisions")["items"] == [made]
    assert "namesakes" in street.run("auditor", "related", "show", buyer, seller)
    assert street.refused("factory", "related", "decisions") == "forbidden"


def test_a_lost_gateways_slice_is_closed_by_the_operator(terminal: Terminal) -> None:
    market = terminal.market
    piece: Any = market.draw("lost", want_ufen=499_000_000)
    market.now += timedelta(hours=1)
    assert piece.allowance_id in terminal.run("auditor", "meters", "allowances")
    words = ("meters", "close-allowance", piece.allowance_id, "--reason", "its host burnt")
    assert terminal.refused("auditor", *words, "--yes") == "forbidden"
    assert terminal.declined("operator", *words)
    assert terminal.read("operator", *words, "--yes")["state"] == "closed"
    assert terminal.read("auditor", "meters", "allowances")["items"] == []
    assert terminal.read("auditor", "meters", "engines")["items"] == []
    assert terminal.refused("factory", "meters", "engines") == "forbidden"
