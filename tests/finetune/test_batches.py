"""Packed batches are in the order, and have the digest, that plain lists gave every plan that was ever quoted."""

import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.batches import BatchOrder, count_tokens, count_within, cut_parts, digest_order, order_batches

BATCH_TOKENS = 300


def order_plainly(lengths: list[int], *, epochs: int, seed: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for epoch in range(epochs):
        rng = random.Random(f"{seed}:{epoch}")
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        window = max(1, int(32 * BATCH_TOKENS / max(1.0, sum(lengths) / len(lengths))))
        batches: list[tuple[int, ...]] = []
        for start in range(0, len(rows), window):
            batches += cut_parts(tuple(rows[start : start + window]), lengths, BATCH_TOKENS)
        rng.shuffle(batches)
        found += batches
    return found


def digest_plainly(batches: list[tuple[int, ...]]) -> str:
    return hashlib.sha256(json.dumps(batches, separators=(",", ":")).encode()).hexdigest()


@given(st.lists(st.integers(1, 300), min_size=1, max_size=400), st.integers(1, 3), st.integers(0, 9))
def test_packed_batches_are_those_of_plain_lists(lengths: list[int], epochs: int, seed: int) -> None:
    batches = order_batches(lengths, epochs=epochs, batch_tokens=BATCH_TOKENS, seed=seed)
    plain = order_plainly(lengths, epochs=epochs, seed=seed)
    assert list(batches) == plain
    assert (batches[0], batches[-1], batches[::3]) == (plain[0], plain[-1], plain[::3])
    assert digest_order(batches) == digest_plainly(plain)
    with pytest.raises(IndexError):
        batches[len(plain)]


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), max_size=9),
    st.integers(0, 60),
)
def test_a_plan_is_cut_where_its_tokens_end(plain: list[tuple[int, ...]], most_tokens: int) -> None:
    lengths = [1, 2, 3, 5, 8, 13]
    batches = BatchOrder(plain)
    batches.cut(count_within(batches, lengths, most_tokens))
    while plain and count_tokens(plain, lengths) > most_tokens:
        plain = plain[:-1]
    assert list(batches) == plain
    assert digest_order(batches) == digest_plainly(plain)
    batches.cut(len(plain) + 1)
    batches.extend([(2,)])
    assert list(batches) == [*plain, (2,)], "what comes after stands behind what was kept"
