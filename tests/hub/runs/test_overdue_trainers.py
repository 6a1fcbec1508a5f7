"""Checks, previews and plans that do not end are ended; a process that the kernel will not let go is tried again."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.datasets import checking, previewing
from hub.datasets.previews import PREVIEW_KIND
from hub.datasets.service import CHECK_KIND
from hub.datasets.tables import DatasetPreview, DatasetState, DatasetVersion, PreviewState
from hub.jobs.sweeping import reap_trainers
from hub.jobs.tables import Job
from hub.tuning import planning, rules
from hub.tuning.kinds import PLAN_KIND
from serving.launch import Handle, LaunchSpec, LocalLaunch, Observed, ProcessState, StillRunningError
from tests.hub.runs.scene import Scene, run_until, sound_rows
from tests.hub.runs.test_stuck_trainers import STANDS_STILL, impatient, read_ends  # noqa: F401  a fixture
from tests.hub.runs.test_worker import OVER
from tests.hub.runs.twin_launch import TwinLaunch

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


class SleepyLaunch(TwinLaunch):
    """What is started does nothing and does not end."""

    def start(self, spec: LaunchSpec) -> Handle:
        """Start a sleeper in place of the trainer."""
        return LocalLaunch.start(self, replace(spec, argv=SLEEP))


class StubbornLaunch(TwinLaunch):
    """Stands for a kernel that does not let a process go the first `times` times it is killed."""

    times = 2

    def fence(self, handle: Handle, *, timeout_s: float = 10.0) -> Observed:
        """Give up at once where the process stays."""
        if self.times > 0:
            self.times -= 1
            raise StillRunningError(f"{handle.name} outlived SIGKILL")
        return super().fence(handle, timeout_s=timeout_s)


def work_asleep(scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Let a worker whose trainers sleep do a job to its only try's end; the real limits are hours."""
    for module, name in ((checking, "MOST_CHECK_S"), (previewing, "MOST_PREVIEW_S"), (planning, "MOST_PLAN_S")):
        monkeypatch.setattr(module, name, 0.2)
    with scene.sessions.write() as session:
        session.scalars(select(Job).where(Job.kind == kind)).one().max_failures = 1
    worker = scene.make_worker()
    worker.work = replace(worker.work, launch=SleepyLaunch(scene.home / "run" / "trainers"))

    def read_job() -> Job:
        with scene.sessions.read() as session:
            return session.scalars(select(Job).where(Job.kind == kind)).one()

    run_until(worker, lambda: read_job().failures == 1)
    assert scene.work.launch.list_mine() == []
    return read_job()


def test_a_check_that_does_not_end_is_ended_and_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scene.upload(sound_rows()).status_code in (200, 201, 202)
    job = work_asleep(scene, CHECK_KIND, monkeypatch)
    assert "the limit is 0 s" in (job.last_error or "")
    with scene.sessions.read() as session:
        version = session.scalars(select(DatasetVersion)).one()
    assert (version.state, version.reason_code) == (DatasetState.FAILED, "took_too_long")


def test_a_plan_that_does_not_end_is_ended_and_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"base": scene.base, "dataset_id": scene.add_dataset(), "model_name": "orders", "recipe": {}}
    answer = scene.call("POST", "/api/v1/runs", "factory", json=body)
    work_asleep(scene, PLAN_KIND, monkeypatch)
    run = scene.read_run(str(answer.json["id"]))  # type: ignore[index]
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "took_too_long", "platform")
    assert "was ended; try again" in run["message"]


def test_a_preview_that_does_not_end_is_ended_and_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_id = scene.add_dataset()
    path = f"/api/v1/datasets/{dataset_id}/previews"
    assert scene.call("POST", path, "factory", json={"base": scene.base}).status_code in (200, 201, 202)
    work_asleep(scene, PREVIEW_KIND, monkeypatch)
    with scene.sessions.read() as session:
        preview = session.scalars(select(DatasetPreview)).one()
    assert (preview.state, preview.reason_code) == (PreviewState.FAILED, "took_too_long")
    assert "was ended; try again" in (preview.message or "")


def test_limits_are_generous() -> None:
    assert min(checking.MOST_CHECK_S, planning.MOST_PLAN_S) >= 3_600
    assert previewing.MOST_PREVIEW_S >= 600


@pytest.mark.usefixtures("impatient")
def test_a_stuck_trainer_that_the_kernel_will_not_let_go_is_tried_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.tuning.training.STUBBORN_S", 0.1)
    monkeypatch.setattr(rules, "MAX_PLATFORM_ATTEMPTS", 1)
    run = scene.order_run(epochs=5, patience=STANDS_STILL)
    worker = scene.make_worker()
    stubborn = StubbornLaunch(scene.home / "run" / "trainers")
    worker.work = replace(worker.work, launch=stubborn)
    run_until(worker, lambda: scene.read_run(run["id"])["state"] in OVER)
    assert stubborn.times == 0
    assert read_ends(scene.read_run(run["id"])) == [("lost", "stalled")]
    with scene.sessions.read() as session:
        job = session.scalars(select(Job).where(Job.kind == "run.train")).one()
    assert job.failures == 0, "it was no failure of the job"


def test_the_sweep_goes_on_to_the_next_when_one_will_not_go(scene: Scene, tmp_path: Path) -> None:
    stubborn = StubbornLaunch(scene.home / "run" / "trainers")
    stubborn.times = 1
    work = replace(scene.work, launch=stubborn)
    for name in ("a", "b"):
        labels = {"job": "job_gone", "kind": "none", "subject": name}
        env = {"PATH": os.environ["PATH"]}
        stubborn.start(
            LaunchSpec(name=name, argv=SLEEP, env=env, cwd=tmp_path, log_path=tmp_path / "log", labels=labels)
        )
    assert reap_trainers(work) == 1
    (left,) = stubborn.list_mine()
    assert (left.name, stubborn.poll(left).state) == ("a", ProcessState.RUNNING)
    assert reap_trainers(work) == 1
    assert stubborn.list_mine() == []
