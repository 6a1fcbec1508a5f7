"""The steps of a claim, its refusals, and the periods that claims and reports are about; pure, no session.

It leaves which money falls into a period to `candidates` and `figures`.
"""

import re
from collections.abc import Mapping
from datetime import datetime

from hub.claims.tables import ClaimState
from hub.errors import ConflictError, InvalidValueError
from hub.ledger.periods import month_bounds

CLAIM_STEPS: Mapping[ClaimState, tuple[ClaimState, ...]] = {
    ClaimState.DRAFTED: (ClaimState.SUBMITTED, ClaimState.WITHDRAWN),
    ClaimState.SUBMITTED: (ClaimState.PAID,),
    ClaimState.PAID: (ClaimState.RECONCILED,),
}
"""Which state may follow which; nothing leaves reconciled or withdrawn."""

_QUARTER = re.compile(r"(\d{4})-Q([1-4])\Z")
_YEAR = re.compile(r"(\d{4})\Z")


class ClaimStepError(ConflictError):
    """The claim is not at that step."""

    code = "claim_step"


class NothingToClaimError(ConflictError):
    """No voucher money of the period is unclaimed and fully backed."""

    code = "nothing_to_claim"


class PackChangedError(ConflictError):
    """The pack built now differs from the one that was submitted."""

    code = "pack_changed"


class DifferenceUnexplainedError(InvalidValueError):
    """The authority paid another amount than claimed, and nobody said why."""

    code = "difference_unexplained"


class PeriodRunningError(ConflictError):
    """The period has not ended."""

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
            f"Period '{period}' is not a month, quarter or year; give for example 2026-11, 2026-Q4 or 2026.",
            f"期间“{period}”格式不对，应为月、季或年，例如 2026-11、2026-Q4 或 2026。",
            field="period",
        ) from error
    return [period]


def period_bounds(period: str) -> tuple[datetime, datetime]:
    """Return the first instant of a period and of what follows it, in UTC. Raises: InvalidValueError."""
    months = list_months(period)
    return month_bounds(months[0])[0], month_bounds(months[-1])[1]


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
