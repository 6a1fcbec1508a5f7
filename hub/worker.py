"""`python -m hub.worker`: does the hub's work outside requests. Read it as the table of what a worker does.

SIGTERM leaves trainers running, the next worker adopts them; `--stop-trainers` ends them at a safe point first.
It leaves every job's meaning to its room.
"""

import argparse
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hub.audit.service import keep_audit
from hub.claims.service import collect_debts, take_back_redeemed
from hub.compute.allocation import ensure_machine
from hub.compute.tables import Device
from hub.database import open_sessions
from hub.database_clock import choose_clock
from hub.datasets.checking import check_dataset, fail_orphaned_checks
from hub.datasets.deletion import complete_deletions
from hub.datasets.previewing import fail_orphaned_previews, preview_dataset
from hub.datasets.previews import PREVIEW_KIND
from hub.datasets.service import CHECK_KIND
from hub.deployments.desired import bump_generation
from hub.deployments.merging import merge_version
from hub.deployments.own_engines import MERGE_KIND
from hub.deployments.retirements import announce_retirements
from hub.deployments.rollouts import watch_rollouts
from hub.deployments.service import end_tryouts
from hub.errors import GuanmoError
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.service import give_up_role, hold_role
from hub.jobs.sweeping import reap_trainers
from hub.jobs.trainer import open_launch
from hub.jobs.work import Work
from hub.logs import configure_logs
from hub.metering.reconciling import raise_alarms
from hub.orders.service import close_months, end_due_rentals, expire_quotes, settle_tranches
from hub.payouts.service import age_payouts
from hub.reports.closing import close_statements
from hub.secrets import Secrets, read_secrets
from hub.settings import Settings, read_settings
from hub.tuning.dataset_readers import READERS
from hub.tuning.deploying import deploy_version
from hub.tuning.endings import fail_orphaned_runs
from hub.tuning.gating import gate_run
from hub.tuning.keeping_holds import keep_holds
from hub.tuning.kinds import (
    DEPLOY_KIND,
    GATE_KIND,
    MIRROR_KIND,
    ORDER_KIND,
    PLAN_KIND,
    PROBE_KIND,
    PROVE_KIND,
    TRAIN_KIND,
    TRYOUT_KIND,
)
from hub.tuning.mirroring import MirrorVersions
from hub.tuning.ordering import queue_accepted_runs
from hub.tuning.planning import plan_run
from hub.tuning.probing import probe_rollout, queue_probes
from hub.tuning.proving import prove_version, queue_proofs
from hub.tuning.service import expire_runs
from hub.tuning.standing_orders import order_run
from hub.tuning.stopping import end_long_pauses
from hub.tuning.training import train_run
from hub.tuning.tryouts import open_tryouts
from hub.vouchers.service import lapse_grants, release_due_tranches
from registry.mlflow_mirror import Mirror
from registry.mlflow_server import USERNAME
from registry.store import FolderStore
from serving.launch import Handle, ProcessState

IDLE_S = 0.25
ROLE = "sweeper"
_ROLE_HOLD_S = 15.0
_STOP_GRACE_S = 15.0
_STATEMENTS_AT_ONCE = 20
log = logging.getLogger("hub.worker")


@dataclass
class Chore:
    """Something the elected worker does every so often, in one short transaction of its own."""

    name: str
    every_s: float
    act: Callable[[Work], object]
    due_s: float = 0.0


def list_kinds(settings: Settings, secrets: Secrets) -> dict[str, Kind]:
    """Return every kind of job with its handler and lane."""
    mirror = Mirror(f"http://127.0.0.1:{settings.mlflow_port}", USERNAME, secrets["mlflow.password"])
    return {
        CHECK_KIND: Kind(check_dataset, "light"),
        PREVIEW_KIND: Kind(preview_dataset, "light"),
        PLAN_KIND: Kind(plan_run, "light"),
        ORDER_KIND: Kind(order_run, "light"),
        TRAIN_KIND: Kind(train_run, "train"),
        DEPLOY_KIND: Kind(deploy_version, "beside"),
        GATE_KIND: Kind(gate_run, "beside"),
        TRYOUT_KIND: Kind(open_tryouts, "beside"),
        PROBE_KIND: Kind(probe_rollout, "beside"),
        PROVE_KIND: Kind(prove_version, "beside"),
        MERGE_KIND: Kind(merge_version, "beside"),
        MIRROR_KIND: Kind(MirrorVersions(mirror), "beside"),
    }


