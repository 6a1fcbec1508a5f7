"""The story of one run: submitted once or several times at once, ordered likewise, then disturbed at random moments.

Everything is drawn from the seed before it begins. It leaves judging the outcome to `tally`.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hub.tuning.states import RunState
from hub.tuning.tables import Run
from hub.tuning.training import process_name
from serving.launch import Handle, LocalLaunch, ProcessState, SignalName
from tests.faults_finetune.killable import Workers
from tests.hub.runs.scene import Scene

MAX_S = 240.0
"""A run that is not over by then, on a busy machine, counts as stuck."""
_TRAINER_WAIT_S = 20.0
Recipe = dict[str, float]


class Act(StrEnum):
    """What may happen to a run."""

    KILL_TRAINER = "kill_trainer"
    KILL_WATCHED = "kill_watched"
    """The process that stands for the trainer, not its group: the kernel must end the rest."""
    STOP_TRAINER = "stop_trainer"
    KILL_WORKER = "kill_worker"
    CANCEL = "cancel"
    CANCEL_TWICE = "cancel_twice"
    PAUSE = "pause"
    SUBMIT_AGAIN = "submit_again"
    ACCEPT_AGAIN = "accept_again"


_WEIGHTS = {
    Act.KILL_TRAINER: 6,
    Act.KILL_WATCHED: 2,
    Act.STOP_TRAINER: 2,
    Act.KILL_WORKER: 2,
    Act.CANCEL: 2,
    Act.CANCEL_TWICE: 1,
    Act.PAUSE: 3,
    Act.SUBMIT_AGAIN: 2,
    Act.ACCEPT_AGAIN: 2,
}
_CANCELS = (Act.CANCEL, Act.CANCEL_TWICE)
_SIGNALS: dict[Act, SignalName] = {Act.KILL_TRAINER: "kill", Act.STOP_TRAINER: "term"}


@dataclass
class Outcome:
    """What was done and what the callers were told."""

    run_ids: set[str] = field(default_factory=set)
    order_ids: set[str] = field(default_factory=set)
    acts: list[Act] = field(default_factory=list)
    hits: int = 0
    """Signals that reached a trainer."""
    reach_s: float = 0.4
    refusals: list[tuple[str, int, Any]] = field(default_factory=list)
    state: str = ""
    is_stuck: bool = False

    @property
    def run_id(self) -> str:
        """The one run; a story that made two is judged by its tally."""
        return min(self.run_ids)


@dataclass
class Story:
    """One run to be: whose, what for, how often each request is sent, what happens when (s after it was ordered)."""

    serial: int
    who: str
    dataset_id: str
    recipe: Recipe
    copies: int
    acts: list[tuple[float, Act]]
    cancels_unordered: bool
    reach_s: float
    """A signal comes so long after its trainer was seen, at most."""

    @classmethod
    def draw(
        cls,
        serial: int,
        *,
        who: str,
        dataset_id: str,
        recipe: Recipe,
        span_s: float,
        reach_s: float,
        seed: int,
        may_cancel: bool = True,
    ) -> "Story":
        """Return the story of a serial number: the same seed tells the same one."""
        rng = random.Random(f"{seed}-{serial}")
        weights = [0 if act in _CANCELS and not may_cancel else weight for act, weight in _WEIGHTS.items()]
        acts = [
            (rng.uniform(0, span_s), rng.choices(list(_WEIGHTS), weights=weights)[0])
            for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 4)))
        ]
        return cls(
            serial=serial,
            who=who,
            dataset_id=dataset_id,
            recipe=recipe,
            copies=rng.choice((1, 1, 2, 3)),
            acts=sorted(acts),
            cancels_unordered=may_cancel and rng.random() < 0.03,
            reach_s=reach_s,
        )


def tell_story(scene: Scene, workers: Workers, lock: threading.Lock, story: Story) -> Outcome:
    """Live through one run to its end; blocking."""
    outcome = Outcome(reach_s=story.reach_s)
    _submit(scene, story, outcome, copies=story.copies)
    deadline = time.monotonic() + MAX_S
    if story.cancels_unordered:
        _call(scene, story, outcome, "cancel")
        outcome.acts.append(Act.CANCEL)
    if _wait(scene, outcome, deadline, lambda run: run.state is not RunState.VALIDATING).state is RunState.PLANNED:
        _order(scene, story, outcome)
        _disturb(scene, workers, lock, story, outcome)
    run = _wait(scene, outcome, deadline, lambda run: run.finished_at is not None)
    outcome.state, outcome.is_stuck = run.state, run.finished_at is None
    return outcome


def _submit(scene: Scene, story: Story, outcome: Outcome, *, copies: int) -> None:
    body = {
        "base": scene.base,
        "dataset_id": story.dataset_id,
        "model_name": f"orders-{story.serial % 7}",
        "recipe": story.recipe,
    }
    path, headers = "/api/v1/runs", {"Idempotency-Key": f"run-{story.serial}"}
    for answer in _send(scene, story, path, copies=copies, json=body, headers=headers):
        if answer.status_code != 202:
            outcome.refusals.append(("submit", answer.status_code, answer.json))
            continue
        outcome.run_ids.add(answer.json["id"])


def _order(scene: Scene, story: Story, outcome: Outcome) -> None:
    offer = {"offer_id": scene.offers["city" if story.serial % 2 else "bay"]}
    quote = scene.call("POST", f"/api/v1/runs/{outcome.run_id}/quote", story.who, json=offer)
    if quote.status_code != 201:
        outcome.refusals.append(("quote", quote.status_code, quote.json))
        return
    _accept(scene, story, outcome, str(quote.json["id"]), copies=story.copies)  # type: ignore[index]


def _accept(scene: Scene, story: Story, outcome: Outcome, quote_id: str, *, copies: int) -> None:
    path, headers = f"/api/v1/runs/{outcome.run_id}/accept", {"Idempotency-Key": f"order-{story.serial}"}
    for answer in _send(scene, story, path, copies=copies, json={"quote_id": quote_id}, headers=headers):
        if answer.status_code != 202:
            outcome.refusals.append(("accept", answer.status_code, answer.json))
            continue
        outcome.order_ids.add(answer.json["order"]["id"])


def _send(scene: Scene, story: Story, path: str, *, copies: int, **options: Any) -> list[Any]:
    """Send the same request so many times at once, as a client does that got no answer in time."""
    scene.token_of(story.who)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(scene.call("POST", path, story.who, **options)))
        for _ in range(copies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _disturb(scene: Scene, workers: Workers, lock: threading.Lock, story: Story, outcome: Outcome) -> None:
    started_s = time.monotonic()
    rng = random.Random(story.serial)
    for at_s, act in story.acts:
        time.sleep(max(0.0, started_s + at_s - time.monotonic()))
        outcome.acts.append(act)
        if act is Act.KILL_WORKER:
            with lock:
                workers.kill_one(rng)
        elif act in (Act.KILL_TRAINER, Act.KILL_WATCHED, Act.STOP_TRAINER):
            _hit_trainer(scene, outcome, act, rng)
        elif act in _CANCELS:
            for _ in range(1 + (act is Act.CANCEL_TWICE)):
                _call(scene, story, outcome, "cancel")
        elif act is Act.PAUSE:
            _call(scene, story, outcome, "pause", refusable=True)
        elif act is Act.SUBMIT_AGAIN:
            _submit(scene, story, outcome, copies=2)
        else:
            _accept(scene, story, outcome, _look(scene, outcome.run_id).quote_id or "", copies=2)


def _hit_trainer(scene: Scene, outcome: Outcome, act: Act, rng: random.Random) -> None:
    """Wait for a trainer, then signal it somewhere on its way; none comes any more when the run is over."""
    launch = LocalLaunch(scene.home / "run" / "trainers")
    deadline = time.monotonic() + _TRAINER_WAIT_S
    while time.monotonic() < deadline:
        run = _look(scene, outcome.run_id)
        handle = _find_running(launch, process_name(run.id, run.attempt))
        if handle is not None:
            time.sleep(rng.uniform(0, outcome.reach_s))
            outcome.hits += _kill_alone(handle.pid) if act is Act.KILL_WATCHED else launch.signal(handle, _SIGNALS[act])
            return
        if run.finished_at is not None or run.state is RunState.PAUSED:
            return
        time.sleep(0.05)


def _find_running(launch: LocalLaunch, name: str) -> Handle | None:
    try:
        handle = launch.find(name)
    except FileNotFoundError:
        return None  # forgotten at this very moment
    return handle if handle is not None and launch.poll(handle).state is ProcessState.RUNNING else None


def _kill_alone(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _call(scene: Scene, story: Story, outcome: Outcome, name: str, *, refusable: bool = False) -> None:
    answer = scene.call("POST", f"/api/v1/runs/{outcome.run_id}/{name}", story.who)
    if answer.status_code != 202 and not (refusable and answer.status_code == 409):
        outcome.refusals.append((name, answer.status_code, answer.json))


def _wait(scene: Scene, outcome: Outcome, deadline: float, is_there: Callable[[Run], bool]) -> Run:
    """Look again and again; a paused run is resumed, as its owner would."""
    while True:
        run = _look(scene, outcome.run_id)
        if is_there(run) or time.monotonic() > deadline:
            return run
        if run.state is RunState.PAUSED:
            scene.call("POST", f"/api/v1/runs/{outcome.run_id}/resume", "operator")
        time.sleep(0.2)


def _look(scene: Scene, run_id: str) -> Run:
    with scene.sessions.read() as session:
        return session.get_one(Run, run_id)
