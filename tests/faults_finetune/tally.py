"""Judges what random runs left behind: money, processes, rows and states. It leaves disturbing them to `story`."""

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from finetune.spec import Event as LineKind
from hub.compute.tables import HoldState, Rental
from hub.datasets.service import locate_checked
from hub.datasets.tables import DatasetVersion
from hub.events.tables import Event
from hub.jobs.tables import Job, JobState
from hub.ledger.invariants import check_invariants
from hub.orders.cash import wallet
from hub.orders.tables import Order, OrderState, Quote
from hub.tuning.progress import find_commit, read_after
from hub.tuning.states import DELIVERED, RunState, may_follow
from hub.tuning.tables import Run, RunAttempt
from serving.launch import LocalLaunch
from tests.faults_finetune.story import Outcome
from tests.hub.runs.scene import Scene

FIRMS = ("factory", "rival")


@dataclass
class Tally:
    """How many of each; the last four must be 0. `problems` names the first few."""

    runs: int = 0
    states: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    sent_twice: int = 0
    hits: int = 0
    attempts: int = 0
    double_charges: int = 0
    orphans: int = 0
    lost_rows: int = 0
    stuck: int = 0
    problems: list[str] = field(default_factory=list)

    def as_line(self) -> str:
        """Return the tally as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def charge(self, text: str) -> None:
        """Count a wrong charge."""
        self.double_charges += 1
        self.problems.append(text)

    def lose(self, text: str) -> None:
        """Count a row that is missing, or there twice."""
        self.lost_rows += 1
        self.problems.append(text)


def take_tally(scene: Scene, outcomes: list[Outcome], *, deposited_fen: int) -> Tally:
    """Judge all runs of a scene after its workers are gone."""
    tally = Tally(
        runs=len(outcomes),
        states=dict(Counter(str(outcome.state) for outcome in outcomes)),
        hits=sum(outcome.hits for outcome in outcomes),
        acts=dict(Counter(str(act) for outcome in outcomes for act in outcome.acts)),
    )
    with scene.sessions.read() as session:
        for outcome in outcomes:
            _judge_run(session, scene.home, outcome, tally)
        _judge_firms(session, scene, deposited_fen, tally)
        _judge_rest(session, scene, outcomes, tally)
    _find_orphans(scene, tally)
    tally.problems = tally.problems[:20]
    return tally


def _judge_run(session: Session, home: Path, outcome: Outcome, tally: Tally) -> None:
    if outcome.refusals:
        tally.lose(f"refused: {outcome.refusals[:2]}")
    if outcome.is_stuck:
        tally.stuck += 1
        tally.problems.append(f"{outcome.run_ids} is '{outcome.state}'")
    if len(outcome.run_ids) != 1 or len(outcome.order_ids) > 1:
        tally.charge(f"one request made runs {outcome.run_ids} and orders {outcome.order_ids}")
    run = session.get_one(Run, outcome.run_id)
    tally.attempts += run.attempt
    orders = session.scalars(select(Order).where(Order.subject == run.id)).all()
    if len(orders) != (run.order_id is not None):
        tally.charge(f"{run.id} has {len(orders)} orders")
    for order in orders:
        _judge_charge(session, run, order, tally)
    _judge_meter(home, run, tally)
    _judge_history(session, run, tally)
    _judge_steps(home, run, tally)


def _judge_charge(session: Session, run: Run, order: Order, tally: Tally) -> None:
    """The bill follows from end and meter: delivered as quoted, our fault nothing, cancelled what was committed."""
    quote = session.get_one(Quote, order.quote_id)
    expected_state = OrderState.SETTLED if run.state in DELIVERED else OrderState.REFUNDED
    if order.state is not expected_state:
        tally.charge(f"{run.id} is '{run.state}', its order '{order.state}'")
        return
    is_free = run.state is RunState.FAILED and str(run.fault) != "user"
    tokens = 0 if is_free else run.trained_tokens or 0
    device_ms = 0 if is_free else run.device_ms or 0
    used = {"trained_tokens": tokens, "device_ms": device_ms}
    due = sum(min(used[line.meter], line.quantity) * line.amount_fen // line.per_units for line in quote.lines)
    if order.charged_fen != due:
        tally.charge(f"{run.id} '{run.state}' was charged {order.charged_fen} fen, due {due} ({order.metered})")
    if run.state in DELIVERED and run.state is not RunState.EARLY_STOPPED and tokens != quote.trained_tokens:
        tally.charge(f"{run.id} was quoted {quote.trained_tokens} tokens and billed {tokens}")


def _judge_meter(home: Path, run: Run, tally: Tally) -> None:
    """A cancelled run pays for its last commit, also for one before a pause or a loss."""
    commit = find_commit(home, run.id, run.attempt)
    if run.state is RunState.CANCELLED and commit is not None and (run.trained_tokens or 0) < commit.tokens:
        tally.charge(f"{run.id} was metered {run.trained_tokens} tokens, {commit.tokens} were committed")


def _judge_history(session: Session, run: Run, tally: Tally) -> None:
    """One event for each transition, each allowed; every attempt has its row and is over."""
    topics = session.scalars(select(Event.topic).where(Event.subject == run.id).order_by(Event.seq)).all()
    names = [topic.removeprefix("run.") for topic in topics]
    states = [RunState("validating"), *(RunState(name) for name in names if name in set(RunState))]
    if len(states) != run.state_version or states[-1] is not run.state:
        tally.lose(f"{run.id} has state version {run.state_version} and went {states}")
    if not all(may_follow(before, after) for before, after in pairwise(states)):
        tally.lose(f"{run.id} went {states}")
    attempts = session.scalars(select(RunAttempt).where(RunAttempt.run_id == run.id).order_by(RunAttempt.attempt)).all()
    if [row.attempt for row in attempts] != list(range(1, run.attempt + 1)):
        tally.lose(f"{run.id} has attempts {[row.attempt for row in attempts]} of {run.attempt}")
    if any(row.ended_at is None for row in attempts):
        tally.lose(f"{run.id} is over and an attempt is not")


def _judge_steps(home: Path, run: Run, tally: Tally) -> None:
    """Of a delivered run every step is told; an attempt's lines are numbered without a gap; it never goes back."""
    lines = list(read_after(home, run.id, attempt=0, seq=0))
    for attempt in range(1, run.attempt + 1):
        own = [line.seq for line in lines if line.attempt == attempt]
        if own != list(range(1, len(own) + 1)):
            tally.lose(f"{run.id} attempt {attempt} has lines {own[:5]}… of {len(own)}")
    committed = max((line.committed_step for line in lines), default=0)
    if run.state in (RunState.SUCCEEDED, RunState.HELD) and committed < (run.plan or {})["steps"]:
        tally.lose(f"{run.id} committed fewer steps than planned")
    commits = [line.tokens for line in lines if line.type is LineKind.CHECKPOINT]
    if commits != sorted(commits):
        tally.lose(f"{run.id} went back behind a commit: {commits}")


