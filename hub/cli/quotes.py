"""`guanmo quotes`: what a fine-tune or a rental would cost, line by line, and accepting it.

Over the hub's address; it leaves making quotes to the one who orders (`/runs`, `guanmo rentals`).
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Retry, Yes, call, confirm, make_key, segment
from hub.cli.orders import show_order
from hub.cli.quote_lines import LINE_HEADS, list_line_rows
from hub.cli.showing import choose, local_time, show, show_whole, yuan

quotes = typer.Typer(no_args_is_help=True)
QuoteId = Annotated[str, typer.Argument(help="quote quo_…")]
AMOUNTS = ("list_fen", "voucher_fen", "self_paid_fen")


@quotes.callback()
def describe() -> None:
    """Quotes: list, show, accept."""


@quotes.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB, organisation: Firm = None, as_json: AsJson = False) -> None:
    """List quotes, newest first."""
    told = call(hub, key, "GET", "quotes", query={"organisation_id": organisation})
    rows = [
        [
            *(row[name] for name in ("id", "subject", "state")),
            *(yuan(row[name]) for name in AMOUNTS),
            local_time(row["valid_until"]),
        ]
        for row in told["items"]
    ]
    heads = choose("报价单 对象 状态 目录价 券付 自付 有效至", "quote subject state list vouchers own valid_until")
    show(told, rows, heads.split(), as_json=as_json)


@quotes.command("show")
def show_one(quote_id: QuoteId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a quote with its lines: price, what vouchers pay and why others do not."""
    told = call(hub, key, "GET", f"quotes/{segment(quote_id)}")
    show_whole(told, _list_facts(told), list_line_rows(told["lines"]), choose(*LINE_HEADS).split(), as_json=as_json)


@quotes.command("accept")
def accept(
    quote_id: QuoteId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    cost_centre: Annotated[str | None, typer.Option(help="the firm's own")] = None,
    idempotency_key: Retry = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Accept a quote: its money is held and the order stands."""
    quote = call(hub, key, "GET", f"quotes/{segment(quote_id)}")
    own, vouchers = yuan(quote["self_paid_fen"]), yuan(quote["voucher_fen"])
    confirm(
        f"接受 {quote_id}：冻结自有资金 {own}、券 {vouchers}。继续？",
        f"Accept {quote_id}? {own} of your own and {vouchers} of vouchers are held.",
        yes=yes,
    )
    body = {"idempotency_key": make_key(idempotency_key), "cost_centre": cost_centre}
    show_order(call(hub, key, "POST", f"quotes/{segment(quote_id)}/accept", body), [], as_json=as_json)


def _list_facts(quote: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (choose("报价单", "quote"), quote["id"]),
        (choose("对象", "subject"), quote["subject"]),
        (choose("状态", "state"), quote["state"]),
        (choose("基座", "base"), quote["base_public_name"] or ""),
        (choose("目录价", "list price"), yuan(quote["list_fen"])),
        (choose("券付", "by vouchers"), yuan(quote["voucher_fen"])),
        (choose("自付", "own part"), yuan(quote["self_paid_fen"])),
        (choose("有效至", "valid until"), local_time(quote["valid_until"])),
    ]
