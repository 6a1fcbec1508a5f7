"""Pure rules of filings: which of a base's filings decides its standing, and how it is said.

It leaves reading rows to `service` and what a standing stops to `catalogue`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hub.errors import InvalidValueError
from hub.filings.tables import Filing, Track

DEMO_AUTHORITY = "demonstration"
DEMO_NUMBER_PREFIX = "DEMO-"


class StandingState(StrEnum):
    """How a base model stands at one moment."""

    VALID = "valid"
    NEVER = "never"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Standing:
    """The state at one moment and the filing that decides it (None: never filed)."""

    state: StandingState
    filing: Filing | None

    @property
    def valid(self) -> bool:
        """Whether everything is allowed (POLICY.md, Filing)."""
        return self.state is StandingState.VALID


class BadFilingError(InvalidValueError):
    """A field of the filing breaks a rule."""

    code = "bad_filing"


def derive_standing(filings: Iterable[Filing], now: datetime) -> Standing:
    """Return the standing that a base's filings give it: any valid one wins, else the one that ended last."""
    counted = [row for row in filings if row.track is Track.FILING and row.filed_at <= now]
    if not counted:
        return Standing(StandingState.NEVER, None)
    valid = [row for row in counted if _end_of(row) is None or _ends_after(row, now)]
    if valid:
        # The one that runs longest, so that the date shown is the one that matters.
        longest = max(valid, key=lambda row: (row.valid_until is None, row.valid_until or row.filed_at))
        return Standing(StandingState.VALID, longest)
    last = max(counted, key=lambda row: _end_of(row) or row.filed_at)
    withdrawn = last.withdrawn_at is not None and last.withdrawn_at <= now
    return Standing(StandingState.WITHDRAWN if withdrawn else StandingState.EXPIRED, last)


def explain_standing(standing: Standing) -> tuple[str, str]:
    """Return what the standing means for an order, in English and Chinese."""
    filing = standing.filing
    if filing is None:
        return (
            "This base model was never filed: cash orders and calls by the ordering organisation only, no model "
            "voucher, no public listing. Choose a filed base, or ask the operator to record its filing.",
            "该基础模型未备案：只能自费下单、由下单机构自用，不能使用模型券，也不能公开上架。请选择已备案模型，"
            "或请运营方登记其备案。",
        )
    named = f"{filing.model_name} ({filing.number}, {filing.authority})"
    named_zh = f"{filing.model_name}（{filing.number}，{filing.authority}）"
    if standing.state is StandingState.VALID:
        until = filing.valid_until.date().isoformat() if filing.valid_until else "no end date"
        until_zh = f"有效期至 {until}" if filing.valid_until else "长期有效"
        return f"Filed as {named}, valid until {until}.", f"已备案：{named_zh}，{until_zh}。"
    if standing.state is StandingState.WITHDRAWN:
        reason = filing.withdrawn_reason or ""
        return (
            f"The filing of {named} was withdrawn: {reason} No new order and no call by other organisations. "
            "Choose another base.",
            f"备案 {named_zh} 已撤销：{reason} 不能新下单，其他机构不能调用。请选择其他模型。",
        )
    ended = filing.valid_until.date().isoformat() if filing.valid_until else ""
    return (
        f"The filing of {named} expired on {ended}. No new order and no call by other organisations until it is "
        "renewed. Choose another base, or ask the operator.",
        f"备案 {named_zh} 已于 {ended} 到期，续期前不能新下单，其他机构不能调用。请选择其他模型或联系运营方。",
    )


def is_demo_filing(number: str, authority: str) -> bool:
    """Tell whether a filing is a demonstration by its number or authority."""
    return number.startswith(DEMO_NUMBER_PREFIX) or authority == DEMO_AUTHORITY


def check_filing(
    *, number: str, authority: str, track: Track, filed_at: datetime, valid_until: datetime | None, production: bool
) -> None:
    """Pass if the fields of a base's filing agree.

    Raises:
        BadFilingError: a registration instead of a filing, dates out of order, or a demonstration in production.
    """
    if track is not Track.FILING:
        raise BadFilingError(
            f"Track '{track}' is for apps that call a filed model unchanged; a base model needs '{Track.FILING}'. "
            "Record a registration as the decision on the listing.",
            f"“{track}”适用于原样调用已备案模型的应用；基础模型须为“{Track.FILING}”。登记请记录在上架决定中。",
            field="track",
        )
    if valid_until is not None and valid_until <= filed_at:
        raise BadFilingError(
            f"valid_until {valid_until.isoformat()} is not after filed_at {filed_at.isoformat()}.",
            "有效期须晚于备案日期。",
            field="valid_until",
        )
    demo_number, demo_authority = number.startswith(DEMO_NUMBER_PREFIX), authority == DEMO_AUTHORITY
    if demo_number != demo_authority:
        raise BadFilingError(
            f"A demonstration has a number '{DEMO_NUMBER_PREFIX}…' and the authority '{DEMO_AUTHORITY}', both or "
            f"neither; this has '{number}' and '{authority}'.",
            f"演示备案的编号须以 {DEMO_NUMBER_PREFIX} 开头且主管机关为“{DEMO_AUTHORITY}”，两者须一致。",
            field="number",
        )
    if production and demo_number:
        raise BadFilingError(
            f"'{number}' is a demonstration filing; production refuses it.",
            f"“{number}”为演示备案，正式环境不予受理。",
            field="number",
        )


def _end_of(row: Filing) -> datetime | None:
    ends = [moment for moment in (row.withdrawn_at, row.valid_until) if moment is not None]
    return min(ends) if ends else None


def _ends_after(row: Filing, now: datetime) -> bool:
    end = _end_of(row)
    return end is not None and end > now
