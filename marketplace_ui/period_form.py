"""Reads a period that was typed: a month, quarter or year in one field, or the two days of a range in two others.

It leaves what a period is to `hub.claims`, which reads the text.
"""

from collections.abc import Callable

from marketplace_ui.forms import Form


def read_range(typed: Callable[[str], str]) -> str:
    """Return the range between the two days that were typed, empty where neither was."""
    first, last = typed("from_day").strip(), typed("to_day").strip()
    return f"{first}--{last}" if first or last else ""


def read_period(form: Form) -> str:
    """Return the one period that a form asks for; two at once, and none, are refused at its field."""
    days = read_range(form.value)
    if days and form.value("period").strip():
        form.refuse("period", "期间与起止日期只填一种。", "Give a period or two days, not both.")
    return days or form.text("period", required=True)
