"""`guanmo statements`: a firm's month to the fen, as a file or line by line down to the raw records.

Over the hub's address; it leaves the arithmetic to the service.
"""

from enum import StrEnum
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Target, Yes, call, confirm, download, segment
from hub.cli.showing import choose, local_time, show, show_facts, show_file, show_whole, yuan

statements = typer.Typer(no_args_is_help=True)
Month = Annotated[str | None, typer.Option("--month", help="2026-11; the current one when left out")]
HEADS = ("明细 时间 名称 目录价 券付 自付 累计自付", "line at title list vouchers own running")
CLOSED_HEADS = ("机构 账期 关账 sha256", "organisation month closed sha256")


class StatementFormat(StrEnum):
    """The files that a statement is written as."""

    HTML = "html"
    CSV = "csv"
    XLSX = "xlsx"
    PDF = "pdf"


@statements.callback()
def describe() -> None:
    """Statements of a month."""


@statements.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List closed months, newest first: the own firm's, every firm's for operator and auditor."""
    told = call(hub, key, "GET", "statements", query={"organisation_id": organisation})
    rows = [
        [row["organisation_id"], row["month"], local_time(row["closed_at"]), row["sha256"]] for row in told["items"]
    ]
    show(told, rows, choose(*CLOSED_HEADS).split(), as_json=as_json)


@statements.command("show")
def show_one(
    key: Key, hub: Hub = DEFAULT_HUB, month: Month = None, organisation: Firm = None, as_json: AsJson = False
) -> None:
    """Show a month's lines and sums; an open month still grows."""
    told = call(hub, key, "GET", "statement", query={"month": month, "organisation_id": organisation})
    closed = told["closed"]
    facts = [
        (choose("企业", "firm"), f"{told['organisation_name']} {told['uscc']}"),
        (choose("账期", "month"), told["month"]),
        (choose("状态", "state"), _say_closed(closed)),
        (choose("目录价", "list price"), yuan(told["list_fen"])),
        (choose("券付", "by vouchers"), yuan(told["voucher_fen"])),
        (choose("自付", "own part"), yuan(told["self_paid_fen"])),
        ("sha256", closed["sha256"] if closed else ""),
    ]
    show_whole(told, facts, [_row(line) for line in told["lines"]], choose(*HEADS).split(), as_json=as_json)


@statements.command("download")
def download_statement(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    month: Month = None,
    form: Annotated[StatementFormat, typer.Option("--format")] = StatementFormat.PDF,
    organisation: Firm = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Download a month's statement."""
    query = {"month": month, "organisation_id": organisation}
    show_file(download(hub, key, f"statement.{form}", target, query=query), as_json=as_json)


@statements.command("records")
def list_records(
    line_id: Annotated[str, typer.Argument(help="line as `show` names it")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    after: Annotated[str, typer.Option(help="show those after this record, as the page before ends")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 100,
    as_json: AsJson = False,
) -> None:
    """List the raw meter records behind a line, oldest first."""
    path = f"statement/lines/{segment(line_id)}/records"
    told = call(hub, key, "GET", path, query={"after": after, "limit": limit})
    rows = [
        [
            row["record_id"],
            local_time(row["at"], timespec="seconds"),
            row["source"],
            " ".join(f"{name} {count:,}" for name, count in row["figures"].items()),
            "" if row["cost_ufen"] is None else f"{row['cost_ufen']:,}",
            row["state"],
            choose(row["note_zh"], row["note_en"]),
        ]
        for row in told["items"]
    ]
    facts = [
        (choose("明细", "line"), told["line_id"]),
        (choose("名称", "title"), choose(told["title_zh"], told["title_en"])),
        (choose("下一页", "next page"), f"--after {told['next_after']}" if told["next_after"] else ""),
    ]
    heads = choose("记录 时间 来源 计量 微分 状态 说明", "record at source figures ufen state note")
    show_whole(told, facts, rows, heads.split(), as_json=as_json)


@statements.command("close")
def close(
    organisation_id: Annotated[str, typer.Argument(help="firm org_…")],
    month: Annotated[str, typer.Argument(help="2026-10")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close a firm's month by hand (operator); the worker does it a day after the month's end."""
    confirm(
        f"关闭 {organisation_id} 的 {month} 账期，不能重开。继续？",
        f"Close {month} of {organisation_id}? It cannot be opened again.",
        yes=yes,
    )
    row = call(hub, key, "POST", "statement/close", {"organisation_id": organisation_id, "month": month})
    facts = [
        (choose("机构", "organisation"), row["organisation_id"]),
        (choose("账期", "month"), row["month"]),
        (choose("关账", "closed"), local_time(row["closed_at"])),
        ("sha256", row["sha256"]),
    ]
    show_facts(row, facts, as_json=as_json)


def _say_closed(closed: dict[str, Any] | None) -> str:
    if closed is None:
        return choose("未关账，仍会增加", "open, still growing")
    return choose(f"已于 {local_time(closed['at'])[:10]} 关账", f"closed on {local_time(closed['at'])[:10]}")


def _row(line: dict[str, Any]) -> list[str]:
    title = choose(line["title_zh"], line["title_en"])
    if line["corrects_month"]:
        title += choose(f"（更正 {line['corrects_month']}）", f" (corrects {line['corrects_month']})")
    vouchers = line["list_fen"] - line["self_paid_fen"]
    money = [yuan(fen) for fen in (line["list_fen"], vouchers, line["self_paid_fen"], line["running_fen"])]
    return [line["line_id"], local_time(line["at"]), title, *money]
