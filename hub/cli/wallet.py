"""`guanmo wallet`: what a firm has, holds and earned; the operator books what arrived at the bank.

Over the hub's address; single entries are in `guanmo ledger`, vouchers in `guanmo grants`.
"""

from typing import Annotated

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Yes, call, confirm
from hub.cli.showing import choose, choose_text, show, show_facts, yuan

wallet = typer.Typer(no_args_is_help=True)
MONEY = (
    ("余额", "balance", "balance_fen"),
    ("冻结", "held", "held_fen"),
    ("可用", "available", "available_fen"),
    ("可付收入", "earned, to be paid out", "payable_fen"),
)


@wallet.callback()
def describe() -> None:
    """A firm's own money."""


@wallet.command("show")
def show_wallet(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """Show cash, what of it is held, and earnings."""
    told = call(hub, key, "GET", "wallet", query={"organisation_id": organisation})
    facts = [(choose("机构", "organisation"), told["organisation_id"])]
    facts += [(choose(zh, en), yuan(told[name])) for zh, en, name in MONEY]
    show_facts(told, facts, as_json=as_json)


@wallet.command("deposit")
def deposit(
    organisation_id: Annotated[str, typer.Argument(help="org_… whose money arrived")],
    amount_fen: Annotated[int, typer.Option("--amount-fen", help="what arrived, in fen")],
    reference: Annotated[str, typer.Option("--reference", help="the bank's own; booked once")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Book a deposit that arrived at the bank (operator)."""
    confirm(
        f"为 {organisation_id} 登记到账 {yuan(amount_fen)}（流水号 {reference}），企业可立即使用。继续？",
        f"Book {yuan(amount_fen)} ({reference}) for {organisation_id}? The firm may spend it at once.",
        yes=yes,
    )
    body = {"organisation_id": organisation_id, "amount_fen": amount_fen, "reference": reference}
    told = call(hub, key, "POST", "deposits", body)
    facts = [(choose("转账", "transfer"), told["transfer_id"])]
    facts += [(choose(zh, en), yuan(told["wallet"][name])) for zh, en, name in MONEY]
    show_facts(told, facts, as_json=as_json)


@wallet.command("earnings")
def list_earnings(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List what an organisation received of others' charges, newest first."""
    told = call(hub, key, "GET", "earnings", query={"organisation_id": organisation})
    rows = [
        [row["charge_id"], row["month"], row["party"], choose_text(row["title"]), row["meter"], yuan(row["amount_fen"])]
        for row in told["items"]
    ]
    show(
        told,
        rows,
        choose("费用 账期 角色 名称 计量 收入", "charge month party title meter earned").split(),
        as_json=as_json,
    )
