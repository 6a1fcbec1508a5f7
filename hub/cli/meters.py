"""`guanmo meters`: doubted reports of device time and the decision on them, lost gateways' money, engines' counts.

Over the hub's address; calls whose records came late are in `guanmo corrections late`.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, choose_text, local_time, show, show_facts

meters = typer.Typer(no_args_is_help=True)
RecordId = Annotated[str, typer.Argument(help="report mtr_…")]
Found = Annotated[str, typer.Option("--reason", help="what was found; provider and firm read it")]
After = Annotated[str, typer.Option(help="show those after this id, as the page before ends")]
Limit = Annotated[int, typer.Option(min=1, max=1000)]
HEADS = (
    "上报 租用 序号 设备 累计毫秒 计入毫秒 状态 规则 观测 疑点",
    "report rental seq device ms counted state rule seen doubt",
)
ENGINE_HEADS = (
    "引擎 启动 生成 计费 未送达 自用 待报 偏差 问题",
    "engine start generated billed undelivered own awaited drift alarms",
)


@meters.callback()
def describe() -> None:
    """Device time and tokens: what is doubted, and decisions."""


@meters.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[str, typer.Option(help="quarantined, accepted, rejected or all")] = "quarantined",
    after: After = "",
    limit: Limit = 200,
    as_json: AsJson = False,
) -> None:
    """List reports of device time, oldest first: the provider's own, all for operator and auditor."""
    wanted = None if state == "all" else state
    show_reports(
        call(hub, key, "GET", "meters", query={"state": wanted, "after": after, "limit": limit}), as_json=as_json
    )


@meters.command("accept")
def accept(
    record_id: RecordId,
    key: Key,
    reason: Found,
    hub: Hub = DEFAULT_HUB,
    device_ms: Annotated[
        int | None, typer.Option(help="count for this much, cumulative; as reported if left out")
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let a doubted report count (operator), whole or for less; a settled bill is corrected by it."""
    confirm(
        f"接受 {record_id}，已结算的账单将随之更正。继续？",
        f"Let {record_id} count? A settled bill is corrected by it.",
        yes=yes,
    )
    body = {"decision": "accept", "reason": reason, "device_ms": device_ms}
    _tell(call(hub, key, "POST", f"meters/{segment(record_id)}/decision", body), as_json=as_json)


@meters.command("reject")
def reject(record_id: RecordId, key: Key, reason: Found, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Let a doubted report count for nothing (operator)."""
    body = {"decision": "reject", "reason": reason}
    _tell(call(hub, key, "POST", f"meters/{segment(record_id)}/decision", body), as_json=as_json)


@meters.command("key")
def make_meter_key(
    provider_id: Annotated[str, typer.Argument(help="provider prv_…")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Print the provider's next key for signing reports, shown this once; the one before ends (provider)."""
    confirm("生成新密钥，旧密钥随即失效。继续？", "Make a new key? The one before ends at once.", yes=yes)
    told = call(hub, key, "POST", f"providers/{segment(provider_id)}/meter-key")
    facts = [
        (choose("供应商", "provider"), told["provider_id"]),
        (choose("编号", "number"), str(told["number"])),
        (choose("密钥", "key"), told["key"]),
    ]
    show_facts(told, facts, as_json=as_json)


@meters.command("allowances")
def list_allowances(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List money slices of gateways that are past their time, lost gateways' among them (operator, auditor)."""
    told = call(hub, key, "GET", "allowances")
    rows = [
        [
            row["id"],
            row["organisation_id"],
            row["gateway_id"],
            row["state"],
            f"{row['amount_ufen']:,}",
            local_time(row["expires_at"]),
        ]
        for row in told["items"]
    ]
    heads = choose("额度 机构 网关 状态 微分 到期", "allowance organisation gateway state ufen expired")
    show(told, rows, heads.split(), as_json=as_json)


@meters.command("close-allowance")
def close_allowance(
    allowance_id: Annotated[str, typer.Argument(help="allowance alw_…")],
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="why the gateway is taken for lost")],
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Close a lost gateway's slice (operator) on the usage that arrived and that engines witnessed."""
    confirm(
        f"关闭 {allowance_id}：网关恢复后其更准确的记录将被拒收。继续？",
        f"Close {allowance_id}? Should its gateway come back, its own records, more exact, are refused.",
        yes=yes,
    )
    row = call(hub, key, "POST", f"allowances/{segment(allowance_id)}/close", {"reason": reason})
    facts = [
        (choose("额度", "allowance"), row["id"]),
        (choose("状态", "state"), row["state"]),
        (choose("已用微分", "spent ufen"), f"{row['spent_ufen']:,} / {row['amount_ufen']:,}"),
    ]
    show_facts(row, facts, as_json=as_json)


@meters.command("engines")
def list_engines(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List engine starts of the last day: tokens generated beside tokens billed, and alarms (operator, auditor)."""
    told = call(hub, key, "GET", "usage/engines")
    counts = ("witnessed", "billed", "undelivered", "own", "awaited", "drift")
    rows = [
        [
            row["replica_id"],
            str(row["replica_epoch"]),
            *("-" if row[name] is None else f"{row[name]:,}" for name in counts),
            " ".join(row["alarms"]),
        ]
        for row in told["items"]
    ]
    show(told, rows, choose(*ENGINE_HEADS).split(), as_json=as_json)


def show_reports(told: dict[str, Any], *, as_json: bool) -> None:
    """Print a page of reports of device time; where more follow, what the next page starts after."""
    rows = [
        [
            row["id"],
            row["rental_id"],
            str(row["seq"]),
            row["device_id"],
            f"{row['device_ms']:,}",
            "-" if row["counted_ms"] is None else f"{row['counted_ms']:,}",
            row["state"],
            row["rule"] or "",
            local_time(row["observed_at"], timespec="seconds"),
            choose_text(row["reason"]),
        ]
        for row in told["items"]
    ]
    show(told, rows, choose(*HEADS).split(), as_json=as_json)
    if told["next_after"] and not as_json:
        print(choose(f"还有更多：--after {told['next_after']}", f"more: --after {told['next_after']}"))


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    facts = [
        (choose("上报", "report"), row["id"]),
        (choose("租用", "rental"), row["rental_id"]),
        (choose("状态", "state"), row["state"]),
        (choose("上报毫秒", "reported ms"), f"{row['device_ms']:,}"),
        (choose("计入毫秒", "counted ms"), "" if row["counted_ms"] is None else f"{row['counted_ms']:,}"),
        (choose("疑点", "doubt"), choose_text(row["reason"])),
        (choose("处理", "decided"), f"{row['resolved_by'] or ''} {local_time(row['resolved_at'])}".strip()),
        (choose("说明", "found"), row["resolution"] or ""),
    ]
    show_facts(row, facts, as_json=as_json)
