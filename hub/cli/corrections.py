"""`guanmo corrections`: correct settled bills of runs, rentals and hosted calls, and decide on them as a second person.

Over the hub's address; it leaves every rule and every difference to the service.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, local_time, show, show_facts, yuan
from hub.errors import InvalidValueError

corrections = typer.Typer(no_args_is_help=True)
CorrectionId = Annotated[str, typer.Argument(help="correction bvr_…")]
Reason = Annotated[str, typer.Option("--reason", help="what was wrong; the firm reads it")]
Fault = Annotated[str | None, typer.Option("--fault", help="platform or provider: give everything back")]
COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens")


@corrections.callback()
def describe() -> None:
    """Corrections of settled bills: differences in the open month, what was posted stays."""


@corrections.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    state: Annotated[str | None, typer.Option(help="proposed, posted or refused")] = None,
    bill: Annotated[str, typer.Option(help="one run, rental, order or bill line; needed for a firm")] = "",
    as_json: AsJson = False,
) -> None:
    """List corrections, newest first: all for operator and auditor, of one bill for its firm."""
    path = _path_of(hub, key, bill) if bill else "corrections"
    told = call(hub, key, "GET", path, query=None if bill else {"state": state})
    if bill and state:
        told = {"items": [row for row in told["items"] if row["state"] == state]}
    heads = choose("更正 账单 版本 状态 差额 其中券 自付 原因", "correction bill version state fee vouchers own reason")
    show(told, [_row(item) for item in told["items"]], heads.split(), as_json=as_json)


@corrections.command("show")
def show_one(correction_id: CorrectionId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a correction with its figures, who proposed it and who decided."""
    _tell(call(hub, key, "GET", f"corrections/{segment(correction_id)}"), as_json=as_json)


