"""Tiny base model folders, one set of weights each, so that filings and lineage are real. None is of use."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HIDDEN, INNER, VOCAB = 8, 12, 32
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 1,
}
TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"


def write_base(folder: Path, seed: int) -> Path:
    """Write a complete folder whose weights follow from the seed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shapes = {f"model.layers.0.{module}.weight": shape for module, shape in SHAPES.items()}
    shapes["model.embed_tokens.weight"] = (VOCAB, HIDDEN)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "BPE"}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder
