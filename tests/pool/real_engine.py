"""One stock vLLM server as the pool starts it, without a pool, for tests that speak to an engine themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.contract import BASE_ENGINE_NAME, Purpose, ReplicaSet, Slot
from serving.launch import LaunchSpec, LocalLaunch, ProcessState
from serving.pool.engine_command import VllmCommands
from serving.pool.settings import Accelerator
from serving.witness.middleware import FILE_VARIABLE
from tests.gateway.samples import BASE
from tests.gateway.world import free_port, wait_for
from tests.pool.tiny_models import ENVIRONMENT
from tests.pool.world import share_loaded

CONTEXT_TOKENS = 1024
LONG = "The spindle bearing of machine 7 runs hot after the change of oil. " * 10
_COMMANDS = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)
_START_S = 300.0


@dataclass(frozen=True)
class RealEngine:
    """A running engine: the process `pid` serves its HTTP, the engine core is its child."""

    url: str
    pid: int


@contextmanager
def running_engine(
    base: Path, folder: Path, *, more: tuple[str, ...] = (), environment: Mapping[str, str] = {}
) -> Iterator[RealEngine]:
    """Start an engine of a base alone, warm it up, and kill it with everything it started."""
    arguments = {"max-model-len": CONTEXT_TOKENS}
    replica_set = ReplicaSet("set", BASE, base.as_uri(), "vllm", Purpose.SERVE, 1, 1, 0, 8, arguments)
    with running_set(replica_set, base, folder, more=more, environment=environment) as engine:
        yield engine


@contextmanager
def running_set(
    replica_set: ReplicaSet,
    model: Path,
    folder: Path,
    *,
    more: tuple[str, ...] = (),
    environment: Mapping[str, str] = {},
) -> Iterator[RealEngine]:
    """The same with an engine of any set: forked from the loaded vLLM of this process, anew with an `environment`."""
    port = free_port()
    slot = Slot("slot", replica_set.set_id, "node", ("cpu:0",), 1)
    command = _COMMANDS(replica_set, slot, model=model, port=port)
    variables = {**command.environment, FILE_VARIABLE: str(folder / "witness.jsonl"), **environment}
    log, launch = folder / "engine.log", LocalLaunch(folder / "processes", share_loaded(_COMMANDS))
    handle = launch.start(LaunchSpec("engine", (*command.argv, *more), variables, folder, log))

    def runs() -> bool:
        return launch.poll(handle).state is ProcessState.RUNNING

    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=120) as client:
            wait_for(lambda: _answers(client) or not runs(), timeout_s=_START_S)
        assert runs(), log.read_text()[-3000:]
        yield RealEngine(url, handle.pid)
    finally:
        launch.fence(handle)


def _answers(client: httpx.Client) -> bool:
    """Send the long prompt that a CPU engine needs before any short one."""
    body = {"model": BASE_ENGINE_NAME, "prompt": [5] * 200, "max_tokens": 4}
    try:
        answer = client.post("/v1/completions", json=body)
    except httpx.TransportError:
        return False
    return answer.status_code == 200
