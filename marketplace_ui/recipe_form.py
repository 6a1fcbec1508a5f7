"""The recipe's values as a form: which may be overridden within which bounds, and what was typed.

It leaves choosing defaults with their reasons to the trainer's plan; a test holds these bounds to the trainer's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketplace_ui.forms import Form

Number = int | float
RANKS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Bound:
    """Inclusive range of one value; `whole` values take no fraction."""

    whole: bool
    low: Number
    high: Number

    @property
    def text(self) -> str:
        """The range as a person reads it."""
        return f"{self.low:g} – {self.high:g}" if self.high < 10_000 else f"{self.low:,} – {self.high:,}"


BOUNDS: Mapping[str, Bound] = {
    "epochs": Bound(True, 1, 50),
    "learning_rate": Bound(False, 1e-6, 2e-2),
    "rank": Bound(True, 8, 64),
    "alpha": Bound(True, 1, 256),
    "dropout": Bound(False, 0, 0.3),
    "batch_tokens": Bound(True, 64, 1_048_576),
    "max_length": Bound(True, 16, 131_072),
    "max_new_tokens": Bound(True, 1, 4096),
    "validations": Bound(True, 1, 50),
    "patience": Bound(True, 0, 20),
    "min_delta": Bound(False, 0, 0.1),
    "evaluate_rows": Bound(True, 20, 5000),
    "warmup_ratio": Bound(False, 0, 0.3),
    "final_lr_ratio": Bound(False, 0, 1),
    "weight_decay": Bound(False, 0, 0.3),
    "clip_norm": Bound(False, 0.1, 10),
}


def fill_recipe(wishes: Mapping[str, Any]) -> dict[str, str]:
    """Return the form's fields for wishes of an earlier run."""
    return {f"recipe-{name}": f"{wishes[name]}" for name in BOUNDS if name in wishes}


def read_recipe(form: Form) -> dict[str, int | float | str]:
    """Return the values that were typed; what is empty is left to the plan. Refusals stand at their fields."""
    found: dict[str, int | float | str] = {}
    for name, bound in BOUNDS.items():
        typed = form.value(f"recipe-{name}").strip()
        if not typed:
            continue
        number = _read_number(typed, whole=bound.whole)
        fits = number is not None and bound.low <= number <= bound.high and (name != "rank" or number in RANKS)
        if number is None or not fits:
            _refuse(form, name, typed[:30], bound)
        else:
            found[name] = number
    return found


def _read_number(typed: str, *, whole: bool) -> Number | None:
    try:
        return int(typed) if whole else float(typed)
    except ValueError:
        return None


def _refuse(form: Form, name: str, shown: str, bound: Bound) -> None:
    kind_zh, kind_en = ("整数", "a whole number") if bound.whole else ("数", "a number")
    form.refuse(
        f"recipe-{name}",
        f"“{shown}”不可用，请填 {bound.text} 之间的{kind_zh}，或留空自动选择。",
        f"'{shown}' cannot be used; give {kind_en} from {bound.text}, or leave it empty for the default.",
    )
