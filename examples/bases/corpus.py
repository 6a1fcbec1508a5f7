"""Generates the manufacturing text that the base models learn from: documents and chats, Chinese and English.

Tokenising and training are left to `tokenizer` and `train`; the factory's own codes to the example task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from examples.bases import chats, documents, forms
from examples.bases.rows import Row

Writer = Callable[[random.Random], Row]

WRITERS: Final[Mapping[str, Writer]] = {
    "work_order_zh": documents.write_work_order_zh,
    "work_order_en": documents.write_work_order_en,
    "fault_zh": documents.write_fault_zh,
    "fault_en": documents.write_fault_en,
    "inspection_zh": documents.write_inspection_zh,
    "inspection_en": documents.write_inspection_en,
    "shift_log_zh": documents.write_shift_log_zh,
    "shift_log_en": documents.write_shift_log_en,
    "classify_zh": chats.classify_zh,
    "classify_en": chats.classify_en,
    "grade_zh": chats.grade_zh,
    "grade_en": chats.grade_en,
    "register_zh": chats.register_zh,
    "register_en": chats.register_en,
    "name_equipment_zh": chats.name_equipment_zh,
    "name_equipment_en": chats.name_equipment_en,
    "translate_fault": chats.translate_fault,
    "fill_order_zh": chats.fill_order_zh,
    "fill_order_en": chats.fill_order_en,
    "advise_zh": chats.advise_zh,
    "advise_en": chats.advise_en,
    "copy_items": forms.copy_items,
    "fill_form": forms.fill_form,
    "correct_short_text": chats.correct_short_text,
    "mend_letters": chats.mend_letters,
}


def generate_rows(mix: Mapping[str, float], *, seed: int, count: int) -> Iterator[Row]:
    """Write `count` rows, each by a writer drawn by its weight in `mix`; the same arguments give the same rows.

    Raises:
        KeyError: `mix` names a writer that does not exist.
    """
    rng = random.Random(seed)
    writers = [WRITERS[name] for name in mix]
    weights = list(mix.values())
    for _ in range(count):
        writer = rng.choices(writers, weights)[0]
        yield writer(rng)
