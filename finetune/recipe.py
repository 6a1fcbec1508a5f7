"""The training recipe: defaults chosen from the data and the base, each with its reason and source.

Leaves safe bounds to `finetune.recipe_bounds`, what has no setting to `finetune.recipe_fixed`, and applying the values
to plan and train.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from finetune.codec import SpecError
from finetune.errors import DataError
from finetune.recipe_bounds import BOUNDS, check_recipe_value, out_of_range
from finetune.spec import Source, Value

_CALIBRATED_WIDTH = 1024
_REFERENCE_WIDTH = 2000


@dataclass(frozen=True)
class Facts:
    """What the defaults depend on; token counts are per row, `model_limit` is the base's context length."""

    rows: int
    width: int
    family: str
    mean_tokens: float
    longest_tokens: int
    longest_answer: int
    model_limit: int
    device: str = "cpu"


def resolve_recipe(asked: Mapping[str, Value], facts: Facts) -> dict[str, Value]:
    """All values of the recipe: the caller's where given, else the defaults.

    Raises:
        DataError: `hyperparameter_unknown`, `hyperparameter_out_of_range`, `qlora_needs_gpu`, `qlora_not_trained`,
            `rslora_sets_alpha`.
    """
    try:
        for name, value in asked.items():
            check_recipe_value(name, value.value)
    except SpecError as error:
        raise _refuse(error) from error
    _refuse_variants(asked, facts)
    recipe = {name: asked.get(name, value) for name, value in _choose_shape(facts, asked).items()}
    recipe |= {name: asked.get(name, value) for name, value in _CONSTANTS.items()}
    if _is_wished(asked, "use_rslora"):
        recipe["alpha"] = _scale_by_root(read_count(recipe, "rank"))
    if _is_wished(asked, "use_dora"):
        recipe["use_dora"] = Value(1, *_DORA_COSTS)
    recipe["learning_rate"] = asked.get("learning_rate") or _choose_learning_rate(facts, recipe, asked)
    limit = min(facts.model_limit, BOUNDS["max_length"].high)
    if recipe["max_length"].value > limit:  # type: ignore[operator]
        raise _refuse(out_of_range("max_length", recipe["max_length"].value, low=16, high=limit))
    return dict(sorted(recipe.items()))


def read_number(recipe: Mapping[str, Value], name: str) -> float:
    """A resolved value as a float."""
    return float(recipe[name].value)


def read_count(recipe: Mapping[str, Value], name: str) -> int:
    """A resolved value as an int."""
    return int(recipe[name].value)


_LORA = "LoRA Without Regret (Thinking Machines, 2025)"
_TINKER = "tinker-cookbook, hyperparam_utils.py"
_DORA_COSTS = (
    "DoRA: shared engines have no slots for it, so an engine of its own serves it with merged weights",
    f"{Source.OWNER}; DoRA (arXiv 2402.09353)",
    "DoRA：共享引擎的槽位装不下它，评测和服务时并入基座权重，单独占一台引擎",
)

_CONSTANTS: Mapping[str, Value] = {
    "rank": Value(
        16,
        "rank 16 holds what some thousand rows teach and loads into every pool",
        "vLLM, default of max_lora_rank",
        "秩 16 足以记住几千行数据的规律，且能装入每个推理池",
    ),
    "alpha": Value(
        32,
        "fixed for every rank, so the learning rate does not depend on the rank",
        _LORA,
        "各种秩都固定，学习率不随秩变化",
    ),
    "dropout": Value(
        0.0,
        "early stopping guards instead; resuming stays exact",
        Source.MEASURED.value,
        "由早停防止过拟合，断点续训结果一致",
    ),
    "warmup_ratio": Value(0.03, "3 % of the steps, at least 5", Source.DEFAULT.value, "步数的 3 %，至少 5 步"),
    "final_lr_ratio": Value(0.1, "cosine down to a tenth", Source.DEFAULT.value, "余弦下降到十分之一"),
    "weight_decay": Value(
        0.0, "LoRA is already low-rank", "Transformers, default of TrainingArguments", "LoRA 本身已是低秩，无需衰减"
    ),
    "clip_norm": Value(1.0, "common practice", "Transformers, default of TrainingArguments", "通行做法"),
    "validations": Value(
        10, "ten looks at the held-out rows over the run", Source.DEFAULT.value, "全程在留出数据上看十次"
    ),
    "patience": Value(
        2,
        "stop after two looks without gain",
        "Together AI, default of early_stopping_patience",
        "连续两次没有改善就停止",
    ),
    "min_delta": Value(
        0.002, "a gain counts from 0.2 % of the loss", Source.DEFAULT.value, "损失改善达到 0.2 % 才算改善"
    ),
    "evaluate_rows": Value(
        500, "enough for an interval of about ±4 points", "Wilson 1927, JASA 22(158)", "使评测区间约为 ±4 个百分点"
    ),
}


