"""Small real model folders and hostile files for the registry's tests, written without torch."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

HIDDEN, INNER, VOCAB, RANK = 8, 12, 32, 4
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
}
LORA_CONFIG = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "up_proj"],
    "bias": "none",
    "task_type": "CAUSAL_LM",
}


def base_tensors() -> dict[str, NDArray[np.float32]]:
    """Return the matrices of a two-layer model, the same on every call."""
    rng = np.random.default_rng(7)
    names = {f"model.layers.{layer}.{module}.weight": shape for layer in (0, 1) for module, shape in SHAPES.items()}
    names |= {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in names.items()}
    return tensors | {"model.norm.weight": np.ones(HIDDEN, np.float32)}


def write_base(folder: Path) -> Path:
    """Write a complete Hugging Face folder of a tiny base."""
    folder.mkdir(parents=True)
    save_file(base_tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "BPE"}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def adapter_tensors() -> dict[str, NDArray[Any]]:
    """Return LoRA pairs for q_proj and up_proj of both layers."""
    rng = np.random.default_rng(11)
    tensors: dict[str, NDArray[Any]] = {}
    for layer in (0, 1):
        for module in ("self_attn.q_proj", "mlp.up_proj"):
            out_features, in_features = SHAPES[module]
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{prefix}.lora_A.weight"] = rng.normal(size=(RANK, in_features)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = rng.normal(size=(out_features, RANK)).astype(np.float32)
    return tensors


def write_adapter(
    folder: Path, *, tensors: Mapping[str, NDArray[Any]] | None = None, config: Mapping[str, Any] | None = None
) -> Path:
    """Write an adapter; `config` entries replace those of an ordinary one."""
    folder.mkdir(parents=True)
    save_file(dict(tensors or adapter_tensors()), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**LORA_CONFIG, **(config or {})}))
    return folder


def raw_safetensors(header: bytes, body: bytes = b"") -> bytes:
    """Return the bytes of a safetensors file with exactly this header."""
    return struct.pack("<Q", len(header)) + header + body


def write_bfloat16(path: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write tensors as BF16, which numpy has no type for: the upper half of each F32."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        halves = (tensor.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(halves)],
        }
        body += halves
    path.write_bytes(raw_safetensors(json.dumps(header).encode(), body))
