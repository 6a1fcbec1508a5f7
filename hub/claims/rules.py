"""The steps of a claim, its refusals, and the periods that claims and reports are about; pure, no session.

It leaves which money falls into a period to `candidates` and `figures`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from hub.claims.tables import ClaimState, RedemptionState
from hub.errors import ConflictError, InvalidValueError
from hub.ledger.periods import SHANGHAI, month_bounds

CLAIM_STEPS: Mapping[ClaimState, tuple[ClaimState, ...]] = {
    ClaimState.DRAFTED: (ClaimState.SUBMITTED, ClaimState.WITHDRAWN),
    ClaimState.SUBMITTED: (ClaimState.PAID, ClaimState.REFUSED),
    ClaimState.PAID: (ClaimState.RECONCILED,),
}
"""Which state may follow which; nothing leaves reconciled, withdrawn or refused."""
FREEING = (ClaimState.WITHDRAWN, ClaimState.REFUSED)
"""States in which a claim asks for nothing: its money may be claimed again."""
ASKING = (RedemptionState.REQUESTED, RedemptionState.CHECKED, RedemptionState.PAID)
"""States in which a redemption has, or asks for, the share of its fees."""

_QUARTER = re.compile(r"(\d{4})-Q([1-4])\Z")
_YEAR = re.compile(r"(\d{4})\Z")
_RANGE = re.compile(r"(\d{4}-\d\d-\d\d)--(\d{4}-\d\d-\d\d)\Z")
_KINDS = {1: "month", 3: "quarter", 12: "year"}
_DAYS = "days"
MAX_RANGE_DAYS = 3_660
"""Ten years and some days: no programme runs longer."""


@dataclass(frozen=True)
class Period:
    """What a report or a claim is about: from `start` until before `end`, and the months that it touches.

    `kind` is month, quarter, year or days; reports of one kind are compared with each other.
    """

    text: str
    kind: str
    start: datetime
    end: datetime
    months: tuple[str, ...]

    @property
    def is_range(self) -> bool:
        """Whether it was given by its two days."""
        return self.kind == _DAYS

    @property
    def closes_at(self) -> datetime:
        """The end of its last month: only then can all its months be closed, so that nothing can be dated in it."""
        return month_bounds(self.months[-1])[1]


class ClaimStepError(ConflictError):
    """The claim is not at that step."""

    code = "claim_step"


class NothingToClaimError(ConflictError):
    """No voucher money of the period is unclaimed and fully backed."""

    code = "nothing_to_claim"


class DaysOverlapError(ConflictError):
    """Days of the range stand in another claim on the programme."""

    code = "days_overlap"


class PackChangedError(ConflictError):
    """The pack built now differs from the one that was submitted."""

    code = "pack_changed"


class DifferenceUnexplainedError(InvalidValueError):
    """The authority paid another amount than claimed, and nobody said why."""

    code = "difference_unexplained"


class PeriodRunningError(ConflictError):
    """The period has not ended, or something may still be dated in it."""

    code = "period_running"


class NotRedeemableError(ConflictError):
    """The charge cannot be redeemed with this grant; the reason says why."""

    code = "not_redeemable"


def list_months(period: str) -> list[str]:
    """Return the Shanghai months of `2026-11`, `2026-Q4` or `2026`, in order.

    Raises:
        InvalidValueError: another form.
    """
    if quarter := _QUARTER.match(period):
        return [f"{quarter[1]}-{number:02}" for number in range(3 * int(quarter[2]) - 2, 3 * int(quarter[2]) + 1)]
    if year := _YEAR.match(period):
        return [f"{year[1]}-{number:02}" for number in range(1, 13)]
    try:
        month_bounds(period)
    except InvalidValueError as error:
        raise InvalidValueError(
            f"Period '{period}' is not a month, quarter, year or range of days; give for example 2026-11, 2026-Q4, "
            "2026 or 2026-11-03--2026-12-15.",
            f"期间“{period}”应为月、季、年或起止日期，例如 2026-11、2026-Q4、2026 或 2026-11-03--2026-12-15。",
            field="period",
        ) from error
    return [period]


def period_bounds(period: str) -> tuple[datetime, datetime]:
    """Return the first instant of a period and of what follows it, in UTC. Raises: InvalidValueError."""
    months = list_months(period)
    return month_bounds(months[0])[0], month_bounds(months[-1])[1]


def read_period(text: str) -> Period:
    """Return what a period covers: `2026-11`, `2026-Q4`, `2026`, or the days `2026-11-03--2026-12-15`.

    Both days of a range count, whole days of Shanghai; its text is the ISO 8601 interval that may stand in an address.

    Raises:
        InvalidValueError: another form, no such day, the wrong way round, or longer than the limit.
    """
    found = _RANGE.match(text)
    if found is None:
        months = list_months(text)
        return Period(text, _KINDS[len(months)], *period_bounds(text), months=tuple(months))
    first, last = _read_day(text, found[1]), _read_day(text, found[2])
    if not first <= last or (last - first).days >= MAX_RANGE_DAYS:
        raise InvalidValueError(
            f"Period '{text}' is {(last - first).days + 1} days; a range goes forward, 1 to {MAX_RANGE_DAYS} days.",
            f"期间“{text}”为 {(last - first).days + 1} 天；起止日期须由前到后，1 至 {MAX_RANGE_DAYS} 天。",
            field="period",
        )
    start, end = (_start_of(day).astimezone(UTC) for day in (first, last + timedelta(days=1)))
    return Period(text, _DAYS, start, end, months=tuple(_list_touched(first, last)))


def _list_touched(first: date, last: date) -> list[str]:
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12:04}-{number % 12 + 1:02}" for number in numbers]


def _read_day(period: str, text: str) -> date:
    try:
        day = date.fromisoformat(text)
        month_bounds(text[:7])  # within the years that months have
    except (ValueError, InvalidValueError) as error:
        raise InvalidValueError(
            f"'{text}' of period '{period}' is not a day; give for example 2026-11-03.",
            f"期间“{period}”中的“{text}”不是日期，应如 2026-11-03。",
            field="period",
        ) from error
    return day


def _start_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=SHANGHAI)


def check_step(claim_id: str, state: ClaimState, following: ClaimState) -> None:
    """Pass a step that the table allows.

    Raises:
        ClaimStepError: names the state and what may follow.
    """
    possible = CLAIM_STEPS.get(state, ())
    if following not in possible:
        steps = ", ".join(possible) or "none"
        raise ClaimStepError(
            f"Claim '{claim_id}' is {state} and cannot become {following} (possible: {steps}).",
            f"申报“{claim_id}”处于 {state}，不能转为 {following}（可用：{steps}）。",
        )
