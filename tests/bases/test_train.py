"""A tiny base trains in seconds, is saved as others read it, and is made once."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from examples.bases.cache import compute_key, find_trained
from examples.bases.recipes import DEMO_BASES, BaseRecipe

_ROOT = Path(__file__).parents[2]
TINY = replace(
    DEMO_BASES[-1],
    name="test/tiny",
    vocab_size=768,
    hidden_size=64,
    intermediate_size=64,
    layers=1,
    heads=2,
    kv_heads=1,
    steps=20,
    batch_tokens=256,
)
# In its own process: the libraries' own warnings would be errors here, and the thread count is set before torch loads.
_SCRIPT = """
import json, sys
from pathlib import Path
from examples.bases.train import train_base
from tests.bases.test_train import TINY
for folder in (sys.argv[1], sys.argv[1], sys.argv[2]):
    print(json.dumps(train_base(TINY, Path(folder)).to_json()))
"""


def _train(*outs: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *map(str, outs)],
        cwd=_ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "test/tiny: step 20/20" in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    out = tmp_path_factory.mktemp("bases")
    return out, _train(out, tmp_path_factory.mktemp("elsewhere"))


def test_a_second_training_reuses_the_first(trained: tuple[Path, list[dict[str, object]]]) -> None:
    _, (first, second, _) = trained
    assert (first["reused"], second["reused"]) == (False, True)
    assert first | {"reused": True} == second


def test_training_again_elsewhere_gives_the_same_weights(trained: tuple[Path, list[dict[str, object]]]) -> None:
    _, (first, _, elsewhere) = trained
    assert elsewhere["reused"] is False
    assert elsewhere["weights_sha256"] == first["weights_sha256"]


def test_the_folder_is_ordinary_hugging_face_format(trained: tuple[Path, list[dict[str, object]]]) -> None:
    folder = trained[0] / TINY.folder_name
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    template = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    assert "{% generation %}" in template
    assert [path for path in trained[0].iterdir() if path.name.startswith(".tiny-")] == []


def test_the_chat_template_renders_what_the_base_was_trained_on(
    trained: tuple[Path, list[dict[str, object]]],
) -> None:
    from transformers import AutoTokenizer

    from examples.bases.rows import ask
    from examples.bases.tokenizer import IGNORED, encode_rows

    tokenizer = AutoTokenizer.from_pretrained(trained[0] / TINY.folder_name)
    row = ask("泵漏油?", "更换密封圈", system="简短回答")
    messages = [{"role": message.role, "content": message.content} for message in row.messages]
    rendered = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids, labels = next(iter(encode_rows(tokenizer, [row])))
    assert ids == rendered["input_ids"]
    assert [int(label != IGNORED) for label in labels] == rendered["assistant_masks"]
    assert tokenizer.decode(ids).startswith(
        "<|im_start|>system\n简短回答<|im_end|>\n<|im_start|>user\n泵漏油?<|im_end|>"
    )
    assert tokenizer.eos_token == "<|im_end|>"
    assert len(tokenizer("①㊿", add_special_tokens=False)["input_ids"]) == 2


def test_changed_recipe_or_weights_are_not_reused(trained: tuple[Path, list[dict[str, object]]]) -> None:
    out, (first, _, _) = trained
    other: BaseRecipe = replace(TINY, seed=43)
    assert compute_key(other) != compute_key(TINY) == first["key"]
    assert find_trained(TINY, out, compute_key(other)) is None
    weights = out / TINY.folder_name / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert find_trained(TINY, out, compute_key(TINY)) is None
    finally:
        weights.write_bytes(content)
    assert find_trained(TINY, out, compute_key(TINY)) is not None