def _judge_firms(session: Session, scene: Scene, deposited_fen: int, tally: Tally) -> None:
    for who in FIRMS:
        owner = scene.actors[who].organisation_id
        charged = session.scalar(select(func.sum(Order.charged_fen)).where(Order.organisation_id == owner)) or 0
        money = wallet(session, owner)
        if (money.balance_fen, money.held_fen) != (deposited_fen - int(charged), 0):
            tally.charge(f"{who} has {money}, was charged {charged} of {deposited_fen}")
    for finding in check_invariants(session):
        if finding.broken:
            tally.charge(f"{finding.invariant.id} broken {finding.broken} times: {finding.examples}")


def _judge_rest(session: Session, scene: Scene, outcomes: list[Outcome], tally: Tally) -> None:
    made = set(session.scalars(select(Run.id)))
    told = {run_id for outcome in outcomes for run_id in outcome.run_ids}
    if made != told:
        tally.lose(f"{len(made - told)} runs that nobody was told of, {len(told - made)} that are gone")
    held = session.scalar(select(func.count()).select_from(Rental).where(Rental.state == HoldState.ACTIVE))
    still = session.scalars(
        select(Job.kind).where(Job.state.in_((JobState.WAITING, JobState.LOCKED)), Job.kind.like("run.%"))
    ).all()
    if held or still:
        tally.stuck += 1
        tally.problems.append(f"{held} rentals held, open jobs {Counter(still)}")
    for version in session.scalars(select(DatasetVersion)):
        content = (locate_checked(scene.home, version) / "train.jsonl").read_bytes()
        if hashlib.sha256(content).hexdigest() != version.train_digest:
            tally.lose(f"{version.id} has other rows than it had")


def _find_orphans(scene: Scene, tally: Tally) -> None:
    """Processes that the launcher knows of, and any other whose command line names the scene's folder."""
    known = [handle.name for handle in LocalLaunch(scene.home / "run" / "trainers").list_mine()]
    running = [text for text in _list_command_lines() if f"{scene.home}/runs/" in text]
    tally.orphans = len(known) + len(running)
    tally.problems += [f"left behind: {text[:200]}" for text in [*known, *running]]


def _list_command_lines() -> list[str]:
    found: list[Any] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.parent.name == str(os.getpid()):
            continue
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
