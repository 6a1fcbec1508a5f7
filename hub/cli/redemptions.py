"""`guanmo redemptions`: a firm asks its grant for the share of what it paid; two officers check and approve.

Over the hub's address; it leaves what fits and what is paid to the service.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, local_time, show, show_facts, yuan

redemptions = typer.Typer(no_args_is_help=True)
GrantId = Annotated[str, typer.Argument(help="grant grt_…")]
RedemptionId = Annotated[str, typer.Argument(help="redemption red_…")]


@redemptions.callback()
def describe() -> None:
    """Redemptions: pay first, get the voucher's share back."""


@redemptions.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[str | None, typer.Option(help="requested, checked, paid, refused or withdrawn")] = None,
    as_json: AsJson = False,
) -> None:
    """List redemptions, newest first: the own firm's, all for operator and auditor."""
    told = call(hub, key, "GET", "redemptions", query={"state": state})
    money = ("eligible_fen", "amount_fen", "taken_back_fen")
    rows = [
        [row["id"], row["grant_id"], row["state"], *(yuan(row[name]) for name in money), row["reason"]]
        for row in told["items"]
    ]
    heads = choose("兑付 券 状态 合格费用 兑付金额 已追回 说明", "redemption grant state fees amount back reason")
    show(told, rows, heads.split(), as_json=as_json)


@redemptions.command("show")
def show_one(redemption_id: RedemptionId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a redemption with its charges, and who checked and approved it."""
    _tell(call(hub, key, "GET", f"redemptions/{segment(redemption_id)}"), as_json=as_json)


@redemptions.command("redeemable")
def list_redeemable(grant_id: GrantId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List the charges that an own grant could pay back."""
    told = call(hub, key, "GET", f"grants/{segment(grant_id)}/redeemable")
    rows = [
        [row["id"], row["month"], row["meter"], yuan(row["fee_fen"]), local_time(row["charged_at"])[:10]]
        for row in told["items"]
    ]
    heads = choose("费用 账期 计量 合格金额 日期", "charge month meter counts date")
    show(told, rows, heads.split(), as_json=as_json)


@redemptions.command("request")
def request(
    grant_id: GrantId,
    key: Key,
    charges: Annotated[list[str] | None, typer.Argument(help="charges as `redeemable` lists them")] = None,
    hub: Hub = DEFAULT_HUB,
    everything: Annotated[bool, typer.Option("--all", help="every charge that `redeemable` lists")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Ask for the share of charges paid in full; an award without a share is asked for whole, without charges."""
    ids = charges or []
    if everything:
        ids = [row["id"] for row in call(hub, key, "GET", f"grants/{segment(grant_id)}/redeemable")["items"]]
    confirm(
        f"就 {len(ids)} 笔费用向 {grant_id} 申请兑付，每笔只兑付一次。继续？",
        f"Ask {grant_id} to pay back {len(ids)} charges? Each is paid back once.",
        yes=yes,
    )
    made = call(hub, key, "POST", f"grants/{segment(grant_id)}/redemptions", {"charge_ids": ids})
    _tell(made, as_json=as_json)


@redemptions.command("withdraw")
def withdraw(
    redemption_id: RedemptionId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Take an own request back before anybody checked it; its charges may be asked for again."""
    confirm(f"撤回兑付 {redemption_id}？", f"Take redemption {redemption_id} back?", yes=yes)
    _tell(call(hub, key, "POST", f"redemptions/{segment(redemption_id)}/withdrawal"), as_json=as_json)


@redemptions.command("check")
def check(redemption_id: RedemptionId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Check a request as the first officer."""
    _review(hub, key, redemption_id, "check", "", as_json=as_json)


@redemptions.command("approve")
def approve(
    redemption_id: RedemptionId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Approve a checked request as another officer; the money goes to the firm at once."""
    row = call(hub, key, "GET", f"redemptions/{segment(redemption_id)}")
    confirm(
        f"批准 {redemption_id}：立即向企业支付 {yuan(row['amount_fen'])}。继续？",
        f"Approve {redemption_id}: {yuan(row['amount_fen'])} goes to the firm at once?",
        yes=yes,
    )
    _review(hub, key, redemption_id, "approve", "", as_json=as_json)


@redemptions.command("refuse")
def refuse(
    redemption_id: RedemptionId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="what is wrong; the firm reads it")],
    hub: Hub = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Refuse a request with a reason, at either step; its charges may be asked for again."""
    _review(hub, key, redemption_id, "refuse", reason, as_json=as_json)


def _review(hub: str, key: str, redemption_id: str, decision: str, reason: str, *, as_json: bool) -> None:
    body = {"decision": decision, "reason": reason}
    _tell(call(hub, key, "POST", f"redemptions/{segment(redemption_id)}/reviews", body), as_json=as_json)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    lines = [(line["charge_id"], yuan(line["fee_fen"])) for line in row.get("lines", [])]
    show_facts(
        row,
        [
            (choose("兑付", "redemption"), row["id"]),
            (choose("券", "grant"), row["grant_id"]),
            (choose("状态", "state"), row["state"]),
            (choose("合格费用", "fees that count"), yuan(row["eligible_fen"])),
            (choose("兑付金额", "amount"), yuan(row["amount_fen"])),
            (choose("已追回", "taken back"), yuan(row["taken_back_fen"]) if row.get("taken_back_fen") else ""),
            (choose("申请", "requested"), f"{row['requested_by']} {local_time(row['created_at'])}"),
            (choose("初审", "checked"), row["checked_by"] or ""),
            (choose("批准", "approved"), row["approved_by"] or ""),
            (choose("说明", "reason"), row["reason"]),
            *lines,
        ],
        as_json=as_json,
    )
