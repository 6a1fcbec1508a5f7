"""`guanmo ledger`: accounts, their entries and the totals over the hub's address; `check` runs the invariants here.

`check` opens the installation's own database and leaves the invariants to `hub.ledger.invariants`. A firm's sums are in
`guanmo wallet`.
"""

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, call, segment
from hub.cli.showing import choose, local_time, show, show_whole, speaks_chinese, yuan
from hub.database import open_sessions
from hub.ledger.invariants import Finding, check_invariants
from hub.settings import read_settings

ledger = typer.Typer(no_args_is_help=True)


@ledger.callback()
def describe() -> None:
    """The books."""


@ledger.command("check")
def check(
    only: Annotated[list[str] | None, typer.Argument(help="ids such as I3; all when left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Check the invariants I1 to I24; exits 1 where one is broken."""
    sessions = open_sessions(read_settings(os.environ).database_url)
    with sessions.read() as session:
        findings = check_invariants(session, only or None)
    sessions.close()
    if as_json:
        print(json.dumps({found.invariant.id: found.broken for found in findings}))
    else:
        _show(findings)
    if any(found.broken for found in findings):
        raise typer.Exit(1)


@ledger.command("accounts")
def list_accounts(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List the accounts of an organisation; those of the platform are `--organisation platform`."""
    told = call(hub, key, "GET", "ledger/accounts", query={"organisation_id": organisation})
    rows = [
        [row["id"], row["kind"], row["subject"], row["period"], yuan(row["balance_fen"]), yuan(row["available_fen"])]
        for row in told["items"]
    ]
    heads = choose("账户 类别 对象 期间 余额 可用", "account kind subject period balance available")
    show(told, rows, heads.split(), as_json=as_json)


@ledger.command("entries")
def list_entries(
    account_id: Annotated[str, typer.Argument(help="account acc_…")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    before: Annotated[int | None, typer.Option(help="those below this version, as the page before ends")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List an account's entries, newest first, each with the balance after it."""
    path = f"ledger/accounts/{segment(account_id)}/entries"
    told = call(hub, key, "GET", path, query={"before_version": before, "limit": limit})
    rows = [
        [
            str(row["version"]),
            local_time(row["recorded_at"], timespec="seconds"),
            *(row[name] for name in ("leg", "code", "business_id")),
            *(yuan(row[name]) for name in ("amount_fen", "balance_fen", "held_fen")),
        ]
        for row in told["items"]
    ]
    account = told["account"]
    facts = [
        (choose("账户", "account"), f"{account['id']} {account['kind']}"),
        (choose("余额", "balance"), yuan(account["balance_fen"])),
        (choose("可用", "available"), yuan(account["available_fen"])),
    ]
    heads = choose("版本 时间 方向 事由 业务 金额 余额 冻结", "version at leg code business amount balance held")
    show_whole(told, facts, rows, heads.split(), as_json=as_json)


@ledger.command("trial-balance")
def show_trial_balance(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show the totals of all accounts by kind; both sums are zero (operator, auditor)."""
    told = call(hub, key, "GET", "ledger/trial-balance")
    sides = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
    rows = [[row["kind"], str(row["accounts"]), *(yuan(row[side]) for side in sides)] for row in told["totals"]]
    facts = [
        (choose("已记账之和", "sum of what is posted"), yuan(told["posted_sum_fen"])),
        (choose("冻结之和", "sum of what is held"), yuan(told["pending_sum_fen"])),
    ]
    heads = choose("类别 账户数 借冻结 借记账 贷冻结 贷记账", "kind accounts debits_held debits credits_held credits")
    show_whole(told, facts, rows, heads.split(), as_json=as_json)


def _show(findings: list[Finding]) -> None:
    chinese = speaks_chinese()
    table = Table("", "invariant 恒等式", "broken 违反", "first 示例", box=None)
    for found in findings:
        law = found.invariant
        sentence = law.sentence_zh if chinese else law.sentence
        table.add_row(law.id, sentence, str(found.broken), "; ".join(found.examples))
    Console(highlight=False).print(table)
