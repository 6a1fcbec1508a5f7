"""Pure rules of deployments: engine limits of a base, who may deploy, when something observed counts as ready.

It leaves rows to `hub.deployments.service` and placement to the pool controller.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.contract import AdapterState, ObservedAdapter, ObservedReplica, ReplicaState, Task

ENGINE = "vllm"
TOOL_PARSERS = {
    "deepseek_v3": "deepseek_v3",
    "gemma4": "gemma4",
    "glm4_moe": "glm45",
    "gpt_oss": "openai",
    "granite": "granite",
    "internlm2": "internlm",
    "llama": "llama3_json",
    "llama4": "llama4_json",
    "mistral": "mistral",
    "phi3": "phi4_mini_json",
    "qwen3": "qwen3_json",
}
"""Which of vLLM's parsers reads the tool calls of a family of models."""
DEFAULT_TOOL_PARSER = "hermes"
"""`<tool_call>{...}</tool_call>`, which most other families write, Qwen2 among them."""
LEAST_LORA_RANK = 16
MOST_CONTEXT_TOKENS = 8192
LEAD_S = 20.0
"""A controller that is silent for so long may be replaced; it reports every 5 s."""


def choose_context_tokens(facts: Mapping[str, Any]) -> int:
    """Return the engine's limit of prompt plus completion, from what the base says about itself."""
    return min(MOST_CONTEXT_TOKENS, int(facts.get("context_length") or 1024))


def choose_lora_rank(current: int, wanted: int | None) -> int:
    """Return the rank limit of a set that shall carry one more adapter."""
    return max(LEAST_LORA_RANK, current, wanted or 0)


def choose_task(facts: Mapping[str, Any]) -> Task:
    """Return what engines of a base compute, from what it says about itself."""
    return Task(facts.get("task") or Task.GENERATE)


def choose_engine_args(facts: Mapping[str, Any], context_tokens: int) -> dict[str, str | int]:
    """Return the engine's options of a base: its context, how it writes tool calls, how an embedding model pools."""
    if choose_task(facts) is not Task.EMBED:
        parser = TOOL_PARSERS.get(str(facts.get("model_type")), DEFAULT_TOOL_PARSER)
        return {"max-model-len": context_tokens, "tool-call-parser": parser}
    pooler = {"pooling_type": facts.get("pooling") or "CLS", "use_activation": bool(facts.get("normalize", True))}
    chosen: dict[str, str | int] = {
        "max-model-len": context_tokens,
        "pooler-config": json.dumps(pooler, sort_keys=True),
    }
    if facts.get("dtype") == "F32":
        chosen["dtype"] = "float32"  # the engine would round to 16 bits, which moves vectors by more than 1e-3
    return chosen


def is_base_ready(set_id: str, replicas: Sequence[ObservedReplica]) -> bool:
    """Return whether any engine of the set passed its warm-up."""
    return any(replica.set_id == set_id and replica.state is ReplicaState.READY for replica in replicas)


def is_adapter_ready(set_id: str, replicas: Sequence[ObservedReplica], adapter: ObservedAdapter | None) -> bool:
    """Return whether an adapter answers on at least one engine of the set."""
    if adapter is None or adapter.state is not AdapterState.READY:
        return False
    return any(replica.set_id == set_id and replica.replica_id in adapter.ready_on for replica in replicas)


def find_failure(set_id: str, replicas: Sequence[ObservedReplica], adapter: ObservedAdapter | None) -> str | None:
    """Return why a wanted deployment does not answer, None while it may still come up."""
    if adapter is not None and adapter.state is AdapterState.FAILED:
        return adapter.reason_code or "adapter_failed"
    own = [replica for replica in replicas if replica.set_id == set_id]
    if own and all(replica.state is ReplicaState.FAILED for replica in own):
        return next((replica.reason_code for replica in own if replica.reason_code), "engine_failed")
    return None


MERGE_ABOVE = 0.15
SPLIT_BELOW = 0.05


@dataclass(frozen=True)
class MergeCase:
    """What merging an adapter would bring: its share of its base's tokens, how much faster it would be, and room.

    `speed_up` is tokens a second of a merged engine over the same adapter in a slot, as `make bench-pool` measures it.
    """

    traffic_share: float
    speed_up: float
    engine_bytes: int
    free_bytes: int
    is_merged: bool = False


def is_worth_merging(case: MergeCase) -> bool:
    """Return whether an adapter should have an engine of its own with merged weights.

    The gain is the share of the base's engine time that it saves. It must be worth the memory of a whole engine: more
    than 0.15, and more the less memory is free; one that is merged stays so until the gain falls below 0.05.
    """
    if case.is_merged:
        return _gain(case) >= SPLIT_BELOW
    if case.engine_bytes > case.free_bytes:
        return False
    return _gain(case) >= MERGE_ABOVE * (1 + case.engine_bytes / case.free_bytes)


def _gain(case: MergeCase) -> float:
    return case.traffic_share * (1 - 1 / case.speed_up) if case.speed_up > 1 else 0.0
