"""`guanmo up`, `down`, `status`, `logs`: the life of the processes on this machine.

It leaves how they are started and stopped to `hub.cli.supervision`.
"""

import os
import signal
import threading
from collections import deque
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hub.cli.home import prepare_home
from hub.cli.processes import Process
from hub.cli.supervision import read_conditions, start_all, stop_all, wait_until_well
from hub.errors import NotFoundError
from hub.settings import Settings, read_settings

START_TIMEOUT_S = 240.0
console = Console(stderr=True, highlight=False)


def up(detach: Annotated[bool, typer.Option(help="Return as soon as everything answers.")] = False) -> None:
    """Start the marketplace (first: secrets, database) and keep it until Ctrl-C."""
    keep_up(read_settings(os.environ), detach=detach)


def keep_up(settings: Settings, processes: list[Process] | None = None, *, detach: bool = False) -> None:
    """Start the processes (default: all of the marketplace) and stop them on SIGINT, SIGTERM or a failed start."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_home(settings)
    start_all(settings, processes)
    try:
        wait_until_well(settings, timeout_s=START_TIMEOUT_S, tell=_tell, processes=processes)
        console.print(f"Marketplace / 超市: {settings.hub_url}\nOpenAI base_url: {settings.gateway_url}")
        if not detach:
            wait_for_interrupt("Ctrl-C stops it / 按 Ctrl-C 停止")
    except BaseException:
        stop_all(settings)
        raise
    if not detach:
        stop_all(settings)
        console.print("Stopped; nothing is left running / 已全部停止")


def down() -> None:
    """Stop everything of this installation, engines and trainers included."""
    settings = read_settings(os.environ)
    swept = stop_all(settings)
    console.print(f"Stopped; {swept} engine or trainer processes were ended too / 已停止")


def status() -> None:
    """Show each process; exit 1 unless all are well."""
    conditions = read_conditions(read_settings(os.environ))
    if not conditions:
        console.print("Nothing is running. Start with 'guanmo up' or 'make demo' / 未运行")
        raise typer.Exit(1)
    table = Table("process", "state", "pid", "up s", "answers", "address")
    for item in conditions:
        table.add_row(
            item.name, item.state, str(item.pid), str(item.since_s), "yes" if item.healthy else "no", item.url
        )
    Console().print(table)
    raise typer.Exit(0 if all(item.healthy for item in conditions) else 1)


def logs(
    name: Annotated[str, typer.Argument(help="mlflow, hub, pool, gateway, worker; empty: the names there are")] = "",
    lines: Annotated[int, typer.Option("-n", min=1, max=10_000, help="how many lines from the end")] = 50,
) -> None:
    """Print the end of a process's log."""
    folder = read_settings(os.environ).home / "logs"
    found = sorted(path.stem for path in folder.glob("*.log"))
    if not name:
        typer.echo("\n".join(found))
        return
    if name not in found:
        raise NotFoundError.of("log", f"{name} (there are: {', '.join(found) or 'none yet'})")
    typer.echo("".join(_read_tail(folder / f"{name}.log", lines)), nl=False)


def wait_for_interrupt(message: str) -> None:
    """Print the message and wait for SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    console.print(message)
    while not stop.wait(1):
        pass


def _tell(name: str, seconds: float) -> None:
    console.print(f"  {name} ready in {seconds:.1f} s")


def _read_tail(path: Path, lines: int) -> list[str]:
    with path.open(errors="replace") as file:
        return list(deque(file, lines))
