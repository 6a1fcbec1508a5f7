"""`guanmo machines`: where engines run, one taken out of service with notice and back.

Over the hub's address; moving adapters and finishing calls is the pool controller's matter.
"""

from typing import Annotated, Any

import typer

from hub.cli.calling import DEFAULT_HUB, AsJson, Hub, Key, Yes, call, confirm, segment
from hub.cli.showing import choose, show, show_facts

machines = typer.Typer(no_args_is_help=True)
NodeId = Annotated[str, typer.Argument(help="machine nod_…, as `list` shows")]
HEADS = ("机器 名称 状态 设备 引擎位 已用 排空时间", "machine name state device places used empty_by")


@machines.callback()
def describe() -> None:
    """Machines of the pool: service and maintenance."""


@machines.command("list")
def list_all(key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """List machines, and by when one under maintenance is empty (operator and auditor)."""
    told = call(hub, key, "GET", "nodes")
    rows = [
        [
            *(row[name] for name in ("id", "name", "state", "device")),
            *(str(row[name]) for name in ("serve_slots", "places_used")),
            row["drain_by"] or "",
        ]
        for row in told["nodes"]
    ]
    show(told, rows, choose(*HEADS).split(), as_json=as_json)


@machines.command("maintain")
def maintain(
    node_id: NodeId,
    key: Key,
    notice_s: Annotated[int, typer.Option("--notice-s", help="until it is empty: 120 s to 7 days")] = 600,
    hub: Hub = DEFAULT_HUB,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take a machine out of service (operator): nothing new comes, engines move and end in time."""
    confirm(
        f"{node_id} 将在 {notice_s} 秒内排空引擎。继续？",
        f"Empty {node_id} of engines within {notice_s} s?",
        yes=yes,
    )
    _tell(call(hub, key, "PUT", f"nodes/{segment(node_id)}/maintenance", {"notice_s": notice_s}), as_json=as_json)


@machines.command("resume")
def resume(node_id: NodeId, key: Key, hub: Hub = DEFAULT_HUB, as_json: AsJson = False) -> None:
    """Let a machine take engines again (operator)."""
    _tell(call(hub, key, "DELETE", f"nodes/{segment(node_id)}/maintenance"), as_json=as_json)


def _tell(told: Any, *, as_json: bool) -> None:
    show_facts(
        told, [(choose("机器", "machine"), told["node_id"]), (choose("状态", "state"), told["state"])], as_json=as_json
    )
