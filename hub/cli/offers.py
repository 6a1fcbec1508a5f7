"""`guanmo offers`: firms list, show and compare compute offers; providers draft, publish, change, pause and withdraw.

Over the hub's address; it leaves prices, places and vouchers to the service.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, choose_text, say_yes, show, yuan
from hub.errors import InvalidValueError

offers = typer.Typer(no_args_is_help=True)
HOUR_MS = 3_600_000
OfferId = Annotated[str, typer.Argument(help="offer off_…")]
NoKey = Annotated[str, typer.Option("--key", envvar="GUANMO_TOKEN", help="session token; needed for vouchers' part")]
BLANK = {
    "provider_id": "prv_…",
    "title_zh": "",
    "title_en": "",
    "accelerator": "",
    "region_zh": "",
    "region_en": "",
    "via_city_platform": False,
    "amount_fen": 0,
    "per_device_ms": HOUR_MS,
    "tokens_per_s": 0,
    "count": 1,
    "memory_gib": 8,
    "device": "cpu",
    "cpu_threads": 1,
    "available": 1,
}
"""What `draft` prints and `publish` reads."""


@offers.callback()
def describe() -> None:
    """Offers of compute."""


@offers.command("list")
def list_all(
    key: NoKey = "",
    hub: Hub = DEFAULT_HUB,
    accelerator: Annotated[str | None, typer.Option(help="part of its name")] = None,
    region: Annotated[str | None, typer.Option(help="part of its name")] = None,
    city: Annotated[bool | None, typer.Option("--city/--not-city", help="through the city platform")] = None,
    max_hour_fen: Annotated[int | None, typer.Option(min=0, help="at most this price of an hour")] = None,
    min_memory_gib: Annotated[int | None, typer.Option(min=0)] = None,
    free: Annotated[bool, typer.Option("--free", help="free ones only")] = False,
    sort: Annotated[str | None, typer.Option(help="price, memory, speed, free, reliability")] = None,
    provider: Annotated[str, typer.Option(help="all of this provider prv_…, paused and withdrawn ones too")] = "",
    as_json: AsJson = False,
) -> None:
    """List open offers, cheapest hour first; with --provider one's own in every state."""
    wanted: dict[str, Any] = {"accelerator": accelerator, "region": region, "max_hour_fen": max_hour_fen, "sort": sort}
    wanted |= {"min_memory_gib": min_memory_gib, "free_only": "true" if free else None}
    wanted["via_city_platform"] = None if city is None else str(city).lower()
    path = f"providers/{segment(provider)}/offers" if provider else "offers"
    told = call(hub, key, "GET", path, query=None if provider else wanted)
    heads = choose("报价 名称 状态 加速器 地区 市平台 空闲 每小时", "offer title state chip region city free hour")
    show(told, [_row(row) for row in told["offers"]], heads.split(), as_json=as_json)


