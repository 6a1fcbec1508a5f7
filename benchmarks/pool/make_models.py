"""Write what the bench serves: `python -m benchmarks.pool.make_models FOLDER COUNT`: base, adapters, one merged."""

import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from finetune.merge import merge_adapter
from tests.pool.make_tiny import write_base

RANK = 8
make_model: Any = Qwen2ForCausalLM
load_tokenizer: Any = PreTrainedTokenizerFast.from_pretrained


def main(folder: Path, count: int) -> None:
    """A random Qwen2 shape of about 75 M parameters, `count` random adapters of rank 8 on all its linear layers.

    On one core its step for 16 calls takes about as long as that of 7 B parameters on a data-centre card: the ratios
    of a smaller one are those of Python between the steps.
    """
    torch.manual_seed(0)
    base = folder / "base"
    write_base(base)  # for its tokenizer; the weights are replaced
    tokenizer = load_tokenizer(base)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    make_model(config).to(torch.bfloat16).save_pretrained(base)
    _write_adapters(base, folder, count)
    merge_adapter(base, folder / "adapter_0", folder / "merged")


def _write_adapters(base: Path, folder: Path, count: int) -> None:
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(make_model.from_pretrained(base), LoraConfig(r=RANK, lora_alpha=16, target_modules=modules))
    for number in range(count):
        out = folder / f"adapter_{number}"
        tuned.save_pretrained(str(out))
        (out / "README.md").unlink(missing_ok=True)
        weights = load_file(out / "adapter_model.safetensors")
        changed = {name: torch.randn_like(weight) * 0.05 for name, weight in weights.items()}
        save_file(changed, out / "adapter_model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
