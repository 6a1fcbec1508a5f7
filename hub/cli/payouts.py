"""`guanmo payouts`: a seller asks for what it earned; the operator sends it and enters what the bank said.

Over the hub's address; it leaves what is earned and free, and who may settle what, to the service.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Firm, Hub, Key, Retry, Yes, call, confirm, make_key, segment
from hub.cli.showing import choose, local_time, show, show_whole, yuan
from hub.errors import InvalidValueError

payouts = typer.Typer(no_args_is_help=True)
PayoutId = Annotated[str, typer.Argument(help="payout pay_…")]
STEP_HEADS = ("步骤 状态 流水号 经办 时间 原因", "step state bank_reference by at reason")
SUMS = (
    ("可申请", "may be asked for", "available_fen"),
    ("途中", "on its way", "in_payout_fen"),
    ("应退还", "owed back", "owed_fen"),
)


@payouts.callback()
def describe() -> None:
    """Payouts: ask, take back, send, settle."""


@payouts.command("list")
def list_all(
    key: Key,
    hub: Hub = DEFAULT_HUB,
    organisation: Firm = None,
    state: Annotated[
        str | None, typer.Option(help="requested, in_payout, paid, failed, unknown, netted or withdrawn")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List payouts, newest first: the own ones with what may be asked for, all for operator and auditor."""
    told = call(hub, key, "GET", "payouts", query={"organisation_id": organisation, "state": state})
    rows = [
        [row["id"], row["organisation_id"], row["state"], *_list_amounts(row), local_time(row["requested_at"])]
        for row in told["items"]
    ]
    heads = choose(
        "付款 机构 状态 金额 抵扣 汇出 申请", "payout organisation state amount netted sent requested"
    ).split()
    if any(told[name] is not None for _, _, name in SUMS):
        facts = [(choose(zh, en), yuan(told[name])) for zh, en, name in SUMS]
        show_whole(told, facts, rows, heads, as_json=as_json)
    else:
        show(told, rows, heads, as_json=as_json)


@payouts.command("show")
def show_one(payout_id: PayoutId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Show a payout with every step of it."""
    _tell(call(hub, key, "GET", f"payouts/{segment(payout_id)}"), as_json=as_json)


@payouts.command("request")
def request(
    amount_fen: Annotated[int, typer.Option("--amount-fen", help="of what was earned, in fen")],
    key: Key,
    hub: Hub = DEFAULT_HUB,
    idempotency_key: Retry = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Ask for earned money; what is owed back is netted first, the rest is held until the bank has answered."""
    confirm(
        f"申请付款 {yuan(amount_fen)}，应退还的部分先抵扣。继续？",
        f"Ask for {yuan(amount_fen)}? What is owed back is netted first.",
        yes=yes,
    )
    body = {"amount_fen": amount_fen, "idempotency_key": make_key(idempotency_key)}
    _tell(call(hub, key, "POST", "payouts", body), as_json=as_json)


@payouts.command("withdraw")
def withdraw(payout_id: PayoutId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """Take an own payout back before it is sent; its money is free again."""
    confirm(f"撤回付款 {payout_id}？", f"Take payout {payout_id} back?", yes=yes)
    _tell(call(hub, key, "POST", f"payouts/{segment(payout_id)}/withdrawal"), as_json=as_json)


@payouts.command("send")
def send(payout_id: PayoutId, key: Key, hub: Hub = DEFAULT_HUB, yes: Yes = False, as_json: AsJson = False) -> None:
    """Note that the bank is instructed now (operator, another person than the one who asked); once."""
    row = call(hub, key, "GET", f"payouts/{segment(payout_id)}")
    confirm(
        f"汇出 {payout_id}：{yuan(row['sent_fen'])} 至 {row['organisation_id']}，只汇一次。继续？",
        f"Send {payout_id}: {yuan(row['sent_fen'])} to {row['organisation_id']}, once?",
        yes=yes,
    )
    _tell(call(hub, key, "POST", f"payouts/{segment(payout_id)}/send"), as_json=as_json)


@payouts.command("settle")
def settle(
    payout_id: PayoutId,
    key: Key,
    hub: Hub = DEFAULT_HUB,
    paid: Annotated[str, typer.Option("--paid", help="the bank's reference: it was paid")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="it was not; the money is free again")] = False,
    reason: Annotated[str, typer.Option("--reason", help="for a failed one, and for one that was unknown")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Enter what became of a payout (operator); one that was unknown is settled by another person than its sender."""
    if bool(paid) == failed:
        raise InvalidValueError(
            "Give --paid with the bank's reference, or --failed with --reason; not both.",
            "请给出 --paid 银行流水号，或 --failed 与 --reason，二者择一。",
            field="result",
        )
    told = choose("失败，金额退回可申请", "failed, the money is free again") if failed else choose("已付", "paid")
    confirm(f"登记 {payout_id}：{told}。继续？", f"Enter {payout_id} as {told}?", yes=yes)
    _conclude(hub, key, payout_id, "failed" if failed else "paid", reference=paid, reason=reason, as_json=as_json)


@payouts.command("unknown")
def mark_unknown(
    payout_id: PayoutId,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="what the bank said, or that it was silent")],
    hub: Hub = DEFAULT_HUB,
    as_json: AsJson = False,
) -> None:
    """Enter that nobody knows what became of a payout (operator); its money stays held, nothing is sent again."""
    _conclude(hub, key, payout_id, "unknown", reference="", reason=reason, as_json=as_json)


def _conclude(hub: str, key: str, payout_id: str, result: str, *, reference: str, reason: str, as_json: bool) -> None:
    body = {"result": result, "bank_reference": reference, "reason": reason}
    _tell(call(hub, key, "POST", f"payouts/{segment(payout_id)}/result", body), as_json=as_json)


def _list_amounts(row: dict[str, Any]) -> list[str]:
    return [yuan(row[name]) for name in ("amount_fen", "netted_fen", "sent_fen")]


def _tell(row: dict[str, Any], *, as_json: bool) -> None:
    amount, netted, sent = _list_amounts(row)
    facts = [
        (choose("付款", "payout"), row["id"]),
        (choose("机构", "organisation"), row["organisation_id"]),
        (choose("状态", "state"), row["state"]),
        (choose("金额", "amount"), amount),
        (choose("抵扣", "netted"), netted if row["netted_fen"] else ""),
        (choose("汇出", "sent"), sent),
        (choose("申请", "requested"), f"{row['requested_by']} {local_time(row['requested_at'])}"),
    ]
    steps = [
        [
            str(step["number"]),
            step["state"],
            step["bank_reference"] or "",
            step["actor_id"],
            local_time(step["at"]),
            step["reason"] or "",
        ]
        for step in row["steps"]
    ]
    show_whole(row, facts, steps, choose(*STEP_HEADS).split(), as_json=as_json)
