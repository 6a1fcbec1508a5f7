"""Run vLLM's own API server with its engine core forked instead of spawned; every option is left to vLLM.

Spawning imports torch and vLLM again in each child, which is most of a cold start on CPU (measured in
`engine_command`). vLLM forks by default wherever no CUDA context exists; its CPU platform forces spawn only to set
OpenMP's environment, and we set that before this process starts. LoRA's products are `cpu_lora`'s, which a platform
names to vLLM.
"""

import importlib
import multiprocessing
import sys
from multiprocessing.context import BaseContext
from typing import Any

PUNICA = "serving.pool.cpu_lora.GroupedPunica"
UNUSED = ("sklearn", "scipy")
"""MLflow brings them, and transformers imports them where they are, for metrics and losses that no engine computes: a
sixth of a start's processor time and 137 MiB of each engine."""


def main() -> None:
    """Serve until told to stop; arguments are those of `vllm.entrypoints.openai.api_server`."""
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    engine_processes: Any = importlib.import_module("vllm.v1.engine.utils")
    entry: Any = importlib.import_module("vllm.entrypoints.launchers.api_server.entry")
    platform: Any = importlib.import_module("vllm.platforms.cpu")

    def fork_context() -> BaseContext:
        return multiprocessing.get_context("fork")

    engine_processes.get_mp_context = fork_context
    platform.CpuPlatform.get_punica_wrapper = classmethod(lambda _platform: PUNICA)
    entry.main()


if __name__ == "__main__":
    main()
