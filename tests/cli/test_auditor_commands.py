"""The auditor's commands of money, against a running hub: everything is read, nothing is written."""

import pytest

from hub.actor import Role
from tests.cli.terminal import Terminal, terminal
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.orders.conftest import rich
from tests.hub.vouchers.steps import assert_books

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "terminal"]

READS = (
    "wallet show",
    "wallet earnings",
    "quotes list",
    "orders list",
    "vouchers list",
    "grants list",
    "claims list",
    "claims own",
    "redemptions list",
    "corrections list",
    "reports list",
    "reports preview 2026-11",
    "statements list",
    "statements show",
    "payouts list",
    "rentals list",
    "meters list",
    "meters allowances",
    "meters engines",
    "related owners",
    "related unconfirmed",
    "related decisions",
    "ledger accounts",
    "ledger accounts --organisation platform",
    "ledger trial-balance",
    "machines list",
)
WRITES = (
    "wallet deposit {firm} --amount-fen 1 --reference x --yes",
    "vouchers apply model --amount-fen 1 --contract x",
    "vouchers check {application}",
    "vouchers approve {application} --yes",
    "vouchers return {application} --reason x",
    "vouchers refuse {application} --reason x",
    "grants revoke {grant} --reason x --yes",
    "claims draft model 2026-11",
    "claims refuse clm_x --reason x --yes",
    "reports issue 2026-10 --yes",
    "statements close {firm} 2026-10 --yes",
    "payouts request --amount-fen 1 --yes",
    "meters reject mtr_x --reason x",
    "related confirm own_x",
    "machines maintain nod_x --yes",
    "machines resume nod_x",
    "related decide {firm} {other} related --reason x --yes",
)


@pytest.mark.parametrize("words", READS)
def test_the_auditor_reads(terminal: Terminal, words: str) -> None:
    assert terminal.market.actors["auditor"].role is Role.AUDITOR
    told = terminal.read("auditor", *words.split())
    assert isinstance(told, dict)
    assert terminal.run("auditor", *words.split())


@pytest.mark.parametrize("words", WRITES)
def test_the_auditor_writes_nothing(terminal: Terminal, words: str) -> None:
    market = terminal.market
    grant = terminal.read("factory", "grants", "list")["items"][0]
    ids = {"grant": grant["id"], "application": grant["application_id"]}
    ids |= {"firm": market.owner("factory"), "other": market.owner("provider")}
    assert terminal.refused("auditor", *words.format(**ids).split()) == "forbidden"
    assert_books(market)


@pytest.mark.parametrize("noun", ["rentals", "vouchers", "claims", "redemptions"])
def test_the_hub_itself_looks_for_a_state_and_refuses_an_unknown_one(terminal: Terminal, noun: str) -> None:
    assert terminal.refused("auditor", noun, "list", "--state", "odd") == "invalid_value"
