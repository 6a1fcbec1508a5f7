"""`guanmo demo`: starts everything, trains the bases, seeds the market and runs the journey as an outside client.

It leaves the journey to `examples.journey` and the bases to `examples.bases.train`; both are started by argv.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hub.cli.home import prepare_home
from hub.cli.market import import_bases, seed_demonstration
from hub.cli.running import START_TIMEOUT_S, wait_for_interrupt
from hub.cli.supervision import is_up, start_all, stop_all, wait_until_well
from hub.errors import ConflictError, GuanmoError
from hub.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parent.parent.parent
BASES_FOR_DATA = ("guanmo/demo-letters-3m",)
SAMPLE_FORMATS = ("jsonl", "csv", "xlsx")
console = Console(stderr=True, highlight=False)


class DemoFailedError(GuanmoError):
    """A step of the demonstration failed; the processes it started are stopped."""

    code = "demo_failed"


def run_demo(
    detach: Annotated[bool, typer.Option(help="return with the marketplace running and var/demo.env written")] = False,
    data: Annotated[Path | None, typer.Option(help="folder of company_{a,b,c}.{train,val}.norm files")] = None,
    split: Annotated[str, typer.Option(help="which files of --data to score on")] = "val",
    plan: Annotated[str, typer.Option(help="how long to train on --data: usual or longer")] = "usual",
) -> None:
    """Run the whole journey for real, from nothing to a statement; then stay open until Ctrl-C."""
    settings = read_settings(os.environ)
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _only_one(settings):
        found_running = is_up(settings)
        try:
            _prepare(settings, found_running, more_bases=BASES_FOR_DATA if data else ())
            _run_journey(settings, data, split=split, plan=plan)
        except BaseException as error:
            _clean_up(settings, found_running)
            raise _explain(error) from error
        console.print(f"Whole demonstration / 全程用时: {time.monotonic() - began:.0f} s")
        _stay(settings, detach=detach)


def _prepare(settings: Settings, found_running: bool, *, more_bases: Sequence[str]) -> None:
    prepare_home(settings)
    if found_running:
        console.print("Using the marketplace that is running already / 使用已运行的超市")
    else:
        start_all(settings)
    bases = _train_bases(settings, more_bases)
    wait_until_well(settings, timeout_s=START_TIMEOUT_S, tell=lambda name, s: console.print(f"  {name} ready / 就绪"))
    seed_demonstration(settings)
    _write_samples(settings)
    import_bases(settings, bases)


def _train_bases(settings: Settings, more: Sequence[str]) -> list[Path]:
    folder = settings.home / "bases"
    _call(["-m", "examples.bases.train", str(folder)], "Training the base models / 训练基座模型")
    for name in more:
        _call(["-m", "examples.bases.train", str(folder), "--name", name], f"Training {name} / 训练 {name}")
    return sorted(path.parent for path in folder.glob("*/config.json"))


def _write_samples(settings: Settings) -> None:
    folder = settings.home / "samples"
    for kind in SAMPLE_FORMATS:
        sample = folder / f"sample.{kind}"
        if not sample.is_file():
            _call(["-m", "examples.tasks.work_orders", str(folder), "--format", kind], f"Sample data / 样例数据 {kind}")
            (folder / f"work_orders.{kind}").rename(sample)


def _run_journey(settings: Settings, data: Path | None, *, split: str, plan: str) -> None:
    module = "examples.journey" if data is None else "examples.factories"
    arguments = ["--hub", settings.hub_url, "--gateway", settings.gateway_url, "--home", str(settings.home)]
    if data is not None:
        arguments += ["--data", str(data.absolute()), "--split", split, "--plan", plan]
    _call(["-m", module, *arguments], "The journey / 全流程")


def _call(arguments: list[str], title: str) -> None:
    console.rule(title)
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise DemoFailedError(
            f"'{title}' ended with exit {done.returncode}; its message is above. Mend that and run 'make demo' again: "
            "what was finished is reused.",
            f"“{title}”失败（退出码 {done.returncode}），原因见上。修正后重新运行 make demo 即可继续。",
        )


def _stay(settings: Settings, *, detach: bool) -> None:
    if detach:
        console.print(f"Running / 运行中: {settings.hub_url} ; settings for scripts in {settings.home / 'demo.env'}")
        return
    wait_for_interrupt(f"Open {settings.hub_url} ; Ctrl-C stops everything / 按 Ctrl-C 全部停止")
    stop_all(settings)
    console.print("Stopped; nothing is left running / 已全部停止")


def _clean_up(settings: Settings, found_running: bool) -> None:
    if not found_running:
        console.print("Stopping what was started / 正在停止 …")
        stop_all(settings)


def _explain(error: BaseException) -> BaseException:
    if isinstance(error, KeyboardInterrupt):
        return DemoFailedError(
            "Interrupted; nothing is left running. 'make demo' continues with what was finished.",
            "已中断，未留下任何进程。重新运行 make demo 即可继续。",
        )
    return error


@contextlib.contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    (settings.home / "run").mkdir(parents=True, exist_ok=True)
    with (settings.home / "run" / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConflictError(
                f"Another demonstration is running in {settings.home}; wait for it, or set GUANMO_HOME.",
                f"{settings.home} 中已有演示在运行，请等待其结束，或设置 GUANMO_HOME。",
            ) from None
        yield
