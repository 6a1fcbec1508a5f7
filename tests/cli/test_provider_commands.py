"""The commands of money as a provider walks through them, against a running hub: key, device time, rentals, payouts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hub.compute.meter_rules import Report, sign_report
from hub.errors import InvalidValueError
from tests.cli.terminal import Terminal, terminal
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.orders.conftest import rich
from tests.hub.orders.test_rentals import HOUR_MS, Shop
from tests.hub.vouchers.steps import assert_books

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "terminal"]


def rent(terminal: Terminal, shop: Shop) -> str:
    made: str = terminal.read("factory", "rentals", "rent", shop.offer.id, "--yes", "--idempotency-key", "r-1")["id"]
    return made


def send(shop: Shop, rental_id: str, seq: int, device_ms: int, *, at: int) -> str:
    """Report device time as the provider's program does, and return the report's id."""
    plain = Report(rental_id, seq, "gpu-0", device_ms, shop.later(at), "")
    return shop.send(replace(plain, signature=sign_report(shop.key, plain))).id


def test_a_rental_from_estimate_to_payout_by_firm_provider_and_operator(terminal: Terminal) -> None:
    shop = Shop(terminal.market)
    assert terminal.read("factory", "rentals", "estimate", shop.offer.id)["voucher_fen"] == 600
    assert terminal.declined("factory", "rentals", "rent", shop.offer.id)
    rental = rent(terminal, shop)
    assert rent(terminal, shop) == rental
    assert terminal.declined("provider", "meters", "key", shop.provider_id)
    assert terminal.refused("factory", "meters", "key", shop.provider_id, "--yes") == "forbidden"
    shop.key = terminal.read("provider", "meters", "key", shop.provider_id, "--yes")["key"]
    send(shop, rental, 1, 900_000, at=900)
    doubtful = send(shop, rental, 2, 9_000_000, at=1800)
    terminal.market.now += timedelta(minutes=30)
    assert [row["id"] for row in terminal.read("operator", "meters", "list")["items"]] == [doubtful]
    assert "more_than_elapsed" in terminal.run("provider", "meters", "list")
    assert terminal.refused("factory", "meters", "list") == "forbidden"
    words = ("meters", "accept", doubtful, "--reason", "the clock ran on", "--device-ms", "1800000")
    for who in ("auditor", "provider"):
        assert terminal.refused(who, *words, "--yes") == "forbidden"
    assert terminal.declined("operator", *words)
    assert terminal.read("operator", *words, "--yes")["counted_ms"] == 1_800_000
    assert [row["seq"] for row in terminal.read("factory", "rentals", "device-time", rental)["items"]] == [1, 2]
    assert "--after" in terminal.run("factory", "rentals", "device-time", rental, "--limit", "1")
    assert terminal.refused("rival", "rentals", "device-time", rental) == "not_found"
    more = terminal.read("factory", "rentals", "extend", rental, "--hours", "0.5", "--yes")
    assert more["limit_ms"] == HOUR_MS + HOUR_MS // 2
    assert terminal.declined("factory", "rentals", "end", rental)
    assert "released" in terminal.run("factory", "rentals", "end", rental, "--yes")
    assert sum(order["charged_fen"] for order in terminal.read("factory", "rentals", "show", rental)["orders"]) == 600
    assert rental in terminal.run("provider", "rentals", "list", "--state", "released")
    pay_out(terminal)
    assert_books(terminal.market)


def pay_out(terminal: Terminal) -> None:
    """The provider asks for its 600 fen; the bank is silent, and another officer than the sender settles."""
    assert sum(row["amount_fen"] for row in terminal.read("provider", "wallet", "earnings")["items"]) == 600
    assert "¥6.00" in terminal.run("provider", "wallet", "earnings")
    words = ("payouts", "request", "--amount-fen", "600", "--idempotency-key", "p-1")
    assert terminal.declined("provider", *words)
    asked = terminal.read("provider", *words, "--yes")
    assert terminal.read("provider", *words, "--yes")["id"] == asked["id"]
    assert terminal.refused("rival", "payouts", "withdraw", asked["id"], "--yes") == "not_found"
    assert terminal.declined("provider", "payouts", "withdraw", asked["id"])
    assert terminal.read("provider", "payouts", "withdraw", asked["id"], "--yes")["state"] == "withdrawn"
    asked = terminal.read("provider", *words[:-1], "p-2", "--yes")
    assert terminal.refused("provider", "payouts", "request", "--amount-fen", "1", "--yes") == "not_enough_earned"
    assert terminal.refused("provider", "payouts", "send", asked["id"], "--yes") == "forbidden"
    assert terminal.declined("checker", "payouts", "send", asked["id"])
    assert terminal.read("checker", "payouts", "send", asked["id"], "--yes")["state"] == "in_payout"
    with pytest.raises(InvalidValueError, match="not both"):
        terminal.run("checker", "payouts", "settle", asked["id"], "--yes")
    assert terminal.read("checker", "payouts", "unknown", asked["id"], "--reason", "silent")["state"] == "unknown"
    settled = ("payouts", "settle", asked["id"], "--paid", "B-1", "--reason", "seen in the statement", "--yes")
    assert terminal.refused("checker", *settled) == "four_eyes"
    assert "B-1" in terminal.run("approver", *settled)
    assert "paid" in terminal.run("provider", "payouts", "list")
    assert terminal.read("auditor", "payouts", "show", asked["id"])["state"] == "paid"
    assert terminal.refused("rival", "payouts", "show", asked["id"]) == "not_found"


def test_a_provider_ends_a_faulty_rental_and_the_firm_has_its_money_back(terminal: Terminal) -> None:
    shop = Shop(terminal.market)
    rental = rent(terminal, shop)
    words = ("rentals", "fail", rental, "--reason", "the card fell off")
    assert terminal.declined("provider", *words)
    assert terminal.read("provider", *words, "--yes")["fault"] == "provider"
    assert terminal.read("factory", "wallet", "show")["available_fen"] == 10_000
    assert "off" in terminal.run("operator", "rentals", "list")


def test_a_rejected_report_counts_for_nothing(terminal: Terminal) -> None:
    shop = Shop(terminal.market)
    rental = rent(terminal, shop)
    doubtful = send(shop, rental, 1, 9_000_000, at=1800)
    rejected = terminal.read("operator", "meters", "reject", doubtful, "--reason", "not possible")
    assert (rejected["state"], rejected["counted_ms"]) == ("rejected", None)
    assert "not possible" in terminal.run("operator", "meters", "reject", doubtful, "--reason", "not possible")
    assert terminal.read("auditor", "meters", "list", "--state", "all")["items"] == [rejected]
