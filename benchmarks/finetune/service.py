"""The same run through the marketplace and bare: its speed, and the seconds from accepting the quote to the first step.

A hub and a worker of their own are started in a temporary folder, without engines; the first run starts cold, the
second one with a warm trainer beside the worker. Publishing the adapter is not waited for.
"""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.finetune.contenders import RECIPE, Task, find_loop_s, read_progress, start_ours
from benchmarks.finetune.warm import warm_trainer
from examples import steps
from finetune.spec import Event, RunSpec
from hub.cli.home import prepare_home
from hub.cli.market import import_bases, seed_demonstration
from hub.cli.processes import list_processes
from hub.cli.supervision import start_all, stop_all, wait_until_well
from hub.settings import Settings, read_settings

_CASH_FEN = 500_000
_PATIENCE_S = 600.0
_PORTS = ("GUANMO_HUB_PORT", "GUANMO_GATEWAY_PORT", "GUANMO_POOL_PORT", "GUANMO_MLFLOW_PORT")


def measure_service(task: Task, folder: Path, *, rounds: int) -> dict[str, float]:
    """Ratios of medians; market and bare runs take turns, each pair on one specification."""
    taken: dict[str, list[float]] = {}
    with open_market(folder / "home") as settings:
        seller = Seller(settings, task, folder)
        task = replace(task, threads=seller.threads)  # the bare run gets what the offer gives
        for number in range(rounds):
            _take(taken, "cold", seller.train(), task, folder / f"bare-cold-{number}")
        with warm_trainer(task, settings.home):
            for number in range(rounds):
                _take(taken, "warm", seller.train(), task, folder / f"bare-warm-{number}")
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "service_vs_bare": round(statistics.median(taken["speed_ratio"]), 3),
        "first_step_cold": round(medians["cold_s"] / medians["bare_s"], 3),
        "first_step_warm": round(medians["warm_s"] / medians["bare_s"], 3),
        **{f"first_step_{name}": round(medians[name], 2) for name in ("bare_s", "cold_s", "warm_s")},
    }


@contextmanager
def open_market(home: Path) -> Iterator[Settings]:
    """Hub and worker on free ports, seeded as the demonstration is; whatever happens, they are stopped."""
    ports = {name: str(_find_port()) for name in _PORTS}
    settings = read_settings({"GUANMO_HOME": str(home), **ports})
    prepare_home(settings)
    processes = [process for process in list_processes(settings) if process.name in ("hub", "worker")]
    start_all(settings, processes)
    try:
        wait_until_well(settings, timeout_s=_PATIENCE_S, tell=lambda *_: None, processes=processes)
        seed_demonstration(settings)
        yield settings
    finally:
        stop_all(settings)


class Seller:
    """The demonstration's factory with the rows of the task uploaded; `train` runs them once."""

    def __init__(self, settings: Settings, task: Task, folder: Path) -> None:
        self._home = settings.home
        import_bases(settings, [task.base])
        self._factory = steps.sign_in(settings.hub_url, settings.home, "factory")
        operator = steps.sign_in(settings.hub_url, settings.home, "operator")
        self._base = f"guanmo/{task.base.name}"
        steps.file_base(operator, self._base, "DEMO-备案-0001", folder)
        steps.top_up(operator, self._factory, _CASH_FEN)
        self._dataset = steps.upload_dataset(self._factory, _merge(task, folder), "speed")
        offers = self._factory.get("/api/v1/offers")["offers"]
        self._offer = max(offers, key=lambda offer: float(offer["tokens_per_s"]))
        self.threads = int(self._offer["cpu_threads"])

    def train(self) -> tuple[Path, float]:
        """Folder of the finished attempt, and seconds from accepting the quote to the first step's line."""
        run = steps.plan_run(
            self._factory, base=self._base, dataset=self._dataset["id"], model="speed", recipe=dict(RECIPE)
        )
        quote = steps.quote_run(self._factory, run, self._offer["id"])
        accepted_us = time.time_ns() // 1000
        self._factory.post(
            f"/api/v1/runs/{run['id']}/accept", idempotency_key=f"accept-{quote['id']}", quote_id=quote["id"]
        )
        out = self._home / "runs" / str(run["id"]) / "1"
        deadline = time.monotonic() + _PATIENCE_S
        while not (out / "result.json").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{out} has no result after {_PATIENCE_S:.0f} s; see its trainer.log")
            time.sleep(0.05)
        return out, (_find_first_step(out) - accepted_us) / 1e6


def _take(taken: dict[str, list[float]], kind: str, sold: tuple[Path, float], task: Task, bare: Path) -> None:
    """Note one run through the marketplace and the same specification bare."""
    out, start_s = sold
    spec = RunSpec.from_json((out / "spec.json").read_text(encoding="utf-8"))
    began_us = time.time_ns() // 1000
    process = start_ours(replace(spec, resume_from=None), task, bare)
    if process.wait(_PATIENCE_S) != 0:
        raise RuntimeError(f"the bare run failed; see {bare / 'log'}")
    taken.setdefault(f"{kind}_s", []).append(start_s)
    taken.setdefault("bare_s", []).append((_find_first_step(bare) - began_us) / 1e6)
    taken.setdefault("speed_ratio", []).append(find_loop_s(read_progress(bare)) / find_loop_s(read_progress(out)))
    print(f"service {kind:5} {json.dumps({name: round(values[-1], 3) for name, values in taken.items()})}", flush=True)


def _find_first_step(out: Path) -> int:
    return next(line.at for line in read_progress(out) if line.type is Event.STEP)


def _merge(task: Task, folder: Path) -> Path:
    """One upload of both files, each row marked with its side."""
    lines = []
    for split, path in (("train", task.train), ("valid", task.valid)):
        for line in path.read_text(encoding="utf-8").splitlines():
            lines.append(json.dumps({**json.loads(line), "split": split}, ensure_ascii=False))
    upload = folder / "upload.jsonl"
    upload.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return upload


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
