"""One real fine-tune through API and worker: forks of a warm trainer check, plan and train on a tiny base."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.clock import read_clock
from hub.database import Sessions
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.trainer import locate_warm_trainer
from hub.orders.tables import Order, OrderState
from hub.secrets import NAMES, Secrets
from hub.tuning.kinds import GATE_KIND
from hub.tuning.progress import locate_attempt
from hub.worker import list_kinds, list_lanes
from registry.adapter_check import check_adapter
from serving.launch import LocalLaunch
from tests.hub.runs.conftest import end_processes
from tests.hub.runs.scene import Scene, build_scene, gate_by_trainer, run_until

pytestmark = pytest.mark.engine
OVER = {"succeeded", "early_stopped", "held", "failed", "invalid"}


@pytest.fixture
def scene(sessions: Sessions, tmp_path: Path, tiny_base: Path, warm_trainer: Path) -> Iterator[Scene]:
    """A scene with a base that can be trained, and a warm trainer beside it as in every installation."""
    built = build_scene(sessions, tmp_path / "home", base_folder=tiny_base)
    socket = locate_warm_trainer(built.home)
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.symlink_to(warm_trainer)
    yield built
    end_processes(built)


def make_worker(scene: Scene) -> JobLoop:
    work = replace(scene.work, launch=LocalLaunch(scene.home / "run" / "trainers"))
    kinds = list_kinds(scene.settings, Secrets({name: name for name in NAMES}))
    del kinds["version.mirror"]  # no MLflow server here
    kinds[GATE_KIND] = Kind(gate_by_trainer, "beside")  # no engine either
    return JobLoop(work, "w", kinds, list_lanes(2))


def write_rows() -> bytes:
    rng = random.Random(1)
    rows = [(rng.choice(["pump", "valve", "belt"]), rng.randint(1, 9), number) for number in range(200)]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{part} {size} leaks {number}"},
                {"role": "assistant", "content": f"replace {part} seal {size}"},
            ]
        }
        for part, size, number in rows
    ]
    return "".join(json.dumps(chat) + "\n" for chat in chats).encode()


def test_a_real_run_becomes_a_loadable_version_settled_to_the_meter(scene: Scene) -> None:
    worker = make_worker(scene)
    dataset_id = str(scene.upload(write_rows()).json["id"])  # type: ignore[index]
    run_until(worker, lambda: scene.dataset_state(dataset_id) != "checking", timeout_s=60)
    if scene.dataset_state(dataset_id) == "warned":
        scene.call("POST", f"/api/v1/datasets/{dataset_id}/acknowledge", "factory")
    recipe = {"epochs": 2, "validations": 2, "learning_rate": 0.004, "rank": 8, "evaluate_rows": 20}
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders", "recipe": recipe}
    run_id = str(scene.call("POST", "/api/v1/runs", "factory", json=body).json["id"])  # type: ignore[index]
    run_until(worker, lambda: scene.read_run(run_id)["state"] != "validating", timeout_s=120)
    run = scene.read_run(run_id)
    assert run["state"] == "planned", run
    offer = {"offer_id": scene.offers["city"]}
    quote = scene.call("POST", f"/api/v1/runs/{run_id}/quote", "factory", json=offer).json
    assert quote is not None
    assert quote["trained_tokens"] == run["plan"]["tokens"]
    headers = {"Idempotency-Key": "k"}
    scene.call("POST", f"/api/v1/runs/{run_id}/accept", "factory", json={"quote_id": quote["id"]}, headers=headers)
    run_until(worker, lambda: scene.read_run(run_id)["state"] in OVER, timeout_s=180)
    done = scene.read_run(run_id)
    assert done["state"] in ("succeeded", "early_stopped"), done["message"]
    check_version(scene, done)
    check_order(scene, done, quote)


def check_version(scene: Scene, run: dict) -> None:  # type: ignore[type-arg]
    with scene.sessions.read() as session:
        version = session.get_one(ModelVersion, run["version_id"])
        base = session.get_one(ModelVersion, scene.base_version)
    assert version.rank == 8
    assert version.lineage["base_weights_digest"] == base.weights_digest
    assert len(version.lineage["data_digests"]) == 2
    assert version.lineage["code_digest"]
    assert version.metrics["adapter"]["loss"] < version.metrics["base"]["loss"]
    manifest = json.loads((locate_attempt(scene.home, run["id"], 1) / "manifest.json").read_text())
    assert manifest["artifact_digest"] == version.artifact_digest
    store = scene.work.store
    report = check_adapter(store.path(version.artifact_digest), store.path(base.artifact_digest))
    # the store's own listing is the only file that the upload gate does not know
    assert [check.subject for check in report.checks if not check.passed] == ["SHA256SUMS"]


def check_order(scene: Scene, run: dict, quote: dict) -> None:  # type: ignore[type-arg]
    with scene.sessions.read() as session:
        order = session.scalars(select(Order)).one()
    assert order.state is OrderState.SETTLED
    assert order.metered is not None
    assert order.metered["trained_tokens"] == run["trained_tokens"] <= quote["trained_tokens"]
    device_fee = min(order.metered["device_ms"], quote["device_ms"]) * 3600 // 3_600_000
    assert order.charged_fen == device_fee + run["trained_tokens"] * 5 // 100
    assert 0 < run["accept_to_first_step_ms"] < 120_000
    assert read_clock() > order.accepted_at
