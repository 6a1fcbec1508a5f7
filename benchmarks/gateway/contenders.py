"""Starts what is compared, each on its own core: the fake engine, our gateway with and without journal, LiteLLM.

Asking them is left to `load`, judging to `__main__`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.gateway.control import MODEL, PEPPER, SECRET, TOKEN

LITELLM_KEY = "sk-bench-0123456789abcdef0123456789abcdef"
_START_S = 180.0


@dataclass(frozen=True)
class Contender:
    """One way to the engine."""

    name: str
    port: int
    model: str
    key: str
    process: subprocess.Popen[bytes] | None = None

    def rss_mib(self) -> float:
        """Return the resident memory of the process and its children."""
        if self.process is None:
            return 0.0
        whole = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in (whole, *whole.children(recursive=True))) / 2**20


@dataclass(frozen=True)
class Cores:
    """Which core runs what. On two cores the gateway has one alone; client, engine and hub share the other."""

    gateway: int
    engine: int
    client: int
    hub: int

    @classmethod
    def of_machine(cls) -> Cores:
        """Spread over the cores of this process."""
        own = sorted(os.sched_getaffinity(0))
        others = own[:1] + own[2:] if len(own) > 1 else own
        return cls(own[min(1, len(own) - 1)], *(others[number % len(others)] for number in range(3)))


@contextlib.contextmanager
def started(folder: Path, cores: Cores, *, litellm: Path) -> Iterator[dict[str, Contender]]:
    """Run everything; yield the contenders by name. Everything started is stopped again."""
    with contextlib.ExitStack() as stack:
        hub, engine = started_world(stack, folder, cores)
        found = {"direct": Contender("direct", engine, MODEL, SECRET)}
        for name, module in (("ours", "serving.gateway"), ("ours_unmetered", "benchmarks.gateway.unmetered")):
            found[name] = _start_gateway(stack, folder / name, cores, _module(module), hub=hub)
        engine_url = f"http://127.0.0.1:{engine}"
        found["litellm"] = _start_litellm(stack, folder, cores, litellm=litellm, engine_url=engine_url)
        yield found


def started_world(stack: contextlib.ExitStack, folder: Path, cores: Cores) -> tuple[int, int]:
    """Start hub and engine; return their ports."""
    engine, hub = _free_port(), _free_port()
    _start(stack, folder, "engine", cores.engine, _module("benchmarks.gateway.upstream", str(engine)))
    url = f"http://127.0.0.1:{engine}"
    _start(stack, folder, "hub", cores.hub, _module("benchmarks.gateway.control", str(hub), url))
    _await_port(engine)
    _await_port(hub)
    return hub, engine


@contextlib.contextmanager
def started_variant(folder: Path, cores: Cores, variant: str, *, hub: int) -> Iterator[Contender]:
    """Run our gateway behind another server or client; see `front_ends`."""
    with contextlib.ExitStack() as stack:
        yield _start_gateway(stack, folder, cores, _module("benchmarks.gateway.front_ends", variant), hub=hub)


def _start_gateway(stack: contextlib.ExitStack, folder: Path, cores: Cores, argv: list[str], *, hub: int) -> Contender:
    port = _free_port()
    options = _gateway_options(folder, port=port, hub=hub)
    process = _start(stack, folder, "gateway", cores.gateway, [*argv, *options])
    _await_health(port, "/healthz")
    return Contender(folder.name, port, MODEL, SECRET, process)


def _gateway_options(folder: Path, *, port: int, hub: int) -> list[str]:
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN)
    (folder / "pepper").write_bytes(PEPPER)
    address = f"http://127.0.0.1:{hub}"
    options = ["--hub", address, "--pool", address, "--token-file", f"{folder}/token", "--journal", f"{folder}/journal"]
    return [*options, "--listen", f"127.0.0.1:{port}", "--pepper-file", f"{folder}/pepper"]


def _start_litellm(
    stack: contextlib.ExitStack, folder: Path, cores: Cores, *, litellm: Path, engine_url: str
) -> Contender:
    """Start LiteLLM as its own pages advise for speed: one worker, no data base, no debug output."""
    port = _free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/base\n"
        f"      api_base: {engine_url}/v1\n      api_key: none\n"
        f"general_settings:\n  master_key: {LITELLM_KEY}\nlitellm_settings:\n  set_verbose: false\n"
    )
    argv = [str(litellm), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    process = _start(stack, folder, "litellm", cores.gateway, argv)
    _await_health(port, "/health/liveliness")
    return Contender("litellm", port, MODEL, LITELLM_KEY, process)


def _start(stack: contextlib.ExitStack, folder: Path, name: str, core: int, argv: list[str]) -> subprocess.Popen[bytes]:
    log = stack.enter_context((folder / f"{name}.log").open("wb"))
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_LOG": "ERROR",
        "PYTHONPATH": "" if name == "litellm" else f"{Path.cwd()}:{os.environ.get('PYTHONPATH', '')}",
    }
    process = subprocess.Popen(["taskset", "-c", str(core), *argv], stdout=log, stderr=log, env=environment)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {_START_S:.0f} s")


def _await_health(port: int, path: str) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.3)
    raise TimeoutError(f"port {port} is not healthy after {_START_S:.0f} s; see its log")
