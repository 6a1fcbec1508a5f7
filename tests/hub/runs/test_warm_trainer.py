"""A worker beside a warm trainer: its trainers are forks of that one. Forking itself: `tests/pool/test_launch.py`."""

from dataclasses import replace
from pathlib import Path

from hub.jobs.loop import JobLoop, Kind
from hub.jobs.trainer import locate_warm_trainer, open_launch
from hub.tuning.kinds import GATE_KIND
from hub.worker import list_kinds, list_lanes
from tests.faults_finetune import warm_twin
from tests.finetune.conftest import keep_warm
from tests.hub.runs.scene import Scene, gate_by_trainer, run_until, secrets


def test_trainers_are_forked_where_a_warm_one_listens_and_outlive_it(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.06)
    work = replace(scene.work, launch=open_launch(scene.home))
    kinds = list_kinds(scene.settings, secrets()) | {GATE_KIND: Kind(gate_by_trainer, "beside")}
    worker = JobLoop(work, "w1", kinds, list_lanes(2))
    with keep_warm(locate_warm_trainer(scene.home), (warm_twin.__file__,)):
        run_until(worker, lambda: scene.read_run(run["id"])["state"] == "running")
    (handle,) = work.launch.list_mine()
    assert b"warm_twin.py" in Path(f"/proc/{handle.pid}/cmdline").read_bytes()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "succeeded")
    assert scene.read_run(run["id"])["trained_tokens"] == 5000