@corrections.command("bill")
def correct_bill(
    bill: Annotated[str, typer.Argument(help="run run_…, rental rtl_… or order ord_…")],
    key: Key,
    reason: Reason,
    hub: Hub = DEFAULT_HUB,
    fault: Fault = None,
    device_ms: Annotated[int | None, typer.Option(help="device milliseconds as they should be")] = None,
    trained_tokens: Annotated[int | None, typer.Option(help="trained tokens as they should be")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Correct a settled bill of a run or a rental (operator): right figures, or a full refund for a fault."""
    given = {"device_ms": device_ms, "trained_tokens": trained_tokens}
    metered = None if fault and not any(given.values()) else {name: value or 0 for name, value in given.items()}
    if fault is None and device_ms is None and trained_tokens is None:
        raise InvalidValueError(
            "Give --device-ms and --trained-tokens as they should be, or --fault platform|provider for a full refund.",
            "请给出正确的 --device-ms 与 --trained-tokens，或以 --fault platform|provider 全额退款。",
            field="metered",
        )
    path = _path_of(hub, key, bill)
    _confirm(bill, fault, yes=yes)
    _tell(call(hub, key, "POST", path, {"reason": reason, "metered": metered, "fault": fault}), as_json=as_json)


@corrections.command("calls")
def correct_calls(
    bill_line_id: Annotated[str, typer.Argument(help="bill line of hosted calls, as the statement names it")],
    key: Key,
    reason: Reason,
    hub: Hub = DEFAULT_HUB,
    one: Annotated[
        list[str] | None,
        typer.Option("--call", help="REQUEST[:ATTEMPT] PROMPT CACHED COMPLETION in quotes; again for more"),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="the same, one call a line")] = None,
    fault: Fault = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Correct hosted calls of a bill line (operator); with a fault and no call: the whole line for nothing."""
    lines = [*(one or []), *(file.read_text(encoding="utf-8").splitlines() if file else [])]
    calls = [_read_call(line, figures=fault is None) for line in lines if line.strip()]
    _confirm(bill_line_id, fault, yes=yes)
    body = {"reason": reason, "calls": calls, "fault": fault}
    _tell(call(hub, key, "POST", f"bill-lines/{segment(bill_line_id)}/corrections", body), as_json=as_json)


@corrections.command("late")
def list_late(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List calls whose records came after their money was closed and that nobody has billed (operator, auditor)."""
    told = call(hub, key, "GET", "late-calls")
    rows = [
        [_source(item), str(item["record"]["request_id"]), *(str(item["record"][name]) for name in COUNTS)]
        for item in told["items"]
    ]
    heads = choose("来源 请求 输入 缓存 输出", "source request prompt cached completion")
    show(told, rows, heads.split(), as_json=as_json)


@corrections.command("bill-late")
def bill_late(
    sources: Annotated[list[str], typer.Argument(help="GATEWAY:EPOCH:SEQ as `late` prints them")],
    key: Key,
    reason: Reason,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Bill late calls (operator): one correction for each bill line that they fall on."""
    body = {"reason": reason, "sources": [_read_source(text) for text in sources]}
    confirm(f"补记 {len(sources)} 次调用，企业将被收费。继续？", f"Bill {len(sources)} calls to their firms?", yes=yes)
    told = call(hub, key, "POST", "late-calls/billed", body)
    heads = choose("更正 账单 版本 状态 差额 其中券 自付 原因", "correction bill version state fee vouchers own reason")
    show(told, [_row(item) for item in told["items"]], heads.split(), as_json=as_json)


@corrections.command("approve")
def approve(
    correction_id: CorrectionId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    reason: Annotated[str, typer.Option("--reason", help="a note")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Approve a correction above the limit, as another operator than its author; its differences are posted."""
    waiting = call(hub, key, "GET", f"corrections/{segment(correction_id)}")
    zh, en = _say_money(waiting)
    confirm(
        f"批准 {correction_id}：{zh}（{waiting['reason']}），立即入账。继续？",
        f"Approve {correction_id}: {en} ({waiting['reason']}), posted at once?",
        yes=yes,
    )
    _decide(hub, key, correction_id, "approve", reason, as_json=as_json)


@corrections.command("refuse")
def refuse(
    correction_id: CorrectionId, key: Key, reason: Reason, hub: Hub = DEFAULT_HUB, as_json: AsJson = False
) -> None:
    """Refuse a waiting correction with a reason; nothing is posted."""
    _decide(hub, key, correction_id, "refuse", reason, as_json=as_json)


def _decide(hub: str, key: str, correction_id: str, decision: str, reason: str, *, as_json: bool) -> None:
    body = {"decision": decision, "reason": reason}
    _tell(call(hub, key, "POST", f"corrections/{segment(correction_id)}/decision", body), as_json=as_json)


def _say_money(item: dict[str, Any]) -> tuple[str, str]:
    """Return what a correction moves: on the bill, and for time that stands on no bill."""
    fee, time = yuan(item["fee_fen"]), yuan(item["elapsed_fen"])
    if not item["elapsed_fen"]:
        return f"差额 {fee}", fee
    return f"差额 {fee}，平台承担的机时 {time}", f"{fee}, and {time} of time that the platform pays"


def _confirm(bill: str, fault: str | None, *, yes: bool) -> None:
    zh, en = ("将退款", "gives money back") if fault else ("按新数值补收或退还差额", "charges or gives back the rest")
    confirm(
        f"更正 {bill}：{zh}，限额以内立即入账。继续？",
        f"Correct {bill}? It {en}; up to the limit at once.",
        yes=yes,
    )


def _path_of(hub: str, key: str, bill: str) -> str:
    """Return the path of a bill's corrections; a run or a rental is looked up for its order."""
    if bill.startswith("bil_"):
        return f"bill-lines/{segment(bill)}/corrections"
    order_id = _find_order(hub, key, bill)
    if not order_id:
        raise InvalidValueError(
            f"You see no bill of {bill}; a run or a rental of yours gets one when it is ordered.",
            f"没有可查看的 {bill} 的账单；本企业的任务或租用在下单后才有账单。",
            field="bill",
        )
    return f"orders/{segment(order_id)}/corrections"


def _find_order(hub: str, key: str, bill: str) -> str | None:
    if bill.startswith("rtl_"):
        found: str | None = call(hub, key, "GET", f"rentals/{segment(bill)}")["order_id"]
        return found
    if bill.startswith("run_"):
        # By its order, not by the run, which is its firm's: the authority reads money alone.
        orders = call(hub, key, "GET", "orders", query={"subject": bill})["items"]
        return orders[0]["id"] if orders else None
    return bill


def _read_call(line: str, *, figures: bool) -> dict[str, Any]:
    """Return a call of a line of words. Raises: InvalidValueError."""
    request_id, *counts = line.split()
    name, _, attempt = request_id.partition(":")
    numbers = [attempt or "0", *counts]
    if len(counts) != (3 if figures else 0) or not all(word.isascii() and word.isdecimal() for word in numbers):
        raise InvalidValueError(
            f"'{line[:80]}' is no call: REQUEST[:ATTEMPT] PROMPT CACHED COMPLETION; for a refund REQUEST alone.",
            f"“{line[:80]}”格式不对：请求号[:次数] 输入 缓存 输出；退款时只填请求号。",
            field="calls",
        )
    return {"request_id": name, "attempt": int(attempt or 0)} | {
        label: int(count) for label, count in zip(COUNTS, counts, strict=False)
    }


def _source(item: dict[str, Any]) -> str:
    return f"{item['gateway_id']}:{item['gateway_epoch']}:{item['seq']}"


def _read_source(text: str) -> dict[str, Any]:
    gateway_id, *rest = text.rsplit(":", 2)
    if not gateway_id or len(rest) != 2 or not all(word.isascii() and word.isdecimal() for word in rest):
        raise InvalidValueError(
            f"'{text[:80]}' is no source; give GATEWAY:EPOCH:SEQ as `guanmo corrections late` prints it.",
            f"“{text[:80]}”不是来源，请按 guanmo corrections late 的输出填写 网关:代次:序号。",
            field="sources",
        )
    return {"gateway_id": gateway_id, "gateway_epoch": int(rest[0]), "seq": int(rest[1])}


def _row(item: dict[str, Any]) -> list[str]:
    bill = item["order_id"] or item["bill_line_id"]
    money = [yuan(item[name]) for name in ("fee_fen", "voucher_fen", "self_paid_fen")]
    return [item["id"], bill, str(item["number"] or "-"), item["state"], *money, item["reason"]]


def _tell(item: dict[str, Any], *, as_json: bool) -> None:
    limit = yuan(item["approval_limit_fen"])
    waits = choose(f"超过 {limit}，待另一名运营人员批准", f"above {limit}: it waits for another operator")
    show_facts(
        item,
        [
            (choose("更正", "correction"), item["id"]),
            (choose("账单", "bill"), item["order_id"] or item["bill_line_id"]),
            (choose("状态", "state"), f"{item['state']}  {waits if item['state'] == 'proposed' else ''}".strip()),
            (choose("版本", "version"), str(item["number"] or "")),
            (choose("差额", "difference"), yuan(item["fee_fen"])),
            (choose("其中券", "of it vouchers"), yuan(item["voucher_fen"])),
            (choose("自付", "own part"), yuan(item["self_paid_fen"])),
            (choose("平台垫付", "platform advanced"), yuan(item["advanced_fen"]) if item["advanced_fen"] else ""),
            (choose("平台承担的机时", "time the platform pays"), yuan(item["elapsed_fen"] or None)),
            (choose("责任方", "fault"), item["fault"] or ""),
            (choose("计量", "metered"), json.dumps(item["metered"], ensure_ascii=False)),
            (choose("原因", "reason"), item["reason"]),
            (choose("提出", "proposed"), f"{item['proposed_by']} {local_time(item['proposed_at'])}"),
            (choose("审批", "decided"), f"{item['decided_by'] or ''} {local_time(item['decided_at'])}".strip()),
            (choose("审批说明", "note"), item["decision_reason"] or ""),
        ],
        as_json=as_json,
    )
