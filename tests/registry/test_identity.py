"""Identity by content: independent of sharding, sensitive to every byte, and the same in both packages."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from finetune.base import digest_weights
from registry.identity import IdentityUnknownError, read_template, template_digest, tokenizer_digest, weights_digest
from registry.lineage import Lineage, LineageRefusedError
from tests.registry.builders import TEMPLATE, base_tensors


def test_weights_digest_follows_its_definition(base: Path) -> None:
    lines = [
        f"{name}\tF32\t{','.join(map(str, tensor.shape))}\t{hashlib.sha256(tensor.tobytes()).hexdigest()}\n"
        for name, tensor in sorted(base_tensors().items())
    ]
    assert weights_digest(base) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_trainer_and_registry_agree(base: Path) -> None:
    assert digest_weights(base) == weights_digest(base)


def test_sharding_and_metadata_do_not_matter_but_bytes_do(base: Path) -> None:
    whole = weights_digest(base)
    tensors = base_tensors()
    names = sorted(tensors)
    (base / "model.safetensors").unlink()
    for number, part in enumerate((names[:3], names[3:]), start=1):
        save_file({name: tensors[name] for name in part}, base / f"model-0000{number}-of-00002.safetensors")
    assert weights_digest(base) == whole == digest_weights(base)
    tensors[names[0]].reshape(-1)[0] = np.nextafter(tensors[names[0]].reshape(-1)[0], np.float32(9))
    save_file({name: tensors[name] for name in names[:3]}, base / "model-00001-of-00002.safetensors")
    assert weights_digest(base) != whole


def test_tensor_in_two_shards_is_refused(base: Path) -> None:
    (base / "model-copy.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    with pytest.raises(IdentityUnknownError, match="another shard"):
        weights_digest(base)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityUnknownError, match="safetensors"):
        weights_digest(tmp_path)
    with pytest.raises(IdentityUnknownError, match=r"tokenizer\.json"):
        tokenizer_digest(tmp_path)


def test_template_comes_from_either_file(base: Path) -> None:
    assert read_template(base) == TEMPLATE
    inside = template_digest(base)
    (base / "tokenizer_config.json").unlink()
    assert template_digest(base) == hashlib.sha256(b"").hexdigest()
    (base / "chat_template.jinja").write_text(TEMPLATE)
    assert template_digest(base) == inside
    assert tokenizer_digest(base) == hashlib.sha256((base / "tokenizer.json").read_bytes()).hexdigest()


def test_several_templates_and_broken_text_are_refused(base: Path) -> None:
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": [{"name": "a", "template": "b"}]}))
    with pytest.raises(IdentityUnknownError, match="several"):
        read_template(base)
    (base / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(IdentityUnknownError, match="UTF-8"):
        read_template(base)


def test_lineage_digest_is_canonical() -> None:
    first = Lineage(base_weights_digest="a" * 64, artifact_digest="b" * 64, data_digests=("d" * 64, "c" * 64))
    second = Lineage(artifact_digest="b" * 64, base_weights_digest="a" * 64, data_digests=("c" * 64, "d" * 64))
    assert first.digest() == second.digest() == hashlib.sha256(first.canonical_json().encode()).hexdigest()
    assert first.digest() != Lineage(base_weights_digest="a" * 64, artifact_digest="b" * 64).digest()
    assert first.as_tags()["guanmo.data_digests"] == f"{'c' * 64},{'d' * 64}"
    with pytest.raises(LineageRefusedError, match="64"):
        Lineage(base_weights_digest="A" * 64, artifact_digest="b" * 64)


def test_a_long_digest_gives_a_sign_of_life_after_each_part(base: Path) -> None:
    parts: list[None] = []
    assert digest_weights(base, lambda: parts.append(None)) == weights_digest(base)
    assert len(parts) >= len(base_tensors()) > 1
