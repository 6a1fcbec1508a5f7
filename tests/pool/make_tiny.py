"""Write a random tiny Qwen2 base and PEFT adapters on it: `python make_tiny.py [--talks] BASE [ADAPTER...]`.

A base that talks never falls into repeating itself, so that greedy texts tell apart where a continuation began.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"


# transformers leaves these classes untyped
make_fast: Any = PreTrainedTokenizerFast
make_model: Any = Qwen2ForCausalLM


def write_base(folder: Path, *, talks: bool = False) -> None:
    """Qwen2 shape: hidden 128, head_dim 64, 2 layers, byte-level BPE of 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["spindle bearing 主轴 轴承 过热 "] * 10, trainer)
    fast = make_fast(tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0])
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=not talks,
        initializer_range=0.3 if talks else 0.02,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    model = make_model(config)
    if talks:
        silence_unprintable(model, fast)
    model.to(torch.float32 if talks else torch.bfloat16).save_pretrained(folder)


def silence_unprintable(model: Any, fast: Any) -> None:
    """Let greedy decoding choose only tokens that are whole printable characters by themselves."""
    for token in range(len(fast)):
        text = fast.decode([token], skip_special_tokens=True).strip()
        if not text or "\ufffd" in text or not text.isprintable():
            model.lm_head.weight.data[token] = 0


def write_adapter(base: Path, folder: Path) -> None:
    """Rank 8 on the attention projections, with weights large enough to change every answer."""
    model = make_model.from_pretrained(base)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5)
    tuned.save_pretrained(str(folder))


if __name__ == "__main__":
    torch.manual_seed(0)
    talks = sys.argv[1] == "--talks"
    base, *adapters = sys.argv[1 + talks :]
    write_base(Path(base), talks=talks)
    for name in adapters:
        write_adapter(Path(base), Path(name))