@offers.command("show")
def show_one(offer_id: OfferId, key: NoKey = "", hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show an offer and, with a token, what an hour of it costs the own firm with its vouchers."""
    _show_side_by_side(hub, key, [offer_id], as_json=as_json)


@offers.command("compare")
def compare(
    offer_ids: Annotated[list[str], typer.Argument(help="two to four offers")],
    key: NoKey = "",
    hub: Hub = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Show offers side by side: price, speed, record, what vouchers pay of an hour."""
    if not 2 <= len(offer_ids) <= 4:
        raise InvalidValueError(
            f"{len(offer_ids)} offers; two to four are compared.", f"{len(offer_ids)} 个报价，请选 2 至 4 个对比。"
        )
    _show_side_by_side(hub, key, offer_ids, as_json=as_json)


@offers.command("draft")
def draft(
    offer_id: Annotated[str, typer.Argument(help="offer to start from; a blank one when left out")] = "",
    hub: Hub = DEFAULT_HUB,
) -> None:
    """Print an offer as JSON, in the form that `publish` reads; nothing is published."""
    found = call(hub, "", "GET", f"offers/{segment(offer_id)}") if offer_id else None
    print(json.dumps(_draft_of(found) if found else BLANK, ensure_ascii=False, indent=1))


@offers.command("publish")
def publish(
    file: Annotated[Path, typer.Argument(help="JSON as `draft` prints it")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    replaces: Annotated[str | None, typer.Option(help="own offer that it takes the place of")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Publish an offer with its price (provider); firms may rent it at once. A change replaces the old offer."""
    body = _read_file(file) | {"replaces": replaces}
    confirm(
        f"发布“{body['title_zh']}”，企业可立即租用{f'；{replaces} 同时下架' if replaces else ''}。继续？",
        f"Publish '{body['title_en']}'? Firms may rent it at once{f'; {replaces} is withdrawn' if replaces else ''}.",
        yes=yes,
    )
    made = call(hub, key, "POST", "offers", body)
    _tell(made, as_json=as_json)


@offers.command("pause")
def pause(offer_id: OfferId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Let an own offer take no new rental for a while."""
    _tell(call(hub, key, "POST", f"offers/{segment(offer_id)}/pause"), as_json=as_json)


@offers.command("resume")
def resume(offer_id: OfferId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Let a paused offer take rentals again."""
    _tell(call(hub, key, "POST", f"offers/{segment(offer_id)}/resume"), as_json=as_json)


@offers.command("withdraw")
def withdraw(offer_id: OfferId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """Take an own offer off the market for good; running rentals finish."""
    confirm(
        f"下架 {offer_id}？不能恢复，进行中的租用照常完成。",
        f"Withdraw {offer_id}? It cannot come back; running rentals finish.",
        yes=yes,
    )
    _tell(call(hub, key, "DELETE", f"offers/{segment(offer_id)}"), as_json=as_json)


def _show_side_by_side(hub: str, key: str, offer_ids: list[str], *, as_json: bool) -> None:
    found = [call(hub, key, "GET", f"offers/{segment(offer_id)}") for offer_id in offer_ids]
    if key:
        for row in found:
            row["estimate"] = call(
                hub, key, "GET", f"offers/{segment(row['id'])}/estimate", query={"device_ms": HOUR_MS}
            )
    columns = [_list_facts(row) for row in found]
    rows = [[facts[0][0], *(value for _, value in facts)] for facts in zip(*columns, strict=True)]
    show({"offers": found}, rows, ["", *offer_ids], as_json=as_json)


def _row(row: dict[str, Any]) -> list[str]:
    free, hour = f"{row['free']}/{row['available']}", yuan(row["price"]["hour_fen"])
    texts = [choose_text(row["title"]), row["state"], row["accelerator"], choose_text(row["region"])]
    return [row["id"], *texts, say_yes(row["via_city_platform"]), free, hour]


def _list_facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    record, price, estimate = row["reliability"], row["price"], row.get("estimate")
    kept = f"{record['ended'] - record['ended_by_provider_fault']}/{record['ended']}" if record["ended"] else "-"
    facts = [
        (choose("名称", "title"), choose_text(row["title"])),
        (choose("状态", "state"), row["state"]),
        (choose("供应商", "provider"), choose_text(row["provider"])),
        (choose("加速器", "accelerator"), f"{row['count']} × {row['accelerator']}, {row['memory_gib']} GiB"),
        (choose("地区", "region"), choose_text(row["region"])),
        (choose("经市算力平台", "city platform"), say_yes(row["via_city_platform"])),
        (choose("标称速度（词元/秒）", "tokens/s"), str(row["tokens_per_s"])),
        (choose("空闲", "free"), f"{row['free']}/{row['available']}"),
        (choose("履约", "rentals kept"), kept),
        (choose("存疑计量", "doubtful reports"), f"{record['doubtful_reports']}/{record['reports']}"),
        (choose("每小时", "hour"), yuan(price["hour_fen"])),
    ]
    if estimate:
        facts.append((choose("券付/小时", "vouchers pay an hour"), yuan(estimate["voucher_fen"])))
        facts.append((choose("我方自付/小时", "own part of an hour"), yuan(estimate["self_paid_fen"])))
    return facts


def _draft_of(row: dict[str, Any]) -> dict[str, Any]:
    plain = ("accelerator", "via_city_platform", "tokens_per_s", "count", "memory_gib", "device", "cpu_threads")
    texts = {f"{name}_{lang}": row[name][lang] for name in ("title", "region") for lang in ("zh", "en")}
    price = {name: row["price"][name] for name in ("amount_fen", "per_device_ms")}
    found = texts | price | {name: row[name] for name in (*plain, "available")} | {"provider_id": row["provider"]["id"]}
    return {name: found[name] for name in BLANK}


def _read_file(file: Path) -> dict[str, Any]:
    """Return the offer that a file says. Raises: InvalidValueError."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        missing = sorted(BLANK.keys() - found.keys()) if isinstance(found, dict) else sorted(BLANK)
    except (OSError, ValueError) as error:
        raise InvalidValueError(
            f"{file} is not an offer ({error}); start from `guanmo offers draft`.",
            f"{file} 不是报价文件（{error}），可先用 guanmo offers draft 生成。",
        ) from error
    if missing:
        names = ", ".join(missing)
        raise InvalidValueError(
            f"{file} lacks {names}; start from `guanmo offers draft`.",
            f"{file} 缺少 {names}，可先用 guanmo offers draft 生成。",
        )
    return dict(found)


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    heads = choose("报价 状态", "offer state").split()
    show(row, [[row["id"], row["state"]]], heads, as_json=as_json)
