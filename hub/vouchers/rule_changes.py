"""What a drafted rule changes against the one in force, field by field; pure, no session.

It leaves drafting to `hub.vouchers.programmes` and words for people to the pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hub.vouchers.rules import RuleBody, read_body


@dataclass(frozen=True)
class RuleChange:
    """One field with its value before and after; `our_default` says that no paper fixes the new value."""

    field: str
    before: Any
    after: Any
    our_default: bool


def list_changes(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[RuleChange]:
    """Return the fields whose values differ, defaults filled in, in the rule's order; all of them without a before.

    Raises:
        RuleRefusedError: a body is out of shape.
    """
    new = read_body(after)
    old = read_body(before) if before is not None else None
    shown = new.model_dump(mode="json")
    had = old.model_dump(mode="json") if old else {}
    return [
        RuleChange(name, had.get(name), shown[name], name in new.our_defaults)
        for name in RuleBody.model_fields
        if old is None or had[name] != shown[name]
    ]
