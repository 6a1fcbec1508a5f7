"""What a published embedding model says about turning token vectors into one: task, pooling, normalising.

Source: the layout of sentence-transformers (modules.json, 1_Pooling/config.json). A folder without it that holds a bare
encoder is pooled by its first token and normalised, which is what vLLM does then. Safety is left to `base_check`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.report import Report
from registry.strict_json import JsonRefusedError, read_json_object

POOLING_FOLDERS = ("1_Pooling", "2_Normalize")
_MODES = {
    "pooling_mode_cls_token": "CLS",
    "pooling_mode_mean_tokens": "MEAN",
    "pooling_mode_lasttoken": "LAST",
}
_ENCODER = re.compile(r"(Bert|Roberta|XLMRoberta|ModernBert)Model")
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Pooling:
    """`kind` is a pooling of vLLM: CLS, MEAN or LAST."""

    kind: str
    normalize: bool


def read_pooling(folder: Path, architecture: str, report: Report) -> Pooling | None:
    """Return how an embedding model pools, None for another task; a broken file is rejected in the report."""
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file() or path.is_symlink() or path.parent.is_symlink():
        return Pooling("CLS", normalize=True) if _ENCODER.fullmatch(architecture) else None
    try:
        config = read_json_object(path, max_bytes=_MAX_BYTES)
    except JsonRefusedError as error:
        report.reject_error("config.pooling", error)
        return None
    kind = _choose_kind(config)
    if kind is None:
        report.reject(
            "config.pooling",
            "1_Pooling/config.json 的池化方式不受支持",
            "1_Pooling/config.json asks for a pooling that is not served",
            fix_zh="支持 cls、mean、lasttoken 三种之一",
            fix_en="One of cls, mean and lasttoken is served",
            subject="1_Pooling/config.json",
        )
        return None
    return Pooling(kind, normalize=(folder / "2_Normalize").is_dir())


def _choose_kind(config: Mapping[str, object]) -> str | None:
    """The one mode that is switched on; several at once would be joined, which no engine does."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return {"cls": "CLS", "mean": "MEAN", "lasttoken": "LAST"}.get(named)
    switched_on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    return _MODES.get(switched_on[0]) if len(switched_on) == 1 else None
