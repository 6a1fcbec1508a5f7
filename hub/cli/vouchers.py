"""`guanmo vouchers`: a firm applies, completes, withdraws and appeals; one officer checks, another approves and awards.

Over the hub's address; what was awarded is in `guanmo grants`, the rules in `guanmo programmes`.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.papers import Papers, keep_papers
from hub.cli.showing import choose, choose_text, local_time, show, show_whole, yuan

vouchers = typer.Typer(no_args_is_help=True)
ApplicationId = Annotated[str, typer.Argument(help="application app_…")]
Reason = Annotated[str, typer.Option("--reason", help="the firm reads it")]
REVIEW_HEADS = ("轮次 决定 审核人 时间 理由", "round decision by at reason")


@vouchers.callback()
def describe() -> None:
    """Applications for vouchers: apply, check, approve, return, refuse, appeal."""


@vouchers.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[
        str | None, typer.Option(help="submitted, checked, returned, approved, refused, appealed or withdrawn")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List applications, newest first: the own firm's, all for operator and auditor."""
    told = call(hub, key, "GET", "voucher-applications", query={"state": state})
    rows = [
        [
            row["id"],
            row["organisation_id"],
            row["programme"],
            row["contract_no"],
            yuan(row["asked_fen"]),
            row["state"],
            str(row["round"]),
            local_time(row["created_at"]),
        ]
        for row in told["items"]
    ]
    heads = choose(
        "申请 机构 项目 合同 金额 状态 轮次 提交", "application organisation programme contract asked state round at"
    )
    show(told, rows, heads.split(), as_json=as_json)


@vouchers.command("show")
def show_one(application_id: ApplicationId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show an application with its papers and every decision on it."""
    _tell(call(hub, key, "GET", _path(application_id)), as_json=as_json)


@vouchers.command("apply")
def apply(
    programme: Annotated[str, typer.Argument(help="programme, for example model")],
    amount_fen: Annotated[int, typer.Option("--amount-fen", help="what is asked for, in fen")],
    contract: Annotated[str, typer.Option("--contract", help="number of the contract")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    papers: Papers = None,
    tier: Annotated[str | None, typer.Option(help="label of a tier, where the rule has tiers")] = None,
    as_json: AsJson = False,
) -> None:
    """Apply for a voucher on a contract, with the papers that the rule asks for."""
    body = {"programme": programme, "asked_fen": amount_fen, "contract_no": contract, "tier": tier}
    evidence = keep_papers(hub, key, papers)
    _tell(call(hub, key, "POST", "voucher-applications", {**body, "evidence": evidence}), as_json=as_json)


@vouchers.command("complete")
def complete(
    application_id: ApplicationId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    amount_fen: Annotated[int | None, typer.Option("--amount-fen", help="as before when left out")] = None,
    papers: Papers = None,
    as_json: AsJson = False,
) -> None:
    """Complete a returned application and hand it in again; papers given before stay."""
    asked = amount_fen
    if asked is None:
        asked = call(hub, key, "GET", _path(application_id))["asked_fen"]
    body = {"asked_fen": asked, "evidence": keep_papers(hub, key, papers)}
    _tell(call(hub, key, "POST", _path(application_id, "resubmission"), body), as_json=as_json)


@vouchers.command("withdraw")
def withdraw(
    application_id: ApplicationId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Take an application back."""
    confirm(f"撤回 {application_id}？不能恢复。", f"Take {application_id} back? It cannot come again.", yes=yes)
    _tell(call(hub, key, "POST", _path(application_id, "withdrawal")), as_json=as_json)


@vouchers.command("appeal")
def appeal(
    application_id: ApplicationId, key: Key, reason: Reason, hub: Hub = DEFAULT_HUB, as_json: AsJson = False
) -> None:
    """Appeal a refusal, once; a person who has not decided before decides."""
    _tell(call(hub, key, "POST", _path(application_id, "appeal"), {"reason": reason}), as_json=as_json)


@vouchers.command("check")
def check(
    application_id: ApplicationId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    reason: Annotated[str, typer.Option("--reason", help="a note")] = "",
    as_json: AsJson = False,
) -> None:
    """Check an application as the first officer."""
    _review(hub, key, application_id, {"decision": "check", "reason": reason}, as_json=as_json)


@vouchers.command("approve")
def approve(
    application_id: ApplicationId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    granted_fen: Annotated[int | None, typer.Option("--granted-fen", help="award less than asked")] = None,
    reason: Annotated[str, typer.Option("--reason", help="a note")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Approve a checked application as another officer; the voucher is awarded at once."""
    row = call(hub, key, "GET", _path(application_id))
    amount = yuan(row["asked_fen"] if granted_fen is None else granted_fen)
    confirm(
        f"批准 {application_id}：立即从资金池授予 {amount} 给 {row['organisation_id']}。继续？",
        f"Approve {application_id}: {amount} of the fund goes to {row['organisation_id']} at once?",
        yes=yes,
    )
    body = {"decision": "approve", "reason": reason, "granted_fen": granted_fen}
    _review(hub, key, application_id, body, as_json=as_json)


@vouchers.command("return")
def send_back(
    application_id: ApplicationId, key: Key, reason: Reason, hub: Hub = DEFAULT_HUB, as_json: AsJson = False
) -> None:
    """Return an application for completion, with what is missing."""
    _review(hub, key, application_id, {"decision": "return", "reason": reason}, as_json=as_json)


@vouchers.command("refuse")
def refuse(
    application_id: ApplicationId, key: Key, reason: Reason, hub: Hub = DEFAULT_HUB, as_json: AsJson = False
) -> None:
    """Refuse an application with a reason; the firm may appeal once."""
    _review(hub, key, application_id, {"decision": "refuse", "reason": reason}, as_json=as_json)


def _path(application_id: str, step: str = "") -> str:
    return f"voucher-applications/{segment(application_id)}{f'/{step}' if step else ''}"


def _review(hub: str, key: str, application_id: str, body: dict[str, Any], *, as_json: bool) -> None:
    _tell(call(hub, key, "POST", _path(application_id, "reviews"), body), as_json=as_json)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    papers = [
        (choose("材料", "paper"), f"{paper['kind']}: {paper['name']} {paper['digest']}") for paper in row["evidence"]
    ]
    facts = [
        (choose("申请", "application"), row["id"]),
        (choose("机构", "organisation"), row["organisation_id"]),
        (choose("项目", "programme"), f"{row['programme']} {choose_text(row['title'])}"),
        (choose("合同", "contract"), row["contract_no"]),
        (choose("档次", "tier"), row["tier"] or ""),
        (choose("申请金额", "asked"), yuan(row["asked_fen"])),
        (choose("状态", "state"), row["state"]),
        (choose("申诉", "appeal"), row["appeal"] or ""),
        (choose("提交", "handed in"), f"{row['applicant_id']} {local_time(row['created_at'])}"),
        *papers,
    ]
    reviews = [
        [
            str(review["round"]),
            review["decision"],
            review["actor_id"],
            local_time(review["created_at"]),
            review["reason"],
        ]
        for review in row["reviews"]
    ]
    show_whole(row, facts, reviews, choose(*REVIEW_HEADS).split(), as_json=as_json)
