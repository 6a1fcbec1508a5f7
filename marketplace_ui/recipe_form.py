"""The recipe's values as a form: which may be overridden within which bounds, and what was typed.

It leaves choosing defaults with their reasons to the trainer's plan, whose bounds these are.
"""

from collections.abc import Mapping
from typing import Any

from finetune.spec import BOUNDS, RANKS, Bound
from marketplace_ui.forms import Form

SWITCHES = ("probe_learning_rate", "use_rslora", "use_dora")
"""Wishes that are on or off."""


def fill_recipe(wishes: Mapping[str, Any]) -> dict[str, str]:
    """Return the form's fields for wishes of an earlier run."""
    typed = {f"recipe-{name}": f"{wishes[name]}" for name in BOUNDS if name in wishes}
    return typed | {f"recipe-{name}": "yes" for name in SWITCHES if wishes.get(name) == 1}


def read_recipe(form: Form) -> dict[str, int | float | str]:
    """Return the values that were typed; what is empty is left to the plan. Refusals stand at their fields."""
    found: dict[str, int | float | str] = {name: 1 for name in SWITCHES if form.value(f"recipe-{name}")}
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


def _read_number(typed: str, *, whole: bool) -> int | float | None:
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
