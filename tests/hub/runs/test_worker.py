"""Workers that die, stop and stand side by side; chores; the mirror that may fail without harm."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.clock import read_clock
from hub.compute.tables import Node, Rental
from hub.deployments.tables import Deployment
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.sweeping import reap_trainers
from hub.jobs.tables import Job, JobState, LockRow
from hub.jobs.trainer import ask_cancel, ask_pause
from hub.jobs.work import Verdict, Work, failed
from hub.orders.tables import Order, OrderState
from hub.secrets import make_secrets
from hub.tuning.endings import fail_orphaned_runs
from hub.tuning.mirroring import MirrorVersions
from hub.tuning.progress import locate_attempt
from hub.tuning.service import expire_runs
from hub.tuning.tables import Run
from hub.worker import ROLE, Chore, Worker, list_lanes, stop_trainers
from registry.mirror_records import MirroredRun, MirroredVersion
from registry.mlflow_mirror import MirrorUnavailableError
from serving.launch import LaunchSpec, ProcessState
from tests.hub.runs.scene import ROOT, Scene, run_until

OVER = {"succeeded", "failed", "cancelled", "held"}


def start_worker(scene: Scene) -> "subprocess.Popen[bytes]":
    url = str(scene.sessions.engine.url)
    script = Path(__file__).with_name("killable_worker.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(script), str(scene.home), url], env=environment, cwd=ROOT)


def wait_for_state(scene: Scene, run_id: str, state: str) -> None:
    deadline = time.monotonic() + 120
    while scene.read_run(run_id)["state"] != state:
        assert time.monotonic() < deadline, scene.read_run(run_id)["state"]
        time.sleep(0.05)


def test_a_trainer_outlives_its_killed_worker_and_is_adopted_by_the_next(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    killed = start_worker(scene)
    try:
        wait_for_state(scene, run["id"], "running")
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    (handle,) = scene.work.launch.list_mine()
    assert scene.work.launch.poll(handle).state is ProcessState.RUNNING
    worker = scene.make_worker("next")
    run_until(worker, lambda: scene.read_run(run["id"])["state"] in OVER, timeout_s=90)
    done = scene.read_run(run["id"])
    assert done["state"] == "succeeded"
    assert [row["attempt"] for row in done["attempts"]] == [1], "adopted, not started again"
    assert done["trained_tokens"] == 5000
    with scene.sessions.read() as session:
        job = session.scalars(select(Job).where(Job.kind == "run.train")).one()
        assert session.get_one(Order, run["order_id"]).state is OrderState.SETTLED
    assert (job.state, job.attempts) == (JobState.DONE, 2)


def test_a_stopped_worker_hands_its_jobs_back_at_once(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.06)
    first = scene.make_worker("first")
    run_until(first, lambda: scene.read_run(run["id"])["state"] == "running")
    assert first.hand_back() == 1
    second = scene.make_worker("second")
    second.tick()
    with scene.sessions.read() as session:
        job = session.scalars(select(Job).where(Job.kind == "run.train")).one()
    assert (job.state, job.locked_by) == (JobState.LOCKED, "second")


def test_one_trainer_at_a_time_on_two_cores(scene: Scene) -> None:
    assert list_lanes(2) == {"light": 1, "train": 1, "beside": 2}
    assert list_lanes(16)["train"] == 8


def test_a_full_offer_makes_the_next_run_wait(scene: Scene) -> None:
    run = scene.order_run(epochs=3)
    now = read_clock()
    with scene.sessions.write() as session:
        from hub.compute.allocation import allocate, release
        from hub.compute.tables import RentalPurpose

        other = allocate(
            session,
            organisation_id=scene.actors["rival"].organisation_id,
            offer_id=scene.offers["city"],
            purpose=RentalPurpose.TRAIN,
            run_id="run_other",
            now=now,
        )
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] == "waiting_capacity")
    with scene.sessions.write() as session:
        release(session, other.id, device_ms=0, now=now)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] in OVER)
    with scene.sessions.read() as session:
        epochs = session.scalars(select(Rental.allocation_epoch).order_by(Rental.id)).all()
    assert epochs == [1, 2]


def test_a_handler_that_breaks_is_tried_again_and_given_up_with_a_refund(scene: Scene) -> None:
    def broken(_work: Work, _claim: Any) -> Verdict:
        raise OSError("no space left on device")

    run = scene.order_run()
    worker = scene.make_worker(run_train=Kind(broken, "train"))
    worker.tick()
    with scene.sessions.write() as session:
        job = session.scalars(select(Job).where(Job.kind == "run.train")).one()
        assert (job.state, job.failures) == (JobState.WAITING, 1)
        assert job.last_error == "OSError: no space left on device"
        assert fail_orphaned_runs(session, now=read_clock()) == 0
        job.failures, job.run_after = job.max_failures - 1, read_clock()
    worker.tick()
    with scene.sessions.write() as session:
        assert session.scalars(select(Job).where(Job.kind == "run.train")).one().state is JobState.FAILED
        assert fail_orphaned_runs(session, now=read_clock()) == 1
    done = scene.read_run(run["id"])
    assert (done["state"], done["fault"]) == ("failed", "platform")
    with scene.sessions.read() as session:
        order = session.get_one(Order, run["order_id"])
    assert (order.state, order.charged_fen) == (OrderState.REFUNDED, 0)


def test_leaked_trainers_are_reaped_and_live_ones_left_alone(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.06)
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "running")
    work = scene.work
    leaked = work.launch.start(
        LaunchSpec(
            name="leaked",
            argv=(sys.executable, "-c", "import time; time.sleep(60)"),
            env={"PATH": os.environ["PATH"]},
            cwd=scene.home,
            log_path=scene.home / "leaked.log",
            labels={"job": "job_gone", "kind": "dataset.check"},
        )
    )
    assert reap_trainers(work) == 1
    assert work.launch.find(leaked.name) is None
    (alive,) = work.launch.list_mine()
    assert work.launch.poll(alive).state is ProcessState.RUNNING


def train_until(scene: Scene, worker: JobLoop, run_id: str, attempt: int) -> None:
    """Let a worker work until that attempt makes steps."""

    def is_there() -> bool:
        run = scene.read_run(run_id)
        return (run["attempt"], run["state"]) == (attempt, "running")

    run_until(worker, is_there)


def wait_for_end(scene: Scene) -> None:
    """Wait for the end of the only trainer, of which no worker hears meanwhile."""
    (handle,) = scene.work.launch.list_mine()
    deadline = time.monotonic() + 30
    while scene.work.launch.poll(handle).state in (ProcessState.STARTING, ProcessState.RUNNING):
        assert time.monotonic() < deadline, "the trainer does not end"
        time.sleep(0.05)


def kill_trainer(scene: Scene) -> None:
    (handle,) = scene.work.launch.list_mine()
    assert scene.work.launch.signal(handle, "kill")


def ask(scene: Scene, run_id: str, wish: str) -> None:
    assert scene.call("POST", f"/api/v1/runs/{run_id}/{wish}", "factory").status_code == 202


def check_cancelled(scene: Scene, worker: JobLoop, run_id: str) -> None:
    """The run ends as cancelled at the worker's next look, with its committed part billed and no failure counted."""
    run_until(worker, lambda: scene.read_run(run_id)["state"] in OVER | {"paused"})
    done = scene.read_run(run_id)
    assert (done["state"], done["reason_code"]) == ("cancelled", "user_cancelled")
    with scene.sessions.read() as session:
        order = session.get_one(Order, done["order_id"])
        job = session.scalars(select(Job).where(Job.kind == "run.train")).one()
    assert (order.state, order.charged_fen > 0) == (OrderState.REFUNDED, True)
    assert (job.state, job.failures) == (JobState.DONE, 0)
    assert scene.work.launch.list_mine() == []


