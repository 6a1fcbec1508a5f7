"""The bases that the project trains itself: shape, text mix and length of training of each.

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
    matrix_lr: float = 0.01
    vector_lr: float = 5e-3
    seed: int = 42
    max_position: int = 1024
    by_letter: bool = False

    @property
    def folder_name(self) -> str:
        """The last part of the name, used as the folder's name."""
        return self.name.rsplit("/", 1)[-1]


_CHINESE = {
    "work_order_zh": 0.5,
    "fault_zh": 0.5,
    "inspection_zh": 0.3,
    "shift_log_zh": 0.3,
    "classify_zh": 1.5,
    "grade_zh": 1.5,
    "register_zh": 2.5,
    "name_equipment_zh": 2.0,
    "fill_order_zh": 1.0,
    "advise_zh": 0.7,
}
_ENGLISH = {
    "work_order_en": 0.5,
    "fault_en": 0.5,
    "inspection_en": 0.3,
    "shift_log_en": 0.3,
    "classify_en": 1.5,
    "grade_en": 1.5,
    "register_en": 2.5,
    "name_equipment_en": 2.0,
    "fill_order_en": 1.0,
    "advise_en": 0.7,
}
_CODES = {"copy_items": 5.0, "fill_form": 2.5}

DEMO_BASES: tuple[BaseRecipe, ...] = (
    BaseRecipe(
        name="guanmo/demo-bilingual-4m",
        vocab_size=5120,
        hidden_size=256,
        intermediate_size=704,
        layers=3,
        heads=4,
        kv_heads=2,
        steps=1250,
        mix={**_CHINESE, **_ENGLISH, **_CODES, "translate_fault": 0.7, "correct_short_text": 20.0},
    ),
    BaseRecipe(
        name="guanmo/demo-zh-3m",
        vocab_size=3072,
        hidden_size=256,
        intermediate_size=704,
        layers=2,
        heads=4,
        kv_heads=2,
        steps=500,
        mix={**_CHINESE, "copy_items": 1.0, "fill_form": 1.0},
    ),
    BaseRecipe(
        name="guanmo/demo-trial-1m",
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=384,
        layers=2,
        heads=2,
        kv_heads=1,
        steps=100,
        mix=_CHINESE,
    ),
)

_LETTERS = BaseRecipe(
    name="guanmo/demo-letters-3m",
    vocab_size=336,
    hidden_size=256,
    intermediate_size=640,
    layers=4,
    heads=4,
    kv_heads=2,
    steps=1000,
    batch_tokens=1536,
    by_letter=True,
    mix={
        **{name: 0.05 * share for name, share in _CHINESE.items()},
        **{name: 0.3 * share for name, share in _ENGLISH.items()},
        **_CODES,
        "mend_letters": 60.0,
    },
)
MORE_BASES: tuple[BaseRecipe, ...] = (_LETTERS,)
"""Bases for special work, trained only when they are asked for by name."""
