"""The ground of random runs: a scene with room for several, two firms with data and money, a warm trainer, workers.

It leaves the runs themselves to `story`.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from hub.clock import read_clock
from hub.compute.tables import Offer
from hub.database import Sessions
from hub.jobs.trainer import locate_warm_trainer
from hub.orders.service import deposit
from hub.secrets import make_secrets
from serving.launch import LocalLaunch
from tests.faults_finetune import warm_twin
from tests.faults_finetune.killable import Workers
from tests.faults_finetune.story import Outcome, Recipe, Story, tell_story
from tests.faults_finetune.tally import FIRMS, Tally, take_tally
from tests.finetune.conftest import keep_warm
from tests.hub.runs.conftest import end_processes
from tests.hub.runs.scene import Scene, build_scene, sound_rows

DEPOSITED_FEN = 10_000_000
WARM_TWIN = (warm_twin.__file__,)
WARM_TRAINER = ("-m", "finetune.warm")
_SETTLE_S = 60.0


def run_many(
    sessions: Sessions,
    home: Path,
    *,
    count: int,
    at_once: int,
    recipe: Recipe,
    span_s: float,
    reach_s: float,
    seed: int,
    trainer: tuple[str, ...],
    may_cancel: bool = True,
    base_folder: Path | None = None,
) -> tuple[Scene, Tally]:
    """Live through `count` stories, so many at once, with two workers, and judge what is left."""
    scene = build_scene(sessions, home, base_folder=base_folder)
    make_secrets(home)
    _make_room(scene, at_once)
    workers = Workers(home, str(sessions.engine.url), count=2, slots=at_once)
    with keep_warm(locate_warm_trainer(home), trainer):
        try:
            datasets = _upload(scene, workers)
            stories = [
                Story.draw(
                    serial,
                    who=FIRMS[serial % 2],
                    dataset_id=datasets[FIRMS[serial % 2]],
                    recipe=recipe,
                    span_s=span_s,
                    reach_s=reach_s,
                    seed=seed,
                    may_cancel=may_cancel,
                )
                for serial in range(count)
            ]
            outcomes = _tell_all(scene, workers, stories, at_once)
            _settle(scene)
        finally:
            workers.stop()
        tally = take_tally(scene, outcomes, deposited_fen=DEPOSITED_FEN)
        tally.sent_twice = sum(story.copies > 1 for story in stories)
    end_processes(scene)
    return scene, tally


def _make_room(scene: Scene, at_once: int) -> None:
    now = read_clock()
    with scene.sessions.write() as session:
        for offer in session.scalars(select(Offer)):
            offer.count = offer.available = at_once
        for who in FIRMS:
            owner, had_fen = scene.actors[who].organisation_id, 1_000_000 if who == "factory" else 0
            amount_fen = DEPOSITED_FEN - had_fen
            deposit(session, scene.actors["operator"], owner, amount_fen=amount_fen, reference=f"more-{who}", now=now)


def _upload(scene: Scene, workers: Workers) -> dict[str, str]:
    """Check each firm's rows by a worker of its own ground."""
    found = {who: str(scene.upload(sound_rows(), who=who).json["id"]) for who in FIRMS}  # type: ignore[index]
    workers.start()
    deadline = time.monotonic() + _SETTLE_S
    for who, dataset_id in found.items():
        while (state := scene.dataset_state(dataset_id, who)) == "checking":
            assert time.monotonic() < deadline, "the data are still being checked"
            time.sleep(0.1)
        if state == "warned":
            scene.call("POST", f"/api/v1/datasets/{dataset_id}/acknowledge", who)
    return found


def _tell_all(scene: Scene, workers: Workers, stories: list[Story], at_once: int) -> list[Outcome]:
    lock = threading.Lock()
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        return list(pool.map(lambda story: tell_story(scene, workers, lock, story), stories))


def _settle(scene: Scene) -> None:
    """A run that is over still has its process to clear and its job to close."""
    launch = LocalLaunch(scene.home / "run" / "trainers")
    deadline = time.monotonic() + _SETTLE_S
    while launch.list_mine() and time.monotonic() < deadline:
        time.sleep(0.2)
