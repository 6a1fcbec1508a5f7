"""Variants of training sentences: positions stay, nothing new is asked for, and seeds repeat."""

import random

from examples.tasks.maintnorm import Sentence, build_upload
from examples.tasks.variants import VariantMaker

_PAIRS = [
    [("RPLC", "replace"), ("XY12", "<id>"), ("pump", "pump")],
    [("RPLC", "replace"), ("PLC", "PLC"), ("dog", "dogbone"), ("bone", "")],
    [("hose", "hose"), ("no", "number"), ("4", "<num>")],
    [("no", "no"), ("power", "power"), ("excessive", "excessive")],
]


def _make(seed: int, count: int = 400) -> list[list[tuple[str, str]]]:
    maker = VariantMaker(_PAIRS, random.Random(seed))
    return [maker.make_variant(_PAIRS[turn % len(_PAIRS)]) for turn in range(count)]


def test_variants_keep_positions_and_repeat_with_their_seed() -> None:
    made = _make(1)
    assert made == _make(1) != _make(2)
    assert [len(variant) for variant in made[:4]] == [len(pairs) for pairs in _PAIRS]
    assert sum(variant != _PAIRS[turn % 4] for turn, variant in enumerate(made)) > 200


def test_every_right_word_is_one_that_the_sentences_ask_for() -> None:
    known = {right for pairs in _PAIRS for _, right in pairs}
    words = {raw.lower(): set() for pairs in _PAIRS for raw, _ in pairs}  # type: ignore[var-annotated]
    for pairs in _PAIRS:
        for raw, right in pairs:
            words[raw.lower()].add(right)
    pairs_made = [pair for variant in _make(3) for pair in variant]
    assert {right for _, right in pairs_made} <= known
    assert all(right in words[raw.lower()] for raw, right in pairs_made if raw.lower() in words)


def test_ambiguous_and_lost_words_are_not_traded_and_codes_get_other_digits() -> None:
    made = _make(4)
    firsts = {variant[0] for variant in made[0::4]}
    assert not {raw for raw, _ in firsts} & {"no", "No", "NO", "bone"}
    assert all(variant[2:] == [("dog", "dogbone"), ("bone", "")] or _styled(variant[2:]) for variant in made[1::4])
    codes = {variant[1][0].upper() for variant in made[0::4] if variant[1][1] == "<id>"}
    assert len(codes) > 10
    assert all(code[:2] == "XY" for code in codes)
    assert any(raw == "PLC" for variant in made for raw, _ in variant)
    assert not any(raw == "plc" for variant in made for raw, _ in variant), "its capitals are what is asked for"


def test_an_upload_with_variants_keeps_the_held_out_rows_and_never_repeats_a_question() -> None:
    sentences = [Sentence((f"w{number}", "leak"), ("<id>", "leak")) for number in range(40)]
    plain = build_upload(sentences, valid_rows=10, variants=0)
    more = build_upload(sentences, valid_rows=10, variants=3)
    assert [row for row in plain if row.split == "valid"] == [row for row in more if row.split == "valid"]
    assert len({row.question for row in more}) == len(more) > len(plain) + 20


def _styled(pairs: list[tuple[str, str]]) -> bool:
    return [(raw.lower(), right) for raw, right in pairs] == [("dog", "dogbone"), ("bone", "")]