def test_a_trainer_that_obeyed_a_cancel_before_it_was_noted_ends_its_run_as_cancelled(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    worker = scene.make_worker()
    train_until(scene, worker, run["id"], 1)
    ask(scene, run["id"], "cancel")
    ask_cancel(locate_attempt(scene.home, run["id"], 1))  # as by a worker that died before it noted that it asked
    wait_for_end(scene)
    assert scene.read_run(run["id"])["state"] == "running"
    check_cancelled(scene, worker, run["id"])


def test_a_cancel_after_a_pause_that_no_worker_saw_yet_counts(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    worker = scene.make_worker()
    train_until(scene, worker, run["id"], 1)
    ask(scene, run["id"], "pause")
    ask_pause(locate_attempt(scene.home, run["id"], 1))
    wait_for_end(scene)
    ask(scene, run["id"], "cancel")
    check_cancelled(scene, worker, run["id"])


def recover(scene: Scene, worker: JobLoop, run_id: str) -> list[str]:
    """Kill the trainer; returns how all attempts ended, once the run waits for another one."""
    kill_trainer(scene)
    run_until(worker, lambda: scene.read_run(run_id)["state"] in OVER | {"recovering"})
    run = scene.read_run(run_id)
    assert run["state"] == "recovering", run["message"]
    return [row["reason_code"] for row in run["attempts"]]


def test_pauses_of_the_owner_are_no_losses_of_the_machine(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    worker = scene.make_worker()
    for attempt in (1, 2):
        train_until(scene, worker, run["id"], attempt)
        ask(scene, run["id"], "pause")
        run_until(worker, lambda: scene.read_run(run["id"])["state"] == "paused")
        ask(scene, run["id"], "resume")
    train_until(scene, worker, run["id"], 3)
    assert recover(scene, worker, run["id"]) == ["paused", "paused", "lost"]


@pytest.mark.parametrize(("clip_norm", "reason"), [(7, "out_of_memory"), (9, "nan_loss")])
def test_what_is_tried_otherwise_is_no_loss_of_the_machine(scene: Scene, clip_norm: int, reason: str) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2, clip_norm=clip_norm)
    worker = scene.make_worker()
    ends = [reason]
    for attempt in (2, 3):
        train_until(scene, worker, run["id"], attempt)
        ends.append("lost")
        assert recover(scene, worker, run["id"]) == ends


def test_an_unaccepted_quote_expires_its_run(scene: Scene) -> None:
    run = scene.start_run()
    scene.call("POST", f"/api/v1/runs/{run['id']}/quote", "factory", json={"offer_id": scene.offers["city"]})
    with scene.sessions.write() as session:
        assert expire_runs(session, now=read_clock() + timedelta(hours=23)) == 0
        assert expire_runs(session, now=read_clock() + timedelta(hours=25)) == 1
    assert scene.read_run(run["id"])["state"] == "expired"


def test_only_one_of_two_workers_does_the_chores(scene: Scene) -> None:
    done: list[str] = []
    workers = [
        Worker(scene.work, name, {}, chores=[Chore("count", 0.0, lambda _work, name=name: done.append(name))])
        for name in ("a", "b")
    ]
    for _ in range(3):
        for worker in workers:
            worker.do_chores()
    assert done == ["a", "a", "a"]
    with scene.sessions.write() as session:
        session.get_one(LockRow, ROLE).locked_until = read_clock() - timedelta(seconds=1)
    workers[1].do_chores()
    assert done[-1] == "b"


def test_a_broken_chore_does_not_stop_the_others(scene: Scene) -> None:
    done: list[int] = []

    def broken(_work: Work) -> None:
        raise ValueError("broken")

    chores = [Chore("broken", 0.0, broken), Chore("sound", 0.0, lambda _work: done.append(1))]
    Worker(scene.work, "a", {}, chores=chores).do_chores()
    assert done == [1]


class TwinMirror:
    """Keeps what it was given; refuses the first `refusals` calls."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.runs: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []

    def record_run(self, experiment: str, run_name: str, **given: Any) -> MirroredRun:
        if self.refusals:
            self.refusals -= 1
            raise MirrorUnavailableError("MLflow is away", "MLflow 无响应")
        self.runs.append({"experiment": experiment, "run_name": run_name, **given})
        return MirroredRun("1", "mlrun1")

    def record_version(self, name: str, artifact: Path, **given: Any) -> MirroredVersion:
        self.versions.append({"name": name, "artifact": artifact, **given})
        return MirroredVersion(name, 3, "m-1", "mlrun1")


def test_the_mirror_is_repeated_until_it_takes_and_never_fails_the_run(scene: Scene) -> None:
    mirror = TwinMirror(refusals=1)
    run = scene.order_run(epochs=3)
    worker = scene.make_worker(version_mirror=Kind(MirrorVersions(mirror), "beside"))

    def is_refused() -> bool:
        with scene.sessions.read() as session:
            return session.scalar(select(Job.failures).where(Job.kind == "version.mirror")) == 1

    run_until(worker, is_refused)
    assert scene.read_run(run["id"])["state"] == "succeeded"
    figure = {"base": 0.25, "adapter": 0.75, "gain_low": 0.4, "gain_high": 0.6}
    with scene.sessions.write() as session:
        session.scalars(select(Job).where(Job.kind == "version.mirror")).one().run_after = read_clock()
        row = session.get_one(Run, run["id"])
        scores = {"n": 4, "exact_match": figure, "probe": {"n": 1, **figure, "loss": figure}}
        row.gate = (row.gate or {}) | {"scores": scores, "override": {"by": "usr_1", "reason": "Mr Wang needs it"}}
    run_until(worker, lambda: bool(scene.read_run(run["id"])["mlflow_run_id"]))
    with scene.sessions.read() as session:
        version = session.get_one(ModelVersion, scene.read_run(run["id"])["version_id"])
    assert (version.mlflow_model, version.mlflow_version) == ("factory-co.orders", "3")
    assert mirror.runs[0]["params"] == {"rank": "8", "epochs": "3", "batch_tokens": "256"}
    assert {point.name for point in mirror.runs[0]["metrics"]} >= {"loss", "base.loss", "adapter.exact_match"}
    told = {point.name: point.value for point in mirror.runs[0]["metrics"]}
    assert (told["gate.base.exact_match"], told["gate.adapter.probe_loss"]) == (0.25, 0.75)
    tags = mirror.versions[0]["tags"]
    assert tags["guanmo.artifact_digest"] == version.artifact_digest
    assert (tags["guanmo.seed"], tags["guanmo.gate"], tags["guanmo.gate_overridden"]) == ("42", "passed", "true")
    assert "Wang" not in str(mirror.runs) + str(mirror.versions)


def test_a_run_may_ask_to_be_deployed_when_done(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders", "deploy_when_done": True}
    run_id = scene.call("POST", "/api/v1/runs", "factory", json=body).json["id"]  # type: ignore[index]
    worker = scene.make_worker()
    path = f"/api/v1/runs/{run_id}"
    run_until(worker, lambda: scene.read_run(run_id)["state"] == "planned")
    quote = scene.call("POST", f"{path}/quote", "factory", json={"offer_id": scene.offers["bay"]}).json
    headers = {"Idempotency-Key": "k"}
    scene.call("POST", f"{path}/accept", "factory", json={"quote_id": quote["id"]}, headers=headers)  # type: ignore[index]

    def is_deployed() -> bool:
        with scene.sessions.read() as session:
            return session.scalar(select(Deployment.id).where(Deployment.implied.is_(False))) is not None

    run_until(worker, is_deployed)


def test_failed_verdicts_without_retry_close_the_job(scene: Scene) -> None:
    worker = scene.make_worker(dataset_check=Kind(lambda _work, _claim: failed("never"), "light"))
    scene.upload(b"a,b\n1,2\n", name="rows.csv")
    worker.tick()
    with scene.sessions.read() as session:
        assert session.scalars(select(Job)).one().state is JobState.FAILED


def test_the_program_starts_enters_its_machine_and_stops_on_sigterm(scene: Scene, tmp_path: Path) -> None:
    home = scene.home
    left = scene.settings.artifacts / f".partial-{'a' * 32}"
    left.mkdir()
    make_secrets(home)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GUANMO_")},
        "GUANMO_HOME": str(home),
        "GUANMO_DATABASE_URL": str(scene.sessions.engine.url),
        "PYTHONPATH": str(ROOT),
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "hub.worker"], env=environment, cwd=ROOT, stdout=stream)
    deadline = time.monotonic() + 120
    while count_nodes(scene) < 2:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    messages = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert messages == ["worker started", "worker stopped"]
    with scene.sessions.read() as session:
        assert session.get(LockRow, ROLE) is None
    assert not left.exists(), "what a killed copy left is swept"


def count_nodes(scene: Scene) -> int:
    with scene.sessions.read() as session:
        return len(session.scalars(select(Node)).all())


@pytest.mark.parametrize("name", ["GUANMO_HOEM", "GUANMO_HUB_PORT"])
def test_the_program_refuses_bad_settings(name: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "GUANMO_HOME": str(tmp_path), name: "x", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "hub.worker"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_told_to_stop_trainers_it_ends_them_and_the_next_worker_resumes(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.06)
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "running")
    worker.hand_back()
    stop_trainers(scene.work)
    (handle,) = scene.work.launch.list_mine()
    assert scene.work.launch.poll(handle).state is ProcessState.EXITED
    run_until(scene.make_worker("next"), lambda: scene.read_run(run["id"])["state"] in OVER, timeout_s=40)
    done = scene.read_run(run["id"])
    assert (done["state"], done["attempt"], done["trained_tokens"]) == ("succeeded", 2, 5000)
