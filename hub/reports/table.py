"""A statement as a CSV table: one row per line, then the totals and the balances.

It leaves pages to the user interface and JSON to `api`.
"""

import csv
import io

from hub.reports.service import Statement

COLUMNS = (
    "行",
    "时间 at",
    "项目 item",
    "计量 quantity",
    "价目 price version",
    "目录价(分) list_fen",
    "券 programme",
    "规则版本 rule version",
    "券付(分) voucher_fen",
    "自付(分) self_paid_fen",
    "累计自付(分) running_fen",
)


def write_csv(report: Statement) -> str:
    """Return the statement as CSV text with a byte order mark, so that spreadsheets read the Chinese."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    ribbon = "演示 DEMO" if report.demo else ""
    writer.writerow([_guard(report.organisation_name), report.uscc, report.month, ribbon])
    writer.writerow(COLUMNS)
    for number, line in enumerate(report.lines, start=1):
        voucher = line.voucher
        writer.writerow(
            [
                number,
                line.at.isoformat(),
                _guard(line.title_zh),
                " ".join(f"{meter}={quantity}" for meter, quantity in line.quantities.items()),
                line.price_version_id,
                line.list_fen,
                voucher.programme if voucher else "",
                f"{voucher.rule_number} ({voucher.rule_version_id})" if voucher else "",
                voucher.amount_fen if voucher else 0,
                line.self_paid_fen,
                line.running_fen,
            ]
        )
    totals = ["合计 total", "", "", "", "", report.list_fen, "", "", report.voucher_fen, report.self_paid_fen, ""]
    writer.writerow(totals)
    writer.writerow(["月后入账的自付 paid after the month (fen)", report.carried.later_fen])
    writer.writerow(["本月入账的以前月份自付 paid for earlier months (fen)", report.carried.earlier_fen])
    writer.writerow(["账户 account", "期初(分)", "入(分)", "出(分)", "期末(分)", "冻结(分)"])
    for balance in report.balances:
        figures = (balance.before_fen, balance.credited_fen, balance.charged_fen, balance.after_fen, balance.held_fen)
        writer.writerow([_guard(balance.title_zh), *figures])
    writer.writerow(["总账之和 ledger sum", report.ledger_sum_fen])
    return "\ufeff" + out.getvalue()


def _guard(text: str) -> str:
    # A cell that starts like a formula would run in a spreadsheet.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
