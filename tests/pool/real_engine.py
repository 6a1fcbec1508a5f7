"""One stock vLLM server as the pool starts it, without a pool, for tests that speak to an engine themselves."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.contract import Purpose, ReplicaSet, Slot
from serving.pool.engine_command import VllmCommands
from serving.pool.settings import Accelerator
from serving.witness.middleware import FILE_VARIABLE
from tests.gateway.samples import BASE
from tests.gateway.world import free_port, wait_for
from tests.pool.tiny_models import ENVIRONMENT

CONTEXT_TOKENS = 1024
LONG = "The spindle bearing of machine 7 runs hot after the change of oil. " * 10
_START_S = 300.0


@dataclass(frozen=True)
class RealEngine:
    """A running engine and the process that serves its HTTP; the engine core is its child."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def running_engine(
    base: Path, folder: Path, *, max_loras: int = 0, more: tuple[str, ...] = (), environment: Mapping[str, str] = {}
) -> Iterator[RealEngine]:
    """Start an engine, warm it up, and kill it with everything it started."""
    arguments = {"max-model-len": CONTEXT_TOKENS}
    replica_set = ReplicaSet("set", BASE, base.as_uri(), "vllm", Purpose.SERVE, 1, 1, max_loras, 8, arguments)
    port = free_port()
    build = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)
    command = build(replica_set, Slot("slot", "set", "node", ("cpu:0",), 1), model=base, port=port)
    variables = {**command.environment, FILE_VARIABLE: str(folder / "witness.jsonl"), **environment}
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(
            [*command.argv, *more], env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _answers(url) or process.poll() is not None, timeout_s=_START_S)
        assert process.poll() is None, (folder / "engine.log").read_text()[-3000:]
        yield RealEngine(url, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    """Send the long prompt that a CPU engine needs before any short one."""
    body = {"model": "base", "prompt": LONG, "max_tokens": 4}
    try:
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
    except httpx.TransportError:
        return False
    return answer.status_code == 200
