"""What a rule version says and the arithmetic of its share; pure, no session.

It leaves which rule holds on a day and what a grant still has to `hub.vouchers.cover`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hub.columns import write_json
from hub.errors import ConflictError, GuanmoError, InvalidValueError
from hub.ledger.periods import SHANGHAI
from hub.organisations.rules import OrganisationKind
from hub.prices.tables import Meter
from hub.vouchers.tables import ApplicationState, Decision, PaperKind

LIFETIME = "lifetime"
ZONES = {"Asia/Shanghai": SHANGHAI, "UTC": UTC}
"""Time zones a rule may count its years in; both without daylight saving, so no zone files are needed."""

APPLICATION_STEPS: Mapping[tuple[ApplicationState, Decision], ApplicationState] = {
    (ApplicationState.SUBMITTED, Decision.CHECK): ApplicationState.CHECKED,
    (ApplicationState.SUBMITTED, Decision.RETURN): ApplicationState.RETURNED,
    (ApplicationState.SUBMITTED, Decision.REFUSE): ApplicationState.REFUSED,
    (ApplicationState.CHECKED, Decision.APPROVE): ApplicationState.APPROVED,
    (ApplicationState.CHECKED, Decision.RETURN): ApplicationState.RETURNED,
    (ApplicationState.CHECKED, Decision.REFUSE): ApplicationState.REFUSED,
    (ApplicationState.APPEALED, Decision.CHECK): ApplicationState.CHECKED,
    (ApplicationState.APPEALED, Decision.APPROVE): ApplicationState.APPROVED,
    (ApplicationState.APPEALED, Decision.REFUSE): ApplicationState.REFUSED,
}
"""What an officer may say in which state and where it leads. The firm itself moves: returned -> submitted (completed),
submitted or returned -> withdrawn, refused -> appealed (once). Nothing leaves approved or withdrawn."""

FIRM_STEPS: Mapping[ApplicationState, tuple[ApplicationState, ...]] = {
    ApplicationState.SUBMITTED: (ApplicationState.WITHDRAWN,),
    ApplicationState.RETURNED: (ApplicationState.SUBMITTED, ApplicationState.WITHDRAWN),
    ApplicationState.REFUSED: (ApplicationState.APPEALED,),
}


class CapPeriod(StrEnum):
    """Over which time a firm's cap counts."""

    LIFETIME = "lifetime"
    CALENDAR_YEAR = "calendar_year"


class RuleRefusedError(InvalidValueError):
    """The rule body breaks the shape of a rule."""

    code = "bad_rule"


class ProgrammeClosedError(ConflictError):
    """The programme takes no application here; the reason says why."""

    code = "programme_not_open"


class CapExceededError(GuanmoError):
    """The award would pass the firm's cap."""

    code = "cap_exceeded"
    status = 409


class FundExhaustedError(GuanmoError):
    """The programme's released fund has less than the award."""

    code = "fund_exhausted"
    status = 409


class TierRefusedError(InvalidValueError):
    """The application names no tier of the rule."""

    code = "bad_tier"


class GrantEndedError(ConflictError):
    """The grant has lapsed or was revoked."""

    code = "grant_ended"


class RelatedPartiesError(ConflictError):
    """Buyer and seller look related; an officer must decide first."""

    code = "related_parties"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Share(_Part):
    """num/den of the eligible actual fee."""

    num: int = Field(ge=0)
    den: int = Field(ge=1, le=10_000)


class Tier(_Part):
    """A cap of its own for one kind of object within a programme."""

    label_zh: str
    label_en: str
    cap_fen: int = Field(gt=0)


