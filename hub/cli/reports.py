"""`guanmo reports`: the authority report of a period: figures as they are now, issued once, its files, what changed.

Over the hub's address; it leaves counting to the service. What a period is, the service decides too: it is passed on
as it was typed.
"""

from enum import StrEnum
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Period, Target, Yes, call, confirm, download, segment
from hub.cli.showing import choose, local_time, say_yes, show, show_facts, show_file, show_whole

reports = typer.Typer(no_args_is_help=True)
CHANGE_HEADS = ("项目 信用代码 指标 此前 现在 差", "programme uscc figure before after difference")
FIGURE_HEADS = ("项目 信用代码 指标 数值", "programme uscc figure value")


class ReportFormat(StrEnum):
    """The files that a report is issued as."""

    JSON = "json"
    CSV = "csv"


@reports.callback()
def describe() -> None:
    """Authority reports: preview, issue, download, changes."""


@reports.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List the issued reports, newest first (operator, auditor)."""
    told = call(hub, key, "GET", "authority-reports")
    rows = [
        [str(row["number"]), row["period"], local_time(row["issued_at"]), row["issued_by"], row["json_sha256"]]
        for row in told["items"]
    ]
    show(told, rows, choose("编号 期间 出具 出具人 sha256", "number period issued by sha256").split(), as_json=as_json)


@reports.command("preview")
def preview(period: Period, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show the figures of a period as they are now, other than zero; it may still run (operator, auditor)."""
    told = call(hub, key, "GET", f"authority-reports/{segment(period)}/preview.json")
    show(told, _list_figures(told), choose(*FIGURE_HEADS).split(), as_json=as_json)


@reports.command("issue")
def issue(period: Period, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """Issue the report of a period that is over (operator); every month that it touches is closed for good."""
    confirm(
        f"出具 {period} 的报告，其日期所涉各月随即整月关账，不能重开。继续？",
        f"Issue the report of {period}? Every month that its days touch is closed whole, for good.",
        yes=yes,
    )
    row = call(hub, key, "POST", "authority-reports", {"period": period})
    facts = [
        (choose("期间", "period"), row["period"]),
        (choose("编号", "number"), str(row["number"])),
        ("JSON sha256", row["json_sha256"]),
        ("CSV sha256", row["csv_sha256"]),
        (choose("出具", "issued"), f"{row['issued_by']} {local_time(row['issued_at'])}"),
    ]
    show_facts(row, facts, as_json=as_json)


@reports.command("download")
def download_report(
    period: Period,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    form: Annotated[ReportFormat, typer.Option("--format")] = ReportFormat.JSON,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Download an issued report, the bytes as issued."""
    show_file(download(hub, key, f"authority-reports/{segment(period)}/report.{form}", target), as_json=as_json)


@reports.command("changes")
def list_changes(period: Period, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show what changed against the report before, and whether the records still give the issued bytes."""
    told = call(hub, key, "GET", f"authority-reports/{segment(period)}/changes")
    facts = [(choose("重算一致", "counted again, the same"), say_yes(told["recounted_equal"]))]
    rows = [
        [
            row["programme"],
            row["uscc"],
            row["figure"],
            *(f"{row[name]:,}" for name in ("before", "after", "difference")),
        ]
        for row in told["items"]
    ]
    show_whole(told, facts, rows, choose(*CHANGE_HEADS).split(), as_json=as_json)


def _list_figures(report: dict[str, Any]) -> list[list[str]]:
    """Return a row for each figure that is not zero: the fund's, then each firm's."""
    found = []
    for item in report["programmes"]:
        for owner in ({"uscc": "fund", **item["fund"]}, *item["firms"]):
            figures = ((name, value) for name, value in owner.items() if name != "uscc" and value)
            found += [[item["code"], owner["uscc"], name, f"{value:,}"] for name, value in figures]
    return found