def _choose_shape(facts: Facts, asked: Mapping[str, Value]) -> dict[str, Value]:
    epochs, *why = _choose_epochs(facts)
    # measured 2026-11 at width 256 on equal tokens: 8 rows a step end at a held-out loss of 1.10, 16 rows at 1.23
    rows = 8 if facts.rows < 500 or facts.width < _CALIBRATED_WIDTH else 16
    rows = int(asked["batch_rows"].value) if "batch_rows" in asked else rows
    length = min(facts.model_limit, _round_up(facts.longest_tokens, 128))
    budget = max(64, _round_up(int(rows * facts.mean_tokens), 64), min(length, facts.longest_tokens))
    answer = min(4096, facts.longest_answer + 8)
    return {
        "epochs": Value(epochs, why[0], _join(Source.DATA, Source.DEFAULT), why[1]),
        "batch_tokens": Value(
            budget,
            f"about {rows} rows of {facts.mean_tokens:.0f} tokens a step",
            _join(Source.DATA, Source.OWNER if "batch_rows" in asked else Source.MEASURED),
            f"每步约 {rows} 行，每行平均 {facts.mean_tokens:.0f} 个词元",
        ),
        "max_length": Value(
            length,
            f"longest row has {facts.longest_tokens} tokens; the base reads {facts.model_limit}",
            Source.DATA.value,
            f"最长的行有 {facts.longest_tokens} 个词元；基座最多读 {facts.model_limit} 个",
        ),
        "max_new_tokens": Value(
            answer,
            f"longest held-out or trained answer has {facts.longest_answer} tokens",
            Source.DATA.value,
            f"训练与留出数据中最长的答案有 {facts.longest_answer} 个词元",
        ),
    }


def _choose_epochs(facts: Facts) -> tuple[int, str, str]:
    """Passes over the rows, and why in both languages."""
    rows = facts.rows
    if facts.width < _CALIBRATED_WIDTH:
        epochs = max(3, min(10, 20_000 // max(1, rows)))
        why = f"small base (width {facts.width}) learns slowly: {epochs} passes over {rows} rows"
        return epochs, why, f"小基座（宽度 {facts.width}）学得慢：{epochs} 轮，每轮 {rows} 行"
    for limit, epochs in ((500, 5), (10_000, 3)):
        if rows < limit:
            why = f"{epochs} passes for {rows} rows (fewer than {limit})"
            return epochs, why, f"{epochs} 轮，每轮 {rows} 行（少于 {limit} 行）"
    return 2, f"2 passes for {rows} rows", f"2 轮，每轮 {rows} 行"


def _choose_learning_rate(facts: Facts, recipe: Mapping[str, Value], asked: Mapping[str, Value]) -> Value:
    if facts.width < _CALIBRATED_WIDTH:
        rate = min(5e-3, max(1e-3, 4e-3 * (256 / facts.width) ** 0.5))
        why = f"width {facts.width} is below {_CALIBRATED_WIDTH}: 4e-3·sqrt(256/width), within 1e-3..5e-3"
        why_zh = f"宽度 {facts.width} 小于 {_CALIBRATED_WIDTH}：4e-3·sqrt(256/宽度)，限于 1e-3..5e-3"
        chosen = Value(rate, why, Source.DEFAULT.value, why_zh)
    else:
        power = {"qwen": 0.0775, "llama": 0.781}.get(facts.family.rstrip("0123456789_moe"), 0.4)
        rate = min(5e-4, max(1e-4, 5e-4 * (_REFERENCE_WIDTH / facts.width) ** power))
        formula = f"5e-4·(2000/{facts.width})^{power}"
        chosen = Value(rate, f"{formula}, within 1e-4..5e-4", _TINKER, f"{formula}，限于 1e-4..5e-4")
        if facts.rows < 300 or read_count(recipe, "epochs") >= 5:
            chosen = _scale(chosen, 0.5, "halved for few rows or many passes", "行少或轮多，减半", Source.DATA)
    alpha = read_count(recipe, "alpha")
    if alpha != 32 and not _is_wished(asked, "use_rslora"):
        chosen = _scale(chosen, 32.0 / alpha, f"times 32/alpha for alpha {alpha}", f"乘以 32/alpha，alpha 为 {alpha}")
    if "learning_rate_multiplier" in asked:
        factor = float(asked["learning_rate_multiplier"].value)
        chosen = _scale(chosen, factor, f"times the caller's {factor:g}", f"乘以调用方指定的 {factor:g}", Source.OWNER)
    return replace(chosen, value=float(f"{min(max(float(chosen.value), 1e-6), 2e-2):.3g}"))


def _scale(chosen: Value, factor: float, why: str, why_zh: str, source: str | None = None) -> Value:
    """A value times a factor, with one more reason and source."""
    return Value(
        float(chosen.value) * factor,
        f"{chosen.reason}; {why}",
        chosen.source if source is None else _join(chosen.source, source),
        f"{chosen.reason_zh}；{why_zh}",
    )


def _refuse_variants(asked: Mapping[str, Value], facts: Facts) -> None:
    """What the pool cannot serve or this device cannot train is refused before anything is paid."""
    if _is_wished(asked, "use_rslora") and "alpha" in asked:
        raise DataError("rslora_sets_alpha", "recipe.use_rslora is 1 and recipe.alpha is given; leave one of them out.")
    if _is_wished(asked, "load_in_4bit"):
        if facts.device == "cpu":
            raise DataError("qlora_needs_gpu", "recipe.load_in_4bit is 1 on a CPU; choose a GPU offer or use 0.")
        raise DataError(
            "qlora_not_trained", "recipe.load_in_4bit is 1, but bases are trained in bf16 as they are served; use 0."
        )


def _is_wished(asked: Mapping[str, Value], name: str) -> bool:
    return name in asked and asked[name].value == 1


def _scale_by_root(rank: int) -> Value:
    """rsLoRA's scale a/√r written as alpha/r, so that every pool loads it."""
    source = _join(Source.OWNER, "rsLoRA (arXiv 2312.03732)")
    why, why_zh = (
        f"rsLoRA: scale 8/√{rank}, equal to alpha 32 at rank 16",
        f"rsLoRA：缩放为 8/√{rank}，秩 16 时等于 alpha 32",
    )
    return Value(round(8 * math.sqrt(rank)), why, source, why_zh)


def _join(*sources: str) -> str:
    return "; ".join(sources)


def _refuse(error: SpecError) -> DataError:
    return DataError(error.code, str(error))


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step
