"""Recipe, batch order and intervals: the arithmetic of a run."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.batches import count_tokens, digest_order, order_batches
from finetune.errors import DataError
from finetune.recipe import Facts, resolve_recipe
from finetune.recipe_bounds import BOUNDS
from finetune.recipe_fixed import list_fixed
from finetune.spec import Source, Value

FACTS = Facts(
    rows=1000, width=256, family="qwen2", mean_tokens=60, longest_tokens=200, longest_answer=30, model_limit=512
)


def test_every_value_has_a_reason_and_is_within_its_bounds() -> None:
    recipe = resolve_recipe({}, FACTS)
    assert set(recipe) == set(BOUNDS)
    assert all(value.reason for value in recipe.values())
    assert all(BOUNDS[name].low <= float(value.value) <= BOUNDS[name].high for name, value in recipe.items())
    assert recipe["max_length"].value == 256


def test_every_value_names_its_source() -> None:
    recipe = resolve_recipe({"epochs": Value(4), "batch_rows": Value(2), "learning_rate_multiplier": Value(2)}, FACTS)
    assert all(value.source for value in recipe.values())
    assert recipe["epochs"].source == Source.OWNER
    assert recipe["max_length"].source == Source.DATA
    assert recipe["batch_tokens"].source == "data; owner's setting"
    assert recipe["learning_rate"].source == "our default; owner's setting"
    wide = resolve_recipe({"use_rslora": Value(1), "use_dora": Value(1)}, replace(FACTS, width=4096, rows=200))
    assert "tinker-cookbook" in wide["learning_rate"].source
    assert "arXiv 2312.03732" in wide["alpha"].source
    assert wide["use_dora"].source.startswith("owner's setting; DoRA")


def test_choices_without_a_setting_are_told_with_reason_and_source() -> None:
    plain, gpu = list_fixed("cpu", has_fast_bf16=False), list_fixed("cuda:0", has_fast_bf16=True)
    assert [found[name].value for found in (plain, gpu) for name in ("base_dtype", "step_dtype")] == [
        "fp32",
        "fp32",
        "bf16",
        "bf16",
    ]
    assert plain["loss"].value == "answers only"
    assert not set(plain) & set(BOUNDS)
    assert all(value.reason and value.source for value in plain.values())


@pytest.mark.parametrize("rows", [60, 400, 2_000, 50_000])
@pytest.mark.parametrize("width", [256, 4096])
@pytest.mark.parametrize("wishes", [{}, {"use_rslora": 1, "use_dora": 1}, {"alpha": 64, "learning_rate_multiplier": 3}])
def test_every_reason_stands_in_both_languages_with_the_same_figures(
    rows: int, width: int, wishes: dict[str, int]
) -> None:
    asked = {name: Value(value) for name, value in wishes.items()}
    recipe = resolve_recipe(asked, replace(FACTS, rows=rows, width=width))
    values = {**recipe, **list_fixed("cpu", has_fast_bf16=True)}
    assert len(values) > 20
    for name, value in values.items():
        assert re.search("[\u4e00-\u9fff]", value.reason_zh), name
        assert not re.search("[\u4e00-\u9fff]", value.reason), name
        figures = [sorted(re.findall(r"\d+(?:\.\d+)?(?:e-\d)?", text)) for text in (value.reason, value.reason_zh)]
        assert figures[0] == figures[1], name


def test_learning_rate_follows_width_and_alpha() -> None:
    tiny = float(resolve_recipe({}, FACTS)["learning_rate"].value)
    large = float(resolve_recipe({}, replace(FACTS, width=4096))["learning_rate"].value)
    halved = float(resolve_recipe({"alpha": Value(64)}, FACTS)["learning_rate"].value)
    assert 1e-3 <= tiny <= 5e-3
    assert 1e-4 <= large <= 5e-4
    assert halved == pytest.approx(tiny / 2)


def test_wishes_shape_the_values_and_are_none_themselves() -> None:
    plain = resolve_recipe({}, FACTS)
    wished = resolve_recipe({"batch_rows": Value(2), "learning_rate_multiplier": Value(0.5)}, FACTS)
    assert set(wished) == set(BOUNDS)
    assert wished["batch_tokens"].value < plain["batch_tokens"].value  # type: ignore[operator]
    assert float(wished["learning_rate"].value) == pytest.approx(float(plain["learning_rate"].value) / 2, rel=0.01)
    with pytest.raises(DataError, match=r"recipe\.batch_rows: 0 is out of range"):
        resolve_recipe({"batch_rows": Value(0)}, FACTS)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("epochs", 51, "hyperparameter_out_of_range"),
        ("epochs", 1.5, "hyperparameter_out_of_range"),
        ("learning_rate", "fast", "hyperparameter_out_of_range"),
        ("learning_rate", float("nan"), "hyperparameter_out_of_range"),
        ("rank", 12, "hyperparameter_out_of_range"),
        ("max_length", 1024, "hyperparameter_out_of_range"),
        ("colour", 1, "hyperparameter_unknown"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float | str, code: str) -> None:
    with pytest.raises(DataError, match=f"recipe.{name}") as caught:
        resolve_recipe({name: Value(value)}, FACTS)
    assert caught.value.code == code


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 3), st.integers(0, 9))
def test_batches_hold_every_row_once_an_epoch_within_the_budget(lengths: list[int], epochs: int, seed: int) -> None:
    batches = order_batches(lengths, epochs=epochs, batch_tokens=300, seed=seed)
    rows = sorted(row for batch in batches for row in batch)
    assert rows == sorted(list(range(len(lengths))) * epochs)
    assert all(len(batch) * max(lengths[row] for row in batch) <= 300 for batch in batches)
    assert count_tokens(batches, lengths) == epochs * sum(lengths)
    assert digest_order(batches) == digest_order(order_batches(lengths, epochs=epochs, batch_tokens=300, seed=seed))


@pytest.mark.parametrize(
    ("wishes", "device", "code"),
    [
        ({"load_in_4bit": Value(1)}, "cpu", "qlora_needs_gpu"),
        ({"load_in_4bit": Value(1)}, "cuda", "qlora_not_trained"),
        ({"use_rslora": Value(1), "alpha": Value(16)}, "cpu", "rslora_sets_alpha"),
    ],
)
def test_variants_that_cannot_be_served_or_trained_are_refused(
    wishes: dict[str, Value], device: str, code: str
) -> None:
    with pytest.raises(DataError) as caught:
        resolve_recipe(wishes, replace(FACTS, device=device))
    assert caught.value.code == code


def test_dora_stands_in_the_recipe_with_what_it_costs_to_serve() -> None:
    assert "use_dora" not in resolve_recipe({"use_dora": Value(0)}, FACTS)
    assert "merged weights" in resolve_recipe({"use_dora": Value(1)}, FACTS)["use_dora"].reason


def test_rslora_scales_by_the_root_of_the_rank_and_leaves_the_learning_rate() -> None:
    plain = resolve_recipe({}, FACTS)
    for rank, alpha in ((16, 32), (64, 64)):
        wished = resolve_recipe({"use_rslora": Value(1), "rank": Value(rank)}, FACTS)
        assert wished["alpha"].value == alpha
        assert wished["learning_rate"].value == plain["learning_rate"].value
    assert "rsLoRA" in wished["alpha"].reason
