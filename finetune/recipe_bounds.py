"""The values of a recipe that may be asked for, each with its safe range: one list for trainer, hub and pages.

Leaves choosing defaults to `finetune.recipe`. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from finetune.codec import SpecError

Number: TypeAlias = int | float
RANKS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Bound:
    """Allowed kind and inclusive range of one value."""

    kind: type[int] | type[float]
    low: Number
    high: Number

    @property
    def whole(self) -> bool:
        """Whether it takes no fraction."""
        return self.kind is int

    @property
    def text(self) -> str:
        """The range as a person reads it."""
        return f"{self.low:g} – {self.high:g}" if self.high < 10_000 else f"{self.low:,} – {self.high:,}"


BOUNDS: Mapping[str, Bound] = {
    "epochs": Bound(int, 1, 50),
    "learning_rate": Bound(float, 1e-6, 2e-2),
    "rank": Bound(int, 8, 64),
    "alpha": Bound(int, 1, 256),
    "dropout": Bound(float, 0, 0.3),
    "batch_tokens": Bound(int, 64, 1_048_576),
    "max_length": Bound(int, 16, 131_072),
    "max_new_tokens": Bound(int, 1, 4096),
    "validations": Bound(int, 1, 50),
    "patience": Bound(int, 0, 20),
    "min_delta": Bound(float, 0, 0.1),
    "evaluate_rows": Bound(int, 20, 5000),
    "warmup_ratio": Bound(float, 0, 0.3),
    "final_lr_ratio": Bound(float, 0, 1),
    "weight_decay": Bound(float, 0, 0.3),
    "clip_norm": Bound(float, 0.1, 10),
}

WISHES: Mapping[str, Bound] = {
    "batch_rows": Bound(int, 1, 256),
    "learning_rate_multiplier": Bound(float, 0.01, 100),
    "use_rslora": Bound(int, 0, 1),
    "use_dora": Bound(int, 0, 1),
    "load_in_4bit": Bound(int, 0, 1),
    "probe_learning_rate": Bound(int, 0, 1),
}
"""What may be asked for besides: each shapes a value of the recipe and is none itself."""


def check_recipe_value(name: str, number: object) -> None:
    """Raises SpecError `hyperparameter_unknown` or `hyperparameter_out_of_range`; NaN lies in no range."""
    bound = BOUNDS.get(name) or WISHES.get(name)
    if bound is None:
        known = ", ".join(sorted([*BOUNDS, *WISHES]))
        raise SpecError("hyperparameter_unknown", f"recipe.{name[:60]}", f"not known; known are: {known}.")
    fits = type(number) is int or (bound.kind is float and type(number) is float)
    if not fits or isinstance(number, str) or not bound.low <= number <= bound.high:  # type: ignore[operator]
        raise out_of_range(name, number, low=bound.low, high=bound.high)
    if name == "rank" and number not in RANKS:
        raise SpecError("hyperparameter_out_of_range", "recipe.rank", f"{number} is not offered; use one of {RANKS}.")


def out_of_range(name: str, number: object, *, low: Number, high: Number) -> SpecError:
    """Return the refusal of a value outside its range."""
    kind = "a whole number" if (BOUNDS.get(name) or WISHES[name]).whole else "a number"
    shown = f"{number!r}"[:60]
    text = f"{shown} is out of range; use {kind} between {low:g} and {high:g}."
    return SpecError("hyperparameter_out_of_range", f"recipe.{name}", text)
