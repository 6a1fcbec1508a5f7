"""Shows how far a training is, on stderr: a bar on a terminal, a line every few seconds elsewhere.

What a step does is left to the caller.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0


def show_steps(title: str, steps: int) -> Callable[[int, float], None]:
    """A function to call after each step with the steps done and the loss in nats."""
    if sys.stderr.isatty():
        return _draw_bar(title, steps)
    return _print_lines(title, steps)


def _draw_bar(title: str, steps: int) -> Callable[[int, float], None]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    task = progress.add_task(title, total=steps, loss=0.0)
    progress.start()

    def show(done: int, loss: float) -> None:
        progress.update(task, completed=done, loss=loss)
        if done == steps:
            progress.stop()

    return show


def _print_lines(title: str, steps: int) -> Callable[[int, float], None]:
    began_s = shown_s = time.monotonic()

    def show(done: int, loss: float) -> None:
        nonlocal shown_s
        now_s = time.monotonic()
        if done == steps or now_s - shown_s >= _LINE_EVERY_S:
            shown_s = now_s
            left_s = (now_s - began_s) / done * (steps - done)
            print(f"{title}: step {done}/{steps}, loss {loss:.3f}, {left_s:.0f} s left", file=sys.stderr, flush=True)

    return show
