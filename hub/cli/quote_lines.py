"""The lines of a quote as rows of a table, for quotes, orders and estimates of rentals.

It leaves asking for them to those commands.
"""

from collections.abc import Sequence
from typing import Any

from hub.cli.showing import choose_text, yuan

LINE_HEADS = (
    "行 名称 数量 目录价 券付 自付 项目 其他项目不付的原因",
    "line title quantity list vouchers own by not_by",
)


def list_line_rows(lines: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each line under `LINE_HEADS`."""
    return [
        [
            str(line["position"] + 1),
            choose_text(line["title"]),
            f"{line['quantity']:,}",
            yuan(line["list_fen"]),
            yuan(line["voucher_fen"]),
            yuan(line["self_paid_fen"]),
            " ".join(cover["programme"] for cover in line["covers"]),
            " ".join(f"{note['programme']}:{note['code']}" for note in line["not_covered_by"]),
        ]
        for line in lines
    ]