class RuleBody(_Part):
    """The rule itself. `our_defaults` names the fields that no paper fixes and we chose.

    `vat_bp` is the tax that fees contain, in hundredths of a percent; with tax base `excl` it comes off first.
    """

    share: Share | None
    per_firm_cap_fen: int | None = Field(gt=0)
    cap_period: str = Field(pattern="^(lifetime|calendar_year)$")
    cap_counts: list[str]
    share_base: str = Field(pattern="^(actual_fee|actual_paid|verified_investment)$")
    tax: str = Field(pattern="^(incl|excl)$")
    rounding: str = Field(pattern="^floor_line$")
    mode: str = Field(pattern="^(deduct|reimburse)$")
    eligible_meters: list[str]
    fallback_meters: list[str]
    excluded_fees: list[str]
    eligible_kinds: list[str]
    needs_filed_base: bool
    needs_city_platform: bool
    non_affiliated: bool
    one_award_per_contract: bool
    required_evidence: list[str]
    tiers: list[Tier]
    our_defaults: list[str]
    articles: str
    vat_bp: int | None = Field(None, ge=0, le=10_000)
    claim_evidence: list[str] = []
    exclusive_with: list[str] = []
    circular_window_days: int = Field(90, ge=0, le=730)
    lapse_grace_days: int = Field(60, ge=0, le=365)


@dataclass(frozen=True)
class Cover:
    """What one grant pays of one line: at most `amount_fen` and at most num/den of the actual fee."""

    programme: str
    rule_version_id: str
    grant_id: str
    share_num: int
    share_den: int
    amount_fen: int
    period_key: str


@dataclass(frozen=True)
class Refusal:
    """Why a programme covers nothing of a line."""

    programme: str
    code: str
    zh: str
    en: str


def find_tier(rule: RuleBody, tier: str | None) -> Tier | None:
    """Return the tier of an application by its English or Chinese label; None where the rule has no tiers.

    Raises:
        TierRefusedError: a tier where there are none, or none or an unknown one where there are; lists them.
    """
    for known in rule.tiers:
        if tier in (known.label_en, known.label_zh):
            return known
    if not rule.tiers and tier is None:
        return None
    en = ", ".join(known.label_en for known in rule.tiers) or "none"
    zh = "、".join(known.label_zh for known in rule.tiers) or "无"
    raise TierRefusedError(
        f"Tier '{tier or ''}' is none of this rule's; its tiers: {en}.",
        f"档次“{tier or ''}”不属于该规则，可选：{zh}。",
        field="tier",
    )


def read_body(body: Mapping[str, Any]) -> RuleBody:
    """Return the rule.

    Raises:
        RuleRefusedError: names every field that is missing, unknown or out of shape.
    """
    try:
        rule = RuleBody.model_validate(dict(body))
    except ValidationError as error:
        text = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise RuleRefusedError(f"Rule refused: {text}.", f"规则有误：{text}。", field="body") from error
    unknown = sorted({*rule.eligible_meters, *rule.fallback_meters} - set(Meter))
    unknown += sorted(set(rule.our_defaults) - set(RuleBody.model_fields))
    unknown += sorted({*rule.required_evidence, *rule.claim_evidence} - set(PaperKind))
    unknown += sorted(set(rule.eligible_kinds) - set(OrganisationKind))
    labels = [label for tier in rule.tiers for label in (tier.label_en, tier.label_zh)]
    unknown += sorted({label for label in labels if labels.count(label) > 1 or not label.strip()})
    if unknown or (rule.share and rule.share.num > rule.share.den):
        text = f"unknown {', '.join(unknown)}" if unknown else "share above 1"
        raise RuleRefusedError(f"Rule refused: {text}.", f"规则有误：{text}。", field="body")
    return rule


def digest_body(body: Mapping[str, Any]) -> str:
    """Return the sha256 of a rule body's canonical JSON."""
    return hashlib.sha256(write_json(body).encode()).hexdigest()


