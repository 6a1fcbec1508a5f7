"""A marketplace of real processes around one name with several versions: hub, pool, vLLM, gateway, on one machine.

Tests of rollouts and the bench of promotions run on it. The hub runs in this process, on SQLite.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hub.catalogue.registration import register_version
from hub.database import open_sessions
from hub.deployments.rollouts import watch_rollouts
from hub.organisations.keys import create_key
from hub.tables import import_tables, metadata
from hub.tuning.probing import queue_probes
from tests.gateway.world import free_port, wait_for
from tests.hub.runs.scene import Scene, build_scene, secrets
from tests.pool.tiny_models import ENVIRONMENT, TinyModels
from tests.web import served

NAME = "factory-co/orders"
START_S = 300.0
_TICK_S = 0.2


@dataclass
class RolloutMarket:
    """Addresses, the owner's API key and the versions of `NAME`, oldest first; the first one answers at the start."""

    scene: Scene
    hub: str
    gateway: str
    pool: str
    key: str
    versions: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the hub's API as the owner. Raises: httpx.HTTPStatusError."""
        headers = {"Authorization": f"Bearer {self.scene.token_of('factory')}"}
        answer = httpx.request(method, f"{self.hub}/api/v1/{path}", json=body, headers=headers, timeout=30)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def start_rollout(self, number: int, percent: int = 5, **more: Any) -> str:
        """Start a rollout of a version and wait until it runs; returns its id."""
        body = {"version_id": self.versions[number], "percent": percent, **more}
        rollout_id = str(self.call("POST", "rollouts", body)["id"])
        wait_for(lambda: self.read_rollout(rollout_id)["state"] != "waiting", timeout_s=60)
        return rollout_id

    def read_rollout(self, rollout_id: str) -> dict[str, Any]:
        """Return a rollout as its owner sees it."""
        found: list[dict[str, Any]] = self.call("GET", "rollouts")["rollouts"]
        return next(row for row in found if row["id"] == rollout_id)

    def ask(self, client: httpx.Client, *, session: str = "", tokens: int = 8) -> tuple[str, int]:
        """Stream one completion of `NAME`; returns the version that answered, after its first token, and the status."""
        headers = {"Authorization": f"Bearer {self.key}", "X-Session-Id": session}
        body = {"model": NAME, "prompt": "spindle bearing", "max_tokens": tokens, "stream": True, "temperature": 0}
        with client.stream("POST", f"{self.gateway}/v1/completions", json=body, headers=headers) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    break
            return answer.headers.get("x-guanmo-model-version", ""), answer.status_code


@contextlib.contextmanager
def running_market(models: TinyModels, home: Path) -> Iterator[RolloutMarket]:
    """Start everything, deploy the first version, and end everything."""
    import_tables()
    sessions = open_sessions(f"sqlite:///{home / 'hub.sqlite3'}")
    metadata.create_all(sessions.engine)
    scene = build_scene(sessions, home / "hub", base_folder=models.base)
    key = _make_key(scene)
    versions = [register(scene, digest, folder) for digest, folder in models.adapters.items()]
    for name in ("pool.token", "gateway.token", "pepper"):
        (home / name).write_text(secrets()[name])
    pool_port, gateway_port = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(served(scene.app))
        market = RolloutMarket(scene, hub, f"http://127.0.0.1:{gateway_port}", "", key, versions)
        market.pool = f"http://127.0.0.1:{pool_port}"
        stack.enter_context(_process("serving.pool", *_pool_options(hub, home, pool_port), log=home / "pool.log"))
        options = _gateway_options(market, home, gateway_port)
        stack.enter_context(_process("serving.gateway", *options, log=home / "gateway.log"))
        stack.enter_context(_chores(scene))
        market.call("POST", f"versions/{versions[0]}/deploy")
        wait_for(lambda: _is_ready(market, versions[0]), timeout_s=START_S)
        wait_for(lambda: _answers(market), timeout_s=30)
        yield market
    sessions.close()


def register(scene: Scene, digest: str, folder: Path) -> str:
    """Register another version of `NAME`; returns its id."""
    with scene.sessions.write() as session:
        return register_version(
            session,
            organisation_id=scene.actors["factory"].organisation_id,
            model_name="orders",
            base_version_id=scene.base_version,
            artifact_digest=digest,
            artifact_uri=folder.as_uri(),
            run_id=None,
            rank=8,
            metrics={},
            lineage={},
            size_bytes=1,
            now=scene.work.clock(),
        ).id


def _is_ready(market: RolloutMarket, version_id: str) -> bool:
    rows = market.call("GET", "deployments")["deployments"]
    return any(row["version_id"] == version_id and row["state"] == "ready" for row in rows)


def _answers(market: RolloutMarket) -> bool:
    with httpx.Client(timeout=60) as client:
        try:
            return market.ask(client)[1] == 200
        except httpx.TransportError:
            return False


def _make_key(scene: Scene) -> str:
    found = secrets()
    with scene.sessions.write() as session:
        _row, text = create_key(
            session,
            scene.actors["factory"],
            name="market",
            pepper=found["pepper"].encode(),
            pepper_id=found.fingerprint("pepper"),
            now=scene.work.clock(),
        )
    return text


@contextlib.contextmanager
def _chores(scene: Scene) -> Iterator[None]:
    """Do what the worker does about rollouts."""
    stop, loop = threading.Event(), scene.make_worker()

    def work() -> None:
        while not stop.wait(_TICK_S):
            with scene.sessions.write() as session:
                watch_rollouts(session, scene.work.clock())
                queue_probes(session, now=scene.work.clock())
            loop.tick()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def _process(module: str, *options: str, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *options], env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}, stdout=out, stderr=out
        )
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(90)


def _pool_options(hub: str, home: Path, port: int) -> list[str]:
    options = ["--hub", hub, "--token-file", f"{home}/pool.token", "--listen", f"127.0.0.1:{port}"]
    return [*options, "--store", f"{home}/store", "--state", f"{home}/pool"]


def _gateway_options(market: RolloutMarket, home: Path, port: int) -> list[str]:
    options = ["--hub", market.hub, "--token-file", f"{home}/gateway.token", "--pepper-file", f"{home}/pepper"]
    return [*options, "--pool", market.pool, "--listen", f"127.0.0.1:{port}", "--journal", f"{home}/journal"]
