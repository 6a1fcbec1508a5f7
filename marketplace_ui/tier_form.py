"""The tiers of a voucher rule as rows of its form: names in both languages and a cap each, refused field by field.

A row that is left empty is no tier. It leaves the rule's other fields to `rule_form`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hub.vouchers.rules import Tier
from marketplace_ui.format import show_fen
from marketplace_ui.forms import Form

PARTS = ("tier_zh", "tier_en", "tier_cap")
LEAST_ROWS, SPARE_ROWS, MOST_ROWS = 3, 2, 50
MOST_LETTERS = 40


def fill_tiers(tiers: Sequence[Tier]) -> dict[str, str]:
    """Return the form's values of a rule's tiers."""
    values = {}
    for row, tier in enumerate(tiers):
        values[f"tier_zh-{row}"], values[f"tier_en-{row}"] = tier.label_zh, tier.label_en
        values[f"tier_cap-{row}"] = f"{tier.cap_fen // 100}.{tier.cap_fen % 100:02d}"
    return values


def list_rows(form: Form) -> range:
    """Return the rows to show: those in use and a few to add more; a preview gives new ones again."""
    used = _list_used(form)
    return range(min(MOST_ROWS, max(LEAST_ROWS, (max(used) + 1 if used else 0) + SPARE_ROWS)))


def read_tiers(form: Form, firm_cap_fen: int | None) -> list[dict[str, Any]]:
    """Return the tiers that the rows say, in their order; what is wrong is refused beside its input."""
    found: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    for row in _list_used(form):
        names = {part: form.text(f"{part}-{row}", required=True, most=MOST_LETTERS) for part in PARTS[:2]}
        for part, name in names.items():
            _refuse_second(form, f"{part}-{row}", name, owners)
        cap = _read_cap(form, f"tier_cap-{row}", firm_cap_fen)
        if cap is not None and not any(form.error(f"{part}-{row}") for part in PARTS):
            found.append({"label_zh": names["tier_zh"], "label_en": names["tier_en"], "cap_fen": cap})
    return found


def show_tiers(tiers: Sequence[Mapping[str, Any]], language: str) -> str:
    """Return tiers with their caps in one line."""
    return ", ".join(f"{tier[f'label_{language}']} {show_fen(tier['cap_fen'])}" for tier in tiers)


def _list_used(form: Form) -> list[int]:
    return [row for row in range(MOST_ROWS) if any(form.value(f"{part}-{row}").strip() for part in PARTS)]


def _read_cap(form: Form, name: str, firm_cap_fen: int | None) -> int | None:
    cap = form.yuan(name)
    if not cap:
        form.refuse(name, "请填写大于 0 的上限。", "Give a cap above 0.")
    elif firm_cap_fen is not None and cap > firm_cap_fen:
        form.refuse(
            name,
            f"{show_fen(cap)} 高于企业上限 {show_fen(firm_cap_fen)}，请调低。",
            f"{show_fen(cap)} is above the firm's cap of {show_fen(firm_cap_fen)}. Lower it.",
        )
    return cap


def _refuse_second(form: Form, field: str, name: str, owners: dict[str, str]) -> None:
    """Refuse a name that stands already; the same row may be called alike in neither language."""
    if name and owners.setdefault(name, field) != field:
        form.refuse(
            field,
            f"“{name}”重复，每档名称须不同，中英文也须不同。",
            f"'{name}' stands twice; each tier has its own name, in each language another.",
        )
