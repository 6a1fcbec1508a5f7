"""`guanmo rentals`: a firm rents an offer, extends and ends it and sees its device time; a provider ends a faulty one.

Over the hub's address; offers are in `guanmo offers`, doubted reports in `guanmo meters`.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Retry, Yes, call, confirm, make_key, segment
from hub.cli.meters import After, Limit, show_reports
from hub.cli.quote_lines import LINE_HEADS, list_line_rows
from hub.cli.showing import choose, local_time, show, show_whole, yuan

rentals = typer.Typer(no_args_is_help=True)
RentalId = Annotated[str, typer.Argument(help="rental rtl_…")]
OfferId = Annotated[str, typer.Argument(help="offer off_…")]
Hours = Annotated[float, typer.Option("--hours", min=0.01, help="device time at most")]
HOUR_MS = 3_600_000
ORDER_HEADS = ("订单 状态 冻结 收费 券付 自付", "order state held charged vouchers own")
AMOUNTS = ("held_fen", "charged_fen", "voucher_fen", "self_paid_fen")


@rentals.callback()
def describe() -> None:
    """Rentals of compute."""


@rentals.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[str | None, typer.Option(help="active or released")] = None,
    as_json: AsJson = False,
) -> None:
    """List what the own organisation rents or rents out, newest first; all for operator and auditor."""
    told = call(hub, key, "GET", "rentals", query={"state": state})
    rows = [
        [
            *(row[name] for name in ("id", "offer_id", "purpose", "state")),
            _hours(row["device_ms"]),
            _hours(row["limit_ms"]),
            local_time(row["allocated_at"]),
            local_time(row["released_at"]),
        ]
        for row in told["rentals"]
    ]
    heads = choose(
        "租用 报价 用途 状态 已计小时 上限 开始 结束", "rental offer purpose state counted_h limit_h from until"
    )
    show(told, rows, heads.split(), as_json=as_json)


@rentals.command("show")
def show_one(rental_id: RentalId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a rental with its orders."""
    _tell(call(hub, key, "GET", f"rentals/{segment(rental_id)}"), as_json=as_json)


@rentals.command("estimate")
def estimate(offer_id: OfferId, key: Key, hub: Hub = DEFAULT_HUB, hours: Hours = 1.0, as_json: AsJson = False) -> None:
    """Show what device time of an offer costs at most and what the own vouchers would pay."""
    told = _estimate(hub, key, offer_id, hours)
    facts = [
        (choose("小时", "hours"), _hours(told["device_ms"])),
        (choose("目录价", "list price"), yuan(told["list_fen"])),
        (choose("券付", "by vouchers"), yuan(told["voucher_fen"])),
        (choose("自付", "own part"), yuan(told["self_paid_fen"])),
    ]
    show_whole(told, facts, list_line_rows(told["lines"]), choose(*LINE_HEADS).split(), as_json=as_json)


@rentals.command("rent")
def rent(
    offer_id: OfferId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    hours: Hours = 1.0,
    cost_centre: Annotated[str | None, typer.Option(help="the firm's own")] = None,
    idempotency_key: Retry = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Rent an offer: money is held and devices are allocated together, or nothing."""
    if not yes:
        told = _estimate(hub, key, offer_id, hours)
        own, vouchers = yuan(told["self_paid_fen"]), yuan(told["voucher_fen"])
        confirm(
            f"租用 {offer_id} 至多 {hours:g} 小时：冻结自有资金 {own}、券 {vouchers}。继续？",
            f"Rent {offer_id} for at most {hours:g} h? {own} of your own and {vouchers} of vouchers are held.",
            yes=yes,
        )
    body = {
        "offer_id": offer_id,
        "device_ms": _ms(hours),
        "idempotency_key": make_key(idempotency_key),
        "cost_centre": cost_centre,
    }
    _tell(call(hub, key, "POST", "rentals", body), as_json=as_json)


@rentals.command("extend")
def extend(
    rental_id: RentalId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    hours: Hours = 1.0,
    idempotency_key: Retry = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Add device time to a running rental; its money is held as well."""
    confirm(
        f"为 {rental_id} 增加 {hours:g} 小时，冻结相应金额。继续？",
        f"Add {hours:g} h to {rental_id}? Its money is held.",
        yes=yes,
    )
    body = {"device_ms": _ms(hours), "idempotency_key": make_key(idempotency_key)}
    _tell(call(hub, key, "POST", f"rentals/{segment(rental_id)}/extend", body), as_json=as_json)


@rentals.command("end")
def end(rental_id: RentalId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """End a rental and settle it on the time counted so far."""
    confirm(f"结束 {rental_id} 并按已计时间结算。继续？", f"End {rental_id} and settle it on the time so far?", yes=yes)
    _tell(call(hub, key, "POST", f"rentals/{segment(rental_id)}/end"), as_json=as_json)


@rentals.command("fail")
def fail(
    rental_id: RentalId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="what happened; the firm reads it")],
    hub: Hub = DEFAULT_HUB,
    fault: Annotated[str, typer.Option("--fault", help="provider or platform")] = "provider",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a rental that went wrong and refund it in full (its provider, operator)."""
    confirm(f"以故障结束 {rental_id} 并全额退款。继续？", f"End {rental_id} as failed and refund it in full?", yes=yes)
    body = {"fault": fault, "reason": reason}
    _tell(call(hub, key, "POST", f"rentals/{segment(rental_id)}/fail", body), as_json=as_json)


@rentals.command("device-time")
def list_device_time(
    rental_id: RentalId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    after: After = "",
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """List the raw reports of a rental, oldest first: for its firm, its provider, operator and auditor."""
    query = {"after": after, "limit": limit}
    show_reports(call(hub, key, "GET", f"rentals/{segment(rental_id)}/meters", query=query), as_json=as_json)


def _estimate(hub: str, key: str, offer_id: str, hours: float) -> Any:
    return call(hub, key, "GET", f"offers/{segment(offer_id)}/estimate", query={"device_ms": _ms(hours)})


def _ms(hours: float) -> int:
    return round(hours * HOUR_MS)


def _hours(device_ms: int | None) -> str:
    return "" if device_ms is None else f"{device_ms / HOUR_MS:.3f}"


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    facts = [
        (choose("租用", "rental"), row["id"]),
        (choose("报价", "offer"), row["offer_id"]),
        (choose("状态", "state"), row["state"]),
        (choose("责任方", "fault"), row["fault"] or ""),
        (choose("已计小时", "hours counted"), _hours(row["device_ms"])),
        (choose("上限小时", "hours at most"), _hours(row["limit_ms"])),
        (choose("开始", "from"), local_time(row["allocated_at"])),
        (choose("最迟结束", "ends by"), local_time(row.get("ends_at"))),
        (choose("结束", "until"), local_time(row["released_at"])),
        (choose("订单", "order"), row["order_id"] or ""),
    ]
    orders = [
        [order["id"], order["state"], *(yuan(order[name]) for name in AMOUNTS)] for order in row.get("orders", [])
    ]
    show_whole(row, facts, orders, choose(*ORDER_HEADS).split(), as_json=as_json)
