"""How long a trainer lives and is silent goes by the worker's own monotonic clock, whatever other clocks say."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from hub.clock import read_clock
from hub.jobs.watching import Watches
from hub.tuning.tables import RunAttempt
from serving.launch import Handle
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_stuck_trainers import read_ends
from tests.hub.runs.test_worker import OVER

HANDLE = Handle("train-run_1-a1", 7, "boot", 1, read_clock() - timedelta(days=3), Path("log"), ("x",), {})


def test_life_and_silence_are_counted_from_what_this_worker_saw(tmp_path: Path) -> None:
    now_s = 100.0
    watches = Watches(read_s=lambda: now_s)
    progress = tmp_path / "progress.jsonl"
    assert watches.look(HANDLE, progress) == (0, 0), "when it was started by another clock does not count"
    now_s = 130.0
    assert watches.look(HANDLE, progress) == (30, 30)
    progress.write_text("{}\n")
    os.utime(progress, (0, 0))  # a clock set back by decades
    assert watches.look(HANDLE, progress) == (30, 0)
    now_s = 150.0
    assert watches.look(HANDLE, progress) == (50, 20)
    with progress.open("a") as stream:
        stream.write("{}\n")
    os.utime(progress, (0, 0))
    assert watches.look(HANDLE, progress) == (50, 0), "a longer file is news, whatever time it bears"


def test_another_process_of_the_name_and_another_worker_begin_anew(tmp_path: Path) -> None:
    now_s = 0.0
    watches = Watches(read_s=lambda: now_s)
    watches.look(HANDLE, tmp_path / "none")
    now_s = 50.0
    assert watches.look(replace(HANDLE, start_ticks=2), tmp_path / "none") == (0, 0)
    watches.forget(HANDLE.name)
    assert watches.look(HANDLE, tmp_path / "none") == (0, 0)
    assert Watches(read_s=lambda: now_s).look(HANDLE, tmp_path / "none") == (0, 0)
    now_s = 3_651.0
    watches.look(replace(HANDLE, name="another"), tmp_path / "none")
    assert watches.look(HANDLE, tmp_path / "none") == (0, 0), "what nobody looked at for an hour is dropped"


def test_a_clock_of_the_database_that_is_hours_ahead_ends_no_healthy_trainer(scene: Scene) -> None:
    run = scene.order_run(epochs=3)
    worker = scene.make_worker()
    worker.work = replace(worker.work, clock=lambda: read_clock() + timedelta(hours=3))
    run_until(worker, lambda: scene.read_run(run["id"])["state"] in OVER)
    assert read_ends(scene.read_run(run["id"])) == [("ended", "done")]


def test_a_clock_that_went_back_leaves_no_negative_time_of_an_attempt(scene: Scene) -> None:
    run = scene.order_run(epochs=5, patience=7)  # its first attempt dies after the second step
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "preparing")
    worker.work = replace(worker.work, clock=lambda: read_clock() - timedelta(seconds=15))
    run_until(worker, lambda: len(scene.read_run(run["id"])["attempts"]) == 2)
    with scene.sessions.read() as session:
        lost = session.scalars(select(RunAttempt).where(RunAttempt.attempt == 1)).one()
    assert lost.elapsed_device_ms == 0
