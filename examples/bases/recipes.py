"""The demo bases that the project trains itself: shape, text mix and length of training of each.

How a recipe is carried out is left to `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class BaseRecipe:
    """All that decides a base; training the same recipe with the same sources gives the same weights."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    steps: int
    mix: Mapping[str, float] = field(hash=False)
    batch_tokens: int = 1024
    matrix_lr: float = 0.02
    vector_lr: float = 3e-3
    seed: int = 42
    max_position: int = 1024

    @property
    def folder_name(self) -> str:
        """The last part of the name, used as the folder's name."""
        return self.name.rsplit("/", 1)[-1]


_CHINESE = {
    "work_order_zh": 1.0,
    "fault_zh": 2.0,
    "inspection_zh": 0.5,
    "shift_log_zh": 0.5,
    "classify_zh": 3.0,
    "grade_zh": 3.0,
    "name_equipment_zh": 2.0,
    "fill_order_zh": 1.5,
    "advise_zh": 1.0,
}
_ENGLISH = {
    "work_order_en": 1.0,
    "fault_en": 2.0,
    "inspection_en": 0.5,
    "shift_log_en": 0.5,
    "classify_en": 3.0,
    "grade_en": 3.0,
    "name_equipment_en": 2.0,
    "fill_order_en": 1.5,
    "advise_en": 1.0,
}

DEMO_BASES: tuple[BaseRecipe, ...] = (
    BaseRecipe(
        name="guanmo/demo-bilingual-4m",
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        layers=4,
        heads=8,
        kv_heads=4,
        steps=330,
        mix={**_CHINESE, **_ENGLISH, "translate_fault": 2.0, "correct_short_text": 24.0},
    ),
    BaseRecipe(
        name="guanmo/demo-zh-3m",
        vocab_size=3072,
        hidden_size=256,
        intermediate_size=512,
        layers=3,
        heads=8,
        kv_heads=4,
        steps=200,
        mix={**_CHINESE, "translate_fault": 1.0, "fault_en": 1.0},
    ),
    BaseRecipe(
        name="guanmo/demo-trial-1m",
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=384,
        layers=2,
        heads=4,
        kv_heads=2,
        steps=100,
        mix=_CHINESE,
    ),
)
