"""What a base model says about itself, for the catalogue.

It leaves safety to `registry.base_check`; nothing here is trusted further than its type and range.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.pooling import read_pooling
from registry.report import Report
from registry.safetensors_header import TensorEntry

_MAX_COUNT = 10**9
_UNUSED_POSITIONS = {"roberta": 2, "xlm-roberta": 2}
"""Positions that these families count from 2: that many of their table are never reached."""
_FRONT_MATTER_BYTES = 16 * 1024
_LICENSE = re.compile(r"""^license:\s*["']?([A-Za-z0-9.+_-]{1,64})["']?\s*$""", re.MULTILINE)
_WORDS = re.compile(r"[A-Za-z0-9_]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """`parameters` counts stored values (a tied output layer once); `dtype` is the word most values have.

    `task` is `generate` or `embed`; `pooling` and `normalize` say how an embedding model makes one vector of many.
    """

    model_type: str
    architecture: str
    parameters: int
    size_bytes: int
    dtype: str
    vocab_size: int
    context_length: int
    hidden_size: int
    layers: int
    license: str | None
    task: str = "generate"
    pooling: str | None = None
    normalize: bool = False


def read_facts(
    folder: Path, config: Mapping[str, object], entries: Sequence[TensorEntry], report: Report
) -> BaseFacts | None:
    """Return the facts, or None after rejecting in the report what is missing."""
    counts = {
        key: _read_count(config, key, report)
        for key in ("vocab_size", "max_position_embeddings", "hidden_size", "num_hidden_layers")
    }
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    architecture = _read_word("architectures", first, report)
    model_type = _read_word("model_type", config.get("model_type"), report)
    if not architecture or not model_type or 0 in counts.values():
        return None
    pooling = read_pooling(folder, architecture, report)
    values = Counter[str]()
    for entry in entries:
        values[entry.dtype] += math.prod(entry.shape)
    return BaseFacts(
        model_type=model_type,
        architecture=architecture,
        parameters=values.total(),
        size_bytes=sum(entry.end - entry.begin for entry in entries),
        dtype=values.most_common(1)[0][0],
        vocab_size=counts["vocab_size"],
        context_length=counts["max_position_embeddings"] - _UNUSED_POSITIONS.get(model_type, 0),
        hidden_size=counts["hidden_size"],
        layers=counts["num_hidden_layers"],
        license=read_license(folder / "README.md"),
        task="generate" if pooling is None else "embed",
        pooling=None if pooling is None else pooling.kind,
        normalize=pooling is not None and pooling.normalize,
    )


def read_license(readme: Path) -> str | None:
    """Return the licence that the front matter of a model card names, or None; the YAML itself is never loaded."""
    if not readme.is_file():
        return None
    with readme.open("rb") as stream:
        text = stream.read(_FRONT_MATTER_BYTES).decode("utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    match = _LICENSE.search(text[4 : text.index("\n---", 4) + 1])
    return match[1] if match else None


def _read_count(config: Mapping[str, object], key: str, report: Report) -> int:
    value = config.get(key)
    if type(value) is int and 0 < value <= _MAX_COUNT:
        return value
    _reject(report, key, value)
    return 0


def _read_word(key: str, value: object, report: Report) -> str:
    if isinstance(value, str) and _WORDS.fullmatch(value):
        return value
    _reject(report, key, value)
    return ""


def _reject(report: Report, key: str, value: object) -> None:
    report.reject(
        "config.facts",
        f"config.json 的 {key} 为 {value!r}",
        f"{key} of config.json is {value!r}",
        fix_zh="请使用文本生成模型的完整 config.json",
        fix_en="Use the complete config.json of a text generation model",
        subject=key,
    )
