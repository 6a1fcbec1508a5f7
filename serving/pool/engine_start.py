"""Run vLLM's own API server with its engine core forked instead of spawned; every option is left to vLLM.

Spawning imports torch and vLLM again in each child, which is most of a cold start on CPU (measured in
`engine_command`). vLLM forks by default wherever no CUDA context exists; its CPU platform forces spawn only to set
OpenMP's environment, and we set that before this process starts. LoRA's products are `cpu_lora`'s, which a platform
names to vLLM. With `--fork-at DESCRIPTOR` it loads everything and `serving.launch` forks each engine from it (ADR 35).
"""

import importlib
import multiprocessing
import socket
import sys
from multiprocessing.context import BaseContext
from typing import Any

from serving.launch import forks

FORK_AT = "--fork-at"
PUNICA = "serving.pool.cpu_lora.GroupedPunica"
UNUSED = ("sklearn", "scipy")
"""MLflow brings them, and transformers imports them where they are, for metrics and losses that no engine computes: a
sixth of a start's processor time and 137 MiB of each engine."""

LATER = (
    *("vllm.v1.engine.async_llm", "vllm.v1.engine.core", "vllm.v1.worker.cpu_worker"),
    "vllm.model_executor.layers.quantization.online.base",
    *(f"vllm.entrypoints.openai.{name}.api_router" for name in ("chat_completion", "completion", "responses")),
)
"""The larger modules that vLLM imports only while it starts."""


def main() -> None:
    """Serve until told to stop; arguments are those of `vllm.entrypoints.openai.api_server`."""
    entry = _load()
    if sys.argv[1:2] == [FORK_AT]:
        for name in LATER:
            importlib.import_module(name)
        forks.serve(socket.socket(fileno=int(sys.argv[2])))
    entry.main()


def _load() -> Any:
    """Import vLLM, with our parts in their places; returns the module of its server."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    engine_processes: Any = importlib.import_module("vllm.v1.engine.utils")
    entry: Any = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    platform: Any = importlib.import_module("vllm.platforms.cpu")

    def fork_context() -> BaseContext:
        return multiprocessing.get_context("fork")

    engine_processes.get_mp_context = fork_context
    platform.CpuPlatform.get_punica_wrapper = classmethod(lambda _platform: PUNICA)
    return entry


if __name__ == "__main__":
    main()
