"""`guanmo orders`: what is held and what was charged, with the lines of the quote behind it.

Over the hub's address; corrections of a bill are in `guanmo corrections`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, call, segment
from hub.cli.quote_lines import LINE_HEADS, list_line_rows
from hub.cli.showing import choose, local_time, show, show_whole, yuan

orders = typer.Typer(no_args_is_help=True)
AMOUNTS = ("held_fen", "charged_fen", "voucher_fen", "self_paid_fen")


@orders.callback()
def describe() -> None:
    """Orders: list, show with lines."""


@orders.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    organisation: Firm = None,
    subject: Annotated[str | None, typer.Option(help="the run run_… or rental rtl_… that they pay for")] = None,
    as_json: AsJson = False,
) -> None:
    """List orders, newest first."""
    told = call(hub, key, "GET", "orders", query={"organisation_id": organisation, "subject": subject})
    rows = [
        [
            *(row[name] for name in ("id", "subject", "state")),
            *(yuan(row[name]) for name in AMOUNTS),
            local_time(row["accepted_at"]),
        ]
        for row in told["items"]
    ]
    heads = choose("订单 对象 状态 冻结 收费 券付 自付 下单", "order subject state held charged vouchers own accepted")
    show(told, rows, heads.split(), as_json=as_json)


@orders.command("show")
def show_one(
    order_id: Annotated[str, typer.Argument(help="order ord_…")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show an order with the lines of its quote."""
    order = call(hub, key, "GET", f"orders/{segment(order_id)}")
    lines = call(hub, key, "GET", f"quotes/{segment(order['quote_id'])}")["lines"]
    show_order({**order, "lines": lines}, lines, as_json=as_json)


def show_order(order: dict[str, Any], lines: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print an order and below it the lines of its quote."""
    metered = " ".join(f"{name} {count:,}" for name, count in (order["metered"] or {}).items())
    facts = [
        (choose("订单", "order"), order["id"]),
        (choose("报价单", "quote"), order["quote_id"]),
        (choose("对象", "subject"), order["subject"]),
        (choose("状态", "state"), order["state"]),
        (choose("冻结", "held"), yuan(order["held_fen"])),
        (choose("收费", "charged"), yuan(order["charged_fen"])),
        (choose("券付", "by vouchers"), yuan(order["voucher_fen"])),
        (choose("自付", "own part"), yuan(order["self_paid_fen"])),
        (choose("计量", "metered"), metered),
        (choose("责任方", "fault"), order["fault"] or ""),
        (choose("原因", "reason"), order["reason_code"] or ""),
        (choose("成本中心", "cost centre"), order["cost_centre"] or ""),
        (choose("下单", "accepted"), local_time(order["accepted_at"])),
        (choose("了结", "closed"), local_time(order["closed_at"])),
    ]
    show_whole(order, facts, list_line_rows(lines), choose(*LINE_HEADS).split(), as_json=as_json)