def effective_share(rule: RuleBody) -> tuple[int, int] | None:
    """Return the share of a fee with tax as one fraction, so that it is floored once; None for a rule without share."""
    if rule.share is None:
        return None
    if rule.tax == "incl" or rule.vat_bp is None:
        return rule.share.num, rule.share.den
    # In lowest terms: the products with a fee that the database checks must fit 64 bits.
    share = Fraction(rule.share.num * 10_000, rule.share.den * (10_000 + rule.vat_bp))
    return share.numerator, share.denominator


def check_words(rule: RuleBody) -> None:
    """Pass a rule whose words the hub can keep; nothing is accepted that would change nothing.

    Raises:
        RuleRefusedError: names the field and what fits.
    """
    wrong = (
        (
            rule.tax == "excl" and rule.vat_bp is None,
            "vat_bp",
            "tax base 'excl' needs the tax rate",
            "不含税须给出税率",
        ),
        (
            rule.share_base == "actual_paid" and rule.mode == "deduct",
            "share_base",
            "nothing is paid before a deduction; use 'actual_fee' or mode 'reimburse'",
            "下单抵扣时尚未付款，请用实际费用或先付后补",
        ),
        (
            rule.share_base == "verified_investment" and bool(rule.eligible_meters),
            "share_base",
            "a metered fee is no investment; use 'actual_fee' or 'actual_paid'",
            "计量费用不是投资，请用实际费用或实付金额",
        ),
        (
            rule.per_firm_cap_fen is not None and any(tier.cap_fen > rule.per_firm_cap_fen for tier in rule.tiers),
            "tiers",
            "a tier's cap is within the firm's cap",
            "分档上限不得高于企业上限",
        ),
        (
            set(rule.cap_counts) != {"held", "settled"},
            "cap_counts",
            "a cap always counts 'held' and 'settled'",
            "上限始终计入冻结与已用",
        ),
    )
    for applies, field, en, zh in wrong:
        if applies:
            raise RuleRefusedError(f"Rule refused: {field}: {en}.", f"规则有误：{zh}。", field=field)


def check_frame(rule: RuleBody, tz: str, basis_date: str) -> None:
    """Pass a time zone and basis date that fit the rule's mode.

    Money is deducted on the day of its hold, so nothing else can date it; a reimbursement goes by the day of the charge
    or of the request.

    Raises:
        RuleRefusedError: names what fits.
    """
    fitting = ("hold",) if rule.mode == "deduct" else ("charge", "redeem")
    if tz not in ZONES:
        raise RuleRefusedError(
            f"Time zone '{tz}' is unknown; use {', '.join(ZONES)}.",
            f"时区“{tz}”未知，可用 {', '.join(ZONES)}。",
            field="tz",
        )
    if basis_date not in fitting:
        raise RuleRefusedError(
            f"Basis date '{basis_date}' does not fit mode '{rule.mode}'; use {', '.join(fitting)}.",
            f"基准日“{basis_date}”与方式“{rule.mode}”不符，可用 {', '.join(fitting)}。",
            field="basis_date",
        )


def period_of(rule: RuleBody, moment: datetime, tz: str) -> str:
    """Return the cap period of an instant: `lifetime`, or the calendar year in the rule's zone."""
    return LIFETIME if rule.cap_period == CapPeriod.LIFETIME else moment.astimezone(ZONES[tz]).strftime("%Y")


def lapse_day(rule: RuleBody, *, period_key: str, tz: str, effective_to_at: datetime | None) -> datetime | None:
    """Return when what is left of a grant goes back to its fund: the end of its time plus the grace days; None: never.

    The grace lets orders held before the end settle, and months close, on the grant that they were held on.
    """
    if period_key == LIFETIME:
        end = effective_to_at
    else:
        end = datetime(int(period_key) + 1, 1, 1, tzinfo=ZONES[tz]).astimezone(UTC)
    return None if end is None else end + timedelta(days=rule.lapse_grace_days)


def share_fen(amount_fen: int, num: int, den: int) -> int:
    """Return the share of an amount rounded down: never a fen above the rule."""
    return amount_fen * num // den