def list_lanes(cores: int) -> dict[str, int]:
    """Return how many jobs of a lane run at once: one trainer on up to two cores."""
    return {"light": max(1, cores // 2), "train": max(1, cores // 2), "beside": 2}


def list_chores() -> list[Chore]:
    """Return what the elected worker does beside its jobs."""
    return [
        Chore("settle tranches", 1.0, _settle_tranches),
        Chore("close months", 60.0, _close_months),
        Chore("compare the meters", 60.0, _compare_meters),
        Chore("keep holds", 30.0, _keep_holds),
        Chore("announce retirements", 60.0, _announce_retirements),
        Chore("lapse vouchers", 60.0, _lapse_vouchers),
        Chore("take back redeemed money", 60.0, _take_back_redeemed),
        Chore("keep the audit trail", 1.0, _keep_audit),
        Chore("end due rentals", 5.0, _end_rentals),
        Chore("age payouts", 60.0, _age_payouts),
        Chore("close statements", 60.0, _close_statements),
        Chore("queue accepted runs", 1.0, _queue_accepted),
        Chore("queue proofs", 1.0, _queue_proofs),
        Chore("watch rollouts", 1.0, _watch_rollouts),
        Chore("queue probes", 1.0, _queue_probes),
        Chore("expire quotes and runs", 10.0, _expire),
        Chore("fail orphans", 10.0, _fail_orphans),
        Chore("complete deletions", 10.0, _complete_deletions),
        Chore("reap trainers", 10.0, reap_trainers),
        Chore("enter this machine", 15.0, _enter_machine),
    ]


@dataclass
class Worker:
    """Jobs for every worker; chores for the one that holds the sweeper's lock row."""

    work: Work
    name: str
    kinds: Mapping[str, Kind]
    chores: list[Chore] = field(default_factory=list_chores)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Work until told to stop, then hand the jobs back."""
        loop = JobLoop(self.work, self.name, self.kinds, list_lanes(self.work.cpu_threads))
        log.info("worker started", extra={"fields": {"worker": self.name, "device": self.work.device}})
        while not self.stopping.is_set():
            self.do_chores()
            loop.tick()
            self.stopping.wait(IDLE_S)
        handed_back = loop.hand_back()
        with self.work.sessions.write() as session:
            give_up_role(session, ROLE, holder=self.name)
        log.info("worker stopped", extra={"fields": {"worker": self.name, "handed_back": handed_back}})

    def do_chores(self) -> None:
        """Do what is due, if this worker is or becomes the elected one."""
        due = [chore for chore in self.chores if chore.due_s <= time.monotonic()]
        if not due or not self._is_elected():
            return
        for chore in due:
            chore.due_s = time.monotonic() + chore.every_s
            try:
                chore.act(self.work)
            except Exception:
                # The boundary of one chore: the others and the jobs go on, and it is tried again when next due.
                log.exception("chore failed", extra={"fields": {"chore": chore.name}})

    def _is_elected(self) -> bool:
        with self.work.sessions.write() as session:
            return hold_role(session, ROLE, holder=self.name, now=self.work.clock(), hold_s=_ROLE_HOLD_S)


def build_work(settings: Settings, environment: Mapping[str, str]) -> Work:
    """Return what handlers work with on this machine."""
    sessions = open_sessions(settings.database_url)
    return Work(
        settings=settings,
        sessions=sessions,
        store=FolderStore(settings.artifacts),
        launch=open_launch(settings.home),
        clock=choose_clock(sessions),
        environment=environment,
        device="cuda" if list_gpus() else "cpu",
        cpu_threads=os.cpu_count() or 1,
        slow=ThreadPoolExecutor(max_workers=2, thread_name_prefix="slow"),
    )


def list_gpus() -> list[str]:
    """Return this machine's NVIDIA devices as `cuda:N`."""
    return [f"cuda:{index}" for index, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]


def main(arguments: list[str] | None = None) -> int:
    """Run one worker until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="hub.worker", description="does the hub's work outside requests")
    parser.add_argument("--stop-trainers", action="store_true", help="on SIGTERM end trainers at a safe point first")
    options = parser.parse_args(arguments)
    configure_logs()
    try:
        settings = read_settings(os.environ)
        kinds = list_kinds(settings, read_secrets(settings.home))
    except GuanmoError as error:
        sys.stderr.write(f"{error.code}: {error.en}\n")
        return 1
    work = build_work(settings, dict(os.environ))
    work.store.sweep_partials()
    worker = Worker(work, f"{platform.node()}-{os.getpid()}", kinds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stopping.set())
    worker.run()
    if options.stop_trainers:
        stop_trainers(work)
    work.slow.shutdown(wait=False, cancel_futures=True)
    work.sessions.close()
    return 0


def stop_trainers(work: Work) -> None:
    """Tell every trainer to commit and end; what still runs after the grace is killed and resumes from its commit."""
    handles = [handle for handle in work.launch.list_mine() if work.launch.signal(handle, "term")]
    deadline = time.monotonic() + _STOP_GRACE_S
    while time.monotonic() < deadline and any(_is_running(work, handle) for handle in handles):
        time.sleep(0.1)
    for handle in handles:
        log.info("trainer stopped", extra={"fields": {"process": handle.name, "killed": _is_running(work, handle)}})
        work.launch.fence(handle)


def _is_running(work: Work, handle: Handle) -> bool:
    return work.launch.poll(handle).state in (ProcessState.STARTING, ProcessState.RUNNING)


def _settle_tranches(work: Work) -> object:
    with work.sessions.write() as session:
        return settle_tranches(session, work.clock())


def _lapse_vouchers(work: Work) -> object:
    with work.sessions.write() as session:
        now = work.clock()
        return release_due_tranches(session, now) + lapse_grants(session, now)


def _keep_holds(work: Work) -> object:
    with work.sessions.write() as session:
        return keep_holds(session, work.clock())


def _take_back_redeemed(work: Work) -> object:
    with work.sessions.write() as session:
        now = work.clock()
        return take_back_redeemed(session, now) + collect_debts(session, now)


def _close_months(work: Work) -> object:
    with work.sessions.write() as session:
        return close_months(session, work.clock())


def _queue_probes(work: Work) -> object:
    with work.sessions.write() as session:
        return queue_probes(session, now=work.clock())


def _watch_rollouts(work: Work) -> object:
    with work.sessions.write() as session:
        return watch_rollouts(session, work.clock())


def _announce_retirements(work: Work) -> object:
    with work.sessions.write() as session:
        told = announce_retirements(session, work.clock())
        if told:
            bump_generation(session)  # the pool lets go of what ends at its date
        return told


def _compare_meters(work: Work) -> object:
    with work.sessions.write() as session:
        return raise_alarms(session, work.clock())


def _keep_audit(work: Work) -> object:
    return keep_audit(work.sessions, work.settings.home, work.clock())


def _end_rentals(work: Work) -> object:
    with work.sessions.write() as session:
        return end_due_rentals(session, work.clock())


def _age_payouts(work: Work) -> object:
    with work.sessions.write() as session:
        return age_payouts(session, work.clock())


def _close_statements(work: Work) -> object:
    # One firm's month in each transaction: building a statement takes longer than a writer may hold the database.
    closed = 0
    while closed < _STATEMENTS_AT_ONCE and _close_statement(work):
        closed += 1
    return closed


def _close_statement(work: Work) -> int:
    with work.sessions.write() as session:
        return close_statements(session, work.clock(), limit=1)


def _queue_accepted(work: Work) -> object:
    with work.sessions.write() as session:
        return queue_accepted_runs(session, now=work.clock())


def _queue_proofs(work: Work) -> object:
    with work.sessions.write() as session:
        return queue_proofs(session, now=work.clock())


def _expire(work: Work) -> object:
    with work.sessions.write() as session:
        now = work.clock()
        runs = expire_runs(session, now=now) + end_long_pauses(session, now=now)
        return runs + expire_quotes(session, now) + end_tryouts(session, now=now)


def _fail_orphans(work: Work) -> object:
    with work.sessions.write() as session:
        now = work.clock()
        checks = fail_orphaned_checks(session, now=now) + fail_orphaned_previews(session, now=now)
        return fail_orphaned_runs(session, now=now) + checks


def _complete_deletions(work: Work) -> object:
    return complete_deletions(work.sessions, work.settings.home, readers=READERS, now=work.clock())


def _enter_machine(work: Work) -> object:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**3
    with work.sessions.write() as session:
        return ensure_machine(
            session,
            name=platform.node(),
            device=Device(work.device),
            devices=list_gpus() or ["cpu:0"],
            cpu_threads=work.cpu_threads,
            memory_gib=max(1, memory_gib),
            now=work.clock(),
        )


if __name__ == "__main__":
    raise SystemExit(main())
