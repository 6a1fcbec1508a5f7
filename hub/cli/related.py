"""`guanmo related`: who stands behind a firm, signs between a buyer and a seller, an officer's decision on them.

Over the hub's address; it leaves what a relation stops to vouchers and claims.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, choose_text, local_time, say_yes, show, show_whole

related = typer.Typer(no_args_is_help=True)
OwnerId = Annotated[str, typer.Argument(help="entry own_…")]
Buyer = Annotated[str, typer.Argument(help="buyer org_…")]
Seller = Annotated[str, typer.Argument(help="seller org_…")]
OWNER_HEADS = (
    "条目 机构 类型 名称 代码 持股% 已核实 已结束",
    "entry organisation kind name code share% confirmed ended",
)
RULING_HEADS = ("认定 一方 另一方 结论 迹象 认定人 时间 理由", "decision one other verdict signs by at reason")


@related.callback()
def describe() -> None:
    """Related parties: owners, signs, decisions."""


@related.command("owners")
def list_owners(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List who stands behind a firm: the own one, any for operator and auditor."""
    owner = segment(organisation or _find_own(hub, key))
    _tell_owners(call(hub, key, "GET", f"organisations/{owner}/owners"), as_json=as_json)


@related.command("unconfirmed")
def list_unconfirmed(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List what firms declared and nobody has confirmed yet, oldest first (operator, auditor)."""
    _tell_owners(call(hub, key, "GET", "owners"), as_json=as_json)


@related.command("declare")
def declare(
    name: Annotated[str, typer.Argument(help="of the legal person or holder")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    kind: Annotated[str, typer.Option(help="legal_person or holder")] = "legal_person",
    code: Annotated[str, typer.Option(help="credit code, or the last six of an identity card")] = "",
    share_bp: Annotated[int | None, typer.Option(help="share in hundredths of a percent")] = None,
    organisation: Firm = None,
    as_json: AsJson = False,
) -> None:
    """Declare a legal person or holder of the own firm; an operator of any, confirmed at once."""
    owner = segment(organisation or _find_own(hub, key))
    body = {"kind": kind, "name": name, "code": code, "share_bp": share_bp}
    _tell_owner(call(hub, key, "POST", f"organisations/{owner}/owners", body), as_json=as_json)


@related.command("confirm")
def confirm_owner(owner_id: OwnerId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Confirm what a firm declared (operator); from then on only an operator ends it."""
    _tell_owner(call(hub, key, "POST", f"owners/{segment(owner_id)}/confirmation"), as_json=as_json)


@related.command("end")
def end_owner(owner_id: OwnerId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """End an entry that is true no longer; it stays on record."""
    confirm(f"结束 {owner_id}？", f"End {owner_id}?", yes=yes)
    _tell_owner(call(hub, key, "POST", f"owners/{segment(owner_id)}/end"), as_json=as_json)


@related.command("show")
def show_pair(
    buyer_id: Buyer,
    seller_id: Seller,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    window_days: Annotated[int, typer.Option(min=0, max=730, help="how far back money that goes round counts")] = 90,
    as_json: AsJson = False,
) -> None:
    """Show the signs between a buyer and a seller, and whether they stop vouchers (operator, auditor)."""
    query = {"buyer_id": buyer_id, "seller_id": seller_id, "window_days": window_days}
    told = call(hub, key, "GET", "related-parties", query=query)
    ruling = told["ruling"]
    facts = [
        (choose("购买方", "buyer"), told["buyer_id"]),
        (choose("卖方", "seller"), told["seller_id"]),
        (choose("阻止用券", "stops vouchers"), say_yes(told["blocks"])),
        (choose("认定", "decision"), f"{ruling['verdict']}: {ruling['reason']}" if ruling else ""),
    ]
    rows = [[sign["key"], choose_text(sign)] for sign in told["signs"]]
    show_whole(told, facts, rows, choose("迹象 说明", "sign meaning").split(), as_json=as_json)


@related.command("decide")
def decide(
    buyer_id: Buyer,
    seller_id: Seller,
    verdict: Annotated[str, typer.Argument(help="cleared or related")],
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="what was found; kept with the decision")],
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Decide on a pair (operator): related, or the signs of today cleared; a later sign stops vouchers again."""
    confirm(
        f"认定 {buyer_id} 与 {seller_id} 为 {verdict}，即刻影响用券和申报。继续？",
        f"Decide that {buyer_id} and {seller_id} are {verdict}? Vouchers and claims follow it at once.",
        yes=yes,
    )
    body = {"buyer_id": buyer_id, "seller_id": seller_id, "verdict": verdict, "reason": reason}
    _tell_rulings([call(hub, key, "POST", "related-parties", body)], one=True, as_json=as_json)


@related.command("decisions")
def list_decisions(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List the decisions on pairs, newest first (operator, auditor)."""
    _tell_rulings(call(hub, key, "GET", "related-parties/decisions")["items"], one=False, as_json=as_json)


def _find_own(hub: str, key: str) -> str:
    found: str = call(hub, key, "GET", "me")["organisation"]["id"]
    return found


def _tell_owner(row: dict[str, Any], *, as_json: bool) -> None:
    show(row, [_row(row)], choose(*OWNER_HEADS).split(), as_json=as_json)


def _tell_owners(told: dict[str, Any], *, as_json: bool) -> None:
    show(told, [_row(row) for row in told["items"]], choose(*OWNER_HEADS).split(), as_json=as_json)


def _row(row: dict[str, Any]) -> list[str]:
    share = "" if row["share_bp"] is None else f"{row['share_bp'] / 100:g}"
    texts = [row[name] for name in ("id", "organisation_id", "kind", "name", "code")]
    return [*texts, share, say_yes(row["confirmed"]), say_yes(row["ended"])]


def _tell_rulings(rulings: list[dict[str, Any]], *, one: bool, as_json: bool) -> None:
    rows = [
        [
            row["id"],
            *row["organisation_ids"],
            row["verdict"],
            " ".join(row["signs"]),
            row["decided_by"],
            local_time(row["created_at"]),
            row["reason"],
        ]
        for row in rulings
    ]
    show(rulings[0] if one else {"items": rulings}, rows, choose(*RULING_HEADS).split(), as_json=as_json)
