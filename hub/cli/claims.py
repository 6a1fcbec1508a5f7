"""`guanmo claims`: one officer drafts what the authority owes, another submits the pack; payment, reconciliation.

Over the hub's address; it leaves what may be claimed to the service. A firm sees its own lines with `own`.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Period, Target, Yes, call, confirm, download, segment
from hub.cli.showing import choose, choose_text, local_time, show, show_file, show_whole, yuan

claims = typer.Typer(no_args_is_help=True)
ClaimId = Annotated[str, typer.Argument(help="claim clm_…")]
HEADS = ("申报 项目 编号 期间 状态 金额 到账 差额", "claim programme number period state amount paid difference")
LINE_HEADS = ("行 机构 券 转账 金额 入账", "line organisation grant transfer amount booked")


@claims.callback()
def describe() -> None:
    """Claims on the authority: draft, pack, submit, paid or refuse, reconcile."""


@claims.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[
        str | None, typer.Option(help="drafted, submitted, paid, reconciled, withdrawn or refused")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List claims, newest first (operator, auditor)."""
    told = call(hub, key, "GET", "claims", query={"state": state})
    show(told, [_row(row) for row in told["items"]], choose(*HEADS).split(), as_json=as_json)


@claims.command("show")
def show_one(claim_id: ClaimId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a claim with its lines and what was left out."""
    _tell(call(hub, key, "GET", f"claims/{segment(claim_id)}"), as_json=as_json)


@claims.command("own")
def list_own(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List what of the own vouchers was claimed."""
    told = call(hub, key, "GET", "claim-lines")
    rows = [
        [str(row["claim"]), row["period"], row["state"], row["grant_id"], row["transfer_id"], yuan(row["amount_fen"])]
        for row in told["items"]
    ]
    show(
        told,
        rows,
        choose("申报 期间 状态 券 转账 金额", "claim period state grant transfer amount").split(),
        as_json=as_json,
    )


@claims.command("draft")
def draft(
    programme: Annotated[str, typer.Argument(help="programme, for example model")],
    period: Period,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    organisation: Annotated[str | None, typer.Option(help="one firm org_…; all when left out")] = None,
    as_json: AsJson = False,
) -> None:
    """Draft a claim of what is used and not claimed yet (operator): up to a period's end, or of the days of a range."""
    body = {"programme": programme, "period": period, "organisation_id": organisation}
    _tell(call(hub, key, "POST", "claims", body), as_json=as_json)


@claims.command("pack")
def download_pack(
    claim_id: ClaimId, key: Key, hub: Hub = DEFAULT_HUB, target: Target = None, as_json: AsJson = False
) -> None:
    """Download the claim's ZIP; once submitted, exactly the bytes that were."""
    show_file(download(hub, key, f"claims/{segment(claim_id)}/pack", target), as_json=as_json)


@claims.command("submit")
def submit(claim_id: ClaimId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """Seal the pack by its sha256 and hand the claim in, as another person than its author."""
    row = call(hub, key, "GET", f"claims/{segment(claim_id)}")
    confirm(
        f"提交 {claim_id}：申报 {yuan(row['amount_fen'])}，材料包随即封存。继续？",
        f"Submit {claim_id} over {yuan(row['amount_fen'])}? Its pack is sealed.",
        yes=yes,
    )
    _tell(call(hub, key, "POST", f"claims/{segment(claim_id)}/submission"), as_json=as_json)


@claims.command("withdraw")
def withdraw(
    claim_id: ClaimId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="why the draft is taken back")],
    hub: Hub = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Take a draft back; its money can be claimed again."""
    _tell(call(hub, key, "POST", f"claims/{segment(claim_id)}/withdrawal", {"reason": reason}), as_json=as_json)


@claims.command("refuse")
def refuse(
    claim_id: ClaimId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="why, as the authority says")],
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Note that the authority refused a submitted claim or sent it back; its money can be claimed again."""
    confirm(
        f"登记主管部门退回 {claim_id}，其金额可重新申报。继续？",
        f"Note that the authority refused {claim_id}? Its money can be claimed again.",
        yes=yes,
    )
    _tell(call(hub, key, "POST", f"claims/{segment(claim_id)}/refusal", {"reason": reason}), as_json=as_json)


@claims.command("paid")
def record_payment(
    claim_id: ClaimId,
    amount_fen: Annotated[int, typer.Option("--amount-fen", help="what came in; negative where it was repaid")],
    reference: Annotated[str, typer.Option("--reference", help="the bank's own")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Book what the authority paid on a submitted claim."""
    confirm(
        f"登记 {claim_id} 到账 {yuan(amount_fen)}（流水号 {reference}）。继续？",
        f"Book {yuan(amount_fen)} ({reference}) on {claim_id}?",
        yes=yes,
    )
    body = {"paid_fen": amount_fen, "reference": reference}
    _tell(call(hub, key, "POST", f"claims/{segment(claim_id)}/payment", body), as_json=as_json)


@claims.command("reconcile")
def reconcile(
    claim_id: ClaimId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    reason: Annotated[str, typer.Option("--reason", help="needed where another amount was paid")] = "",
    as_json: AsJson = False,
) -> None:
    """Close a paid claim; a difference needs its reason."""
    _tell(call(hub, key, "POST", f"claims/{segment(claim_id)}/reconciliation", {"reason": reason}), as_json=as_json)


def _row(row: dict[str, Any]) -> list[str]:
    texts = [row["id"], row["programme"], str(row["number"]), row["period"], row["state"]]
    return [*texts, *(yuan(row[name]) for name in ("amount_fen", "paid_fen", "difference_fen"))]


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    left_out = [
        (choose("未纳入", "left out"), f"{item['transfer_id']} {yuan(item['amount_fen'])} {choose_text(item)}")
        for item in row["left_out"]
    ]
    facts = [
        (choose("申报", "claim"), row["id"]),
        (choose("项目", "programme"), f"{row['programme']} {row['number']}"),
        (choose("期间", "period"), row["period"]),
        (choose("机构", "organisation"), row["organisation_id"] or ""),
        (choose("状态", "state"), row["state"]),
        (choose("金额", "amount"), yuan(row["amount_fen"])),
        (choose("到账", "paid"), yuan(row["paid_fen"])),
        (choose("差额", "difference"), yuan(row["difference_fen"])),
        (choose("流水号", "bank reference"), row["reference"] or ""),
        (choose("说明", "reason"), row["reason"] or ""),
        (choose("材料包 sha256", "pack sha256"), row["pack_sha256"] or ""),
        (choose("起草", "drafted by"), row["drafted_by"]),
        (choose("提交", "submitted by"), row["submitted_by"] or ""),
        *left_out,
    ]
    lines = [
        [
            str(line["position"]),
            line["organisation_id"],
            line["grant_id"],
            line["transfer_id"],
            yuan(line["amount_fen"]),
            local_time(line["booked_at"]),
        ]
        for line in row.get("lines", [])
    ]
    show_whole(row, facts, lines, choose(*LINE_HEADS).split(), as_json=as_json)
