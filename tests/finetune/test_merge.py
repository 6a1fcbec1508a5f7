"""An adapter merged into its base answers as base plus adapter, plain LoRA and DoRA, and leaves nothing half-made."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.merge import main, merge_adapter
from tests.pool.make_tiny import write_base

PROMPT = torch.arange(5, 45).reshape(1, -1)


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.float().eval()(PROMPT).logits
    return logits


def make_adapter(base: Path, folder: Path, **changes: Any) -> None:
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], **changes)
    tuned: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    tuned.save_pretrained(str(folder))


@pytest.mark.parametrize("kind", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_merged_weights_answer_as_base_and_adapter(tmp_path: Path, kind: dict[str, Any]) -> None:
    torch.manual_seed(3)
    write_base(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "adapter", **kind)
    merge_adapter(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    wanted = answer(PeftModel.from_pretrained(plain, str(tmp_path / "adapter")))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16, "the base's own number format"
    base = answer(AutoModelForCausalLM.from_pretrained(tmp_path / "base"))
    error, effect = (answer(merged) - wanted).abs().mean(), (base - wanted).abs().mean()
    assert effect > 20 * error, f"rounding to bf16 costs {error:.2g}, the adapter changes {effect:.2g}"
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not (tmp_path / ".merged.partial").exists()


def test_an_existing_folder_and_wrong_usage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        merge_adapter(tmp_path, tmp_path, tmp_path)
    assert main(["one"]) == 2
    ended = subprocess.run([sys.executable, "-m", "finetune.merge"], capture_output=True, text=True, check=False)
    assert (ended.returncode, "usage" in ended.stderr) == (2, True)
