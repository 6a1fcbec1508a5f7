"""What the example programs show on the terminal: headings, bills, bars. It knows no rule of the market."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

console = Console(highlight=False, soft_wrap=False)


def heading(text: str) -> None:
    """Start a part of the journey."""
    console.rule(f"[bold]{text}")


def tell(text: str) -> None:
    """Print one fact."""
    console.print(f"  {text}")


def yuan(amount_fen: int) -> str:
    """Return fen as yuan with two decimals."""
    sign = "-" if amount_fen < 0 else ""
    return f"{sign}¥{abs(amount_fen) // 100:,}.{abs(amount_fen) % 100:02d}"


def show_bill(lines: list[dict[str, Any]], title: str) -> None:
    """Print bill lines: list price, what each voucher pays, what is self-paid."""
    table = Table(title=title, title_justify="left")
    for name in ("line", "quantity", "list", "vouchers", "self-paid"):
        table.add_column(name, justify="left" if name in ("line", "vouchers") else "right")
    for line in lines:
        covers = ", ".join(f"{item['programme']} {yuan(item['amount_fen'])}" for item in line.get("covers", []))
        quantity = f"{line['quantity']:,} {line['meter']}"
        name = line["title"]["en"]
        table.add_row(name, quantity, yuan(line["list_fen"]), covers or "-", yuan(line["self_paid_fen"]))
    console.print(table)


@contextmanager
def bar(title: str) -> Iterator["Bar"]:
    """Show a progress bar; outside a terminal it prints a line now and then."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        yield Bar(progress, title)


class Bar:
    """One bar whose length may become known later."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=None, note="")
        self._printed = ""

    def update(self, *, done: float | None = None, total: float | None = None, note: str = "") -> None:
        """Move the bar and its note."""
        self._progress.update(self._task, completed=done, total=total, note=note)
        word = note.split(" ")[0]
        if not console.is_terminal and word != self._printed:
            console.print(f"    {note}")
            self._printed = word
