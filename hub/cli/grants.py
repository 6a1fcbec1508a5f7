"""`guanmo grants`: awarded vouchers with their balances, the papers of their months, revocation.

Over the hub's address; applying is in `guanmo vouchers`, being paid back in `guanmo redemptions`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Target, Yes, call, confirm, download, segment
from hub.cli.papers import keep_paper
from hub.cli.showing import choose, local_time, say_yes, show, show_file, yuan

grants = typer.Typer(no_args_is_help=True)
GrantId = Annotated[str, typer.Argument(help="grant grt_…")]
HEADS = (
    "券 机构 项目 状态 授予 冻结 已用 剩余 退回 失效 终止原因",
    "grant organisation programme state awarded held used left returned lapses reason",
)
PAPER_HEADS = (
    "材料 账期 类型 名称 号码 开票方 金额 已撤下 文件",
    "paper month kind name number issuer amount withdrawn document",
)
MONEY = ("awarded_fen", "held_fen", "settled_fen", "left_fen", "returned_fen")


@grants.callback()
def describe() -> None:
    """Awarded vouchers and their papers."""


@grants.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List vouchers with their balances: the own firm's, all for operator and auditor."""
    told = call(hub, key, "GET", "grants", query={"organisation_id": organisation})
    _tell(told, told["items"], as_json=as_json)


@grants.command("revoke")
def revoke(
    grant_id: GrantId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="the firm reads it")],
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a voucher (operator); what is left goes back to the fund."""
    confirm(
        f"撤销 {grant_id}：剩余额度回到资金池，不能恢复。继续？",
        f"Revoke {grant_id}? What is left goes back to the fund, for good.",
        yes=yes,
    )
    row = call(hub, key, "POST", f"grants/{segment(grant_id)}/revocation", {"reason": reason})
    _tell(row, [row], as_json=as_json)


@grants.command("papers")
def list_papers(grant_id: GrantId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List the papers of a voucher's months."""
    told = call(hub, key, "GET", f"grants/{segment(grant_id)}/papers")
    _tell_papers(told, told["items"], as_json=as_json)


@grants.command("paper")
def open_paper(
    digest: Annotated[str, typer.Argument(help="a document's, as `papers` and `vouchers show` print it")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Download a document that stands behind an application or a month (operator, auditor)."""
    show_file(download(hub, key, f"papers/{segment(digest)}", target), as_json=as_json)


@grants.command("add-paper")
def add_paper(
    grant_id: GrantId,
    month: Annotated[str, typer.Argument(help="2026-11")],
    kind: Annotated[str, typer.Argument(help="contract, invoice, payment, delivery, filing or other")],
    file: Annotated[Path, typer.Argument(help="PDF, PNG, JPEG or text")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    number: Annotated[str, typer.Option(help="an invoice's")] = "",
    issuer: Annotated[str, typer.Option(help="credit code of an invoice's issuer")] = "",
    amount_fen: Annotated[int | None, typer.Option("--amount-fen", help="an invoice's")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a document to a month of a voucher; claims and redemptions need invoice and proof of payment."""
    kept = keep_paper(hub, key, file)
    about = {"month": month, "kind": kind, "number": number, "issuer_uscc": issuer, "amount_fen": amount_fen}
    row = call(hub, key, "POST", f"grants/{segment(grant_id)}/papers", {**kept, **about})
    _tell_papers(row, [row], as_json=as_json)


@grants.command("withdraw-paper")
def withdraw_paper(
    paper_id: Annotated[str, typer.Argument(help="paper pap_…")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take a wrong paper out of later claims; claims drafted before keep it."""
    confirm(f"撤下 {paper_id}？", f"Take {paper_id} out of later claims?", yes=yes)
    row = call(hub, key, "POST", f"papers/{segment(paper_id)}/withdrawal")
    _tell_papers(row, [row], as_json=as_json)


def _tell(told: Any, grants: list[dict[str, Any]], *, as_json: bool) -> None:
    rows = [
        [
            *(row[name] for name in ("id", "organisation_id", "programme", "state")),
            *(yuan(row[name]) for name in MONEY),
            local_time(row["lapse_at"])[:10],
            row["ended_reason"] or "",
        ]
        for row in grants
    ]
    show(told, rows, choose(*HEADS).split(), as_json=as_json)


def _tell_papers(told: Any, papers: list[dict[str, Any]], *, as_json: bool) -> None:
    texts = ("id", "month", "kind", "name", "number", "issuer_uscc")
    rows = [
        [*(row[name] for name in texts), yuan(row["amount_fen"]), say_yes(row["withdrawn"]), row["digest"]]
        for row in papers
    ]
    show(told, rows, choose(*PAPER_HEADS).split(), as_json=as_json)
