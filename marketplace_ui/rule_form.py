"""A voucher rule as a form: what each field is called and means, the form of a version, the shape that a form says.

It leaves which values are allowed to `hub.vouchers.rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hub.prices.tables import Meter
from hub.vouchers.rule_changes import RuleChange
from hub.vouchers.rules import read_body
from hub.vouchers.tables import PaperKind, RuleVersion
from marketplace_ui.format import show_fen
from marketplace_ui.forms import Form
from marketplace_ui.journey_words import word_of
from marketplace_ui.layout import translate
from marketplace_ui.tier_form import fill_tiers, read_tiers, show_tiers
from marketplace_ui.words import say

FIELDS: Mapping[str, tuple[str, str, str, str]] = {
    "share": (
        "承担比例",
        "Share",
        "分子/分母；按合格费用合计向下取整到分。",
        "Part of the eligible fee, rounded down to a fen.",
    ),
    "per_firm_cap_fen": ("企业上限", "Cap for a firm", "留空为不设上限。", "Left empty: no cap."),
    "cap_period": (
        "上限期间",
        "Cap counts",
        "年度按规则时区的自然年。",
        "A year is the calendar year in the rule's zone.",
    ),
    "cap_counts": ("计入上限", "Counted in the cap", "", ""),
    "share_base": (
        "计算基数",
        "Share of",
        "实际费用、实付金额或核定投资。",
        "Actual fee, fee paid, or verified investment.",
    ),
    "tax": ("税口径", "Tax base", "费用是否含增值税。", "Whether fees include VAT."),
    "vat_bp": (
        "税率（万分之一）",
        "Tax rate (hundredths of a percent)",
        "不含税时必填。",
        "Required where tax is excluded.",
    ),
    "rounding": ("取整", "Rounding", "", ""),
    "mode": ("支付方式", "Paid", "下单抵扣，或先付后补。", "Deducted at checkout, or paid back afterwards."),
    "eligible_meters": ("优先承担", "Pays for", "该券首先承担的计量。", "Meters that this voucher pays first."),
    "fallback_meters": (
        "补位承担",
        "Pays where no other does",
        "其他券不承担时才承担。",
        "Only where no other voucher pays.",
    ),
    "excluded_fees": ("不含费用", "Excluded fees", "以逗号分隔。", "Separated by commas."),
    "eligible_kinds": ("适用对象", "For", "登记类型。", "Kinds of organisations."),
    "needs_filed_base": ("基座须备案", "Base must be filed", "", ""),
    "needs_city_platform": ("须经市平台", "Through the city platform", "", ""),
    "non_affiliated": (
        "排除关联方",
        "Unrelated parties only",
        "疑似关联须由专员认定。",
        "An officer decides on signs of a relation.",
    ),
    "one_award_per_contract": ("一合同一次", "Once per contract", "", ""),
    "required_evidence": ("申请材料", "Papers to apply", "", ""),
    "claim_evidence": ("申报材料", "Papers to claim", "每月须备齐。", "Complete for each month."),
    "exclusive_with": ("互斥项目", "Excludes programmes", "项目代码，以逗号分隔。", "Codes of programmes, by commas."),
    "circular_window_days": ("循环资金窗口（天）", "Circular-flow window (days)", "0 为不检查。", "0 checks nothing."),
    "lapse_grace_days": (
        "到期宽限（天）",
        "Grace before lapse (days)",
        "到期后剩余额度回到资金池。",
        "Then the rest returns to the fund.",
    ),
    "tiers": (
        "分档上限",
        "Tiers",
        "每档各有上限，申请时选定一档；清空一行即删除该档。",
        "Each has a cap of its own and an application names one. Empty a row to take it away.",
    ),
    "our_defaults": (
        "平台默认字段",
        "Our defaults",
        "文件未规定、由平台选定的字段。",
        "Fields that no paper fixes and we chose.",
    ),
    "articles": ("条文要点", "Articles", "", ""),
}
SWITCHES = ("needs_filed_base", "needs_city_platform", "non_affiliated", "one_award_per_contract")
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "eligible_meters": tuple(Meter),
    "fallback_meters": tuple(Meter),
    "eligible_kinds": ("factory", "integrator", "developer"),
    "required_evidence": tuple(PaperKind),
    "claim_evidence": tuple(PaperKind),
    "our_defaults": tuple(name for name in FIELDS if name not in ("our_defaults", "articles")),
}
LISTS = ("excluded_fees", "exclusive_with")
VALUES: Mapping[str, tuple[str, str]] = {
    "lifetime": ("终身", "lifetime"),
    "calendar_year": ("自然年", "calendar year"),
    "deduct": ("下单抵扣", "deducted at checkout"),
    "reimburse": ("先付后补", "reimbursed afterwards"),
    "actual_fee": ("实际费用", "actual fee"),
    "actual_paid": ("实付金额", "fee paid"),
    "verified_investment": ("核定投资", "verified investment"),
    "incl": ("含税", "VAT included"),
    "excl": ("不含税", "VAT excluded"),
    "hold": ("冻结日", "day of the hold"),
    "charge": ("计费日", "day of the charge"),
    "redeem": ("申请兑付日", "day of the request"),
}
DAY = timedelta(days=1)


@dataclass(frozen=True)
class ShownChange:
    """One changed field in words."""

    label: str
    before: str
    after: str
    our_default: bool


def name_field(name: str) -> str:
    """Return a rule field's name in the request's language."""
    zh, en, _, _ = FIELDS[name]
    return translate(zh, en)


def help_field(name: str) -> str:
    """Return what a rule field means."""
    _, _, zh, en = FIELDS[name]
    return translate(zh, en)


def name_value(value: str) -> str:
    """Return a rule's word in the request's language."""
    return translate(*VALUES[value])


def name_member(field: str, member: str) -> str:
    """Return a member of one of the rule's lists in the request's language."""
    if field.endswith("_meters"):
        return say("meter", member)
    if field == "eligible_kinds":
        return say("role", member)
    return name_field(member) if field == "our_defaults" else word_of("paper", member)


def fill_form(version: RuleVersion | None) -> Form:
    """Return the form of a version, to be changed; of none, an empty one."""
    if version is None:
        return Form({"mode": "deduct", "cap_period": "lifetime", "tz": "Asia/Shanghai"})
    rule = read_body(version.body)
    values = {name: str(getattr(rule, name)) for name in ("cap_period", "mode", "share_base", "tax", "articles")}
    values |= {name: str(getattr(rule, name)) for name in ("circular_window_days", "lapse_grace_days")}
    values |= {name: "yes" for name in SWITCHES if getattr(rule, name)}
    values |= {f"{name}-{member}": "yes" for name in MEMBERS for member in getattr(rule, name)}
    values |= {name: ", ".join(getattr(rule, name)) for name in LISTS}
    if rule.vat_bp is not None:
        values["vat_bp"] = str(rule.vat_bp)
    if rule.share:
        values |= {"share_num": str(rule.share.num), "share_den": str(rule.share.den)}
    if rule.per_firm_cap_fen:
        values["per_firm_cap_fen"] = f"{rule.per_firm_cap_fen // 100}.{rule.per_firm_cap_fen % 100:02d}"
    values |= fill_tiers(rule.tiers)
    return Form({**values, "tz": version.tz, "basis_date": version.basis_date, "source": version.source})


def read_shape(form: Form, current: RuleVersion | None) -> dict[str, Any]:
    """Return the arguments of `draft_rule` that a form says; refusals stand in the form.

    Fields that the form does not show (cap_counts, rounding) stay as they are in force.
    """
    kept = dict(current.body) if current else {"cap_counts": ["held", "settled"], "rounding": "floor_line"}
    num, den = form.whole("share_num", least=0, most=10_000), form.whole("share_den", most=10_000)
    start, end = form.day("effective_from"), form.day("effective_to")
    if start is None:
        form.refuse("effective_from", "请填写生效日期。", "Give the first day.")
    cap = form.yuan("per_firm_cap_fen")
    body = {
        **kept,
        **{name: form.value(name) for name in ("cap_period", "mode", "share_base", "tax")},
        **{name: form.value(name) == "yes" for name in SWITCHES},
        **{
            name: [str(member) for member in members if form.value(f"{name}-{member}")]
            for name, members in MEMBERS.items()
        },
        **{name: [word.strip() for word in form.text(name).split(",") if word.strip()] for name in LISTS},
        "share": None if num is None or den is None else {"num": num, "den": den},
        "per_firm_cap_fen": cap,
        "tiers": read_tiers(form, cap),
        "vat_bp": form.whole("vat_bp", least=0, most=10_000),
        "circular_window_days": form.whole("circular_window_days", least=0, most=730) or 0,
        "lapse_grace_days": form.whole("lapse_grace_days", least=0, most=365) or 0,
        "articles": form.text("articles", most=2000),
    }
    return {
        "body": body,
        "source": form.text("source", required=True),
        "tz": form.value("tz"),
        "basis_date": form.value("basis_date"),
        "effective_from_at": start - DAY if start else None,
        "effective_to_at": end,
    }


def show_changes(changes: list[RuleChange]) -> list[ShownChange]:
    """Return changed fields in words of the request's language."""
    return [
        ShownChange(
            name_field(change.field),
            _show_value(change.field, change.before),
            _show_value(change.field, change.after),
            change.our_default,
        )
        for change in changes
    ]


def _show_value(name: str, value: Any) -> str:
    if value is None or value in ([], ""):
        return "-"
    if name == "share":
        return f"{value['num']}/{value['den']}"
    if name == "per_firm_cap_fen":
        return show_fen(value)
    if isinstance(value, bool):
        return translate("是", "yes") if value else translate("否", "no")
    if name == "tiers":
        return show_tiers(value, translate("zh", "en"))
    if name in MEMBERS:
        return translate("、", ", ").join(name_member(name, member) for member in value if _is_known(name, member))
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return name_value(value) if value in VALUES else str(value)


def _is_known(name: str, member: str) -> bool:
    return name != "our_defaults" or member in FIELDS
