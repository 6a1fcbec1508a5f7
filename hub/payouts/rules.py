"""Which step of a payout may follow which, and what each needs; pure, no session.

It leaves storing them and the money to `service`.
"""

from datetime import timedelta

from hub.errors import ConflictError, InvalidValueError
from hub.payouts.tables import PayoutState

SILENT_AFTER = timedelta(hours=24)
"""How long the bank may be silent before a payout counts as unknown (our default)."""

STEPS: dict[PayoutState, tuple[PayoutState, ...]] = {
    PayoutState.REQUESTED: (PayoutState.IN_PAYOUT, PayoutState.FAILED),
    PayoutState.IN_PAYOUT: (PayoutState.PAID, PayoutState.FAILED, PayoutState.UNKNOWN),
    PayoutState.UNKNOWN: (PayoutState.PAID, PayoutState.FAILED),
    PayoutState.PAID: (),
    PayoutState.FAILED: (),
    PayoutState.NETTED: (),
    PayoutState.WITHDRAWN: (),
}
"""Nothing leads back to `in_payout`: what was sent once is never sent again; a failed one is asked for anew.
Only who asked for a payout takes it back, which is no step of the operator's."""


class PayoutStepError(ConflictError):
    """The payout is not where this step could follow."""

    code = "payout_step"


class PayoutRefusedError(InvalidValueError):
    """The payout cannot be asked for as given."""

    code = "bad_payout"


def check_step(now_state: PayoutState, wanted: PayoutState) -> None:
    """Pass a step that may follow. Raises: PayoutStepError."""
    allowed = STEPS[now_state]
    if wanted not in allowed:
        listed = ", ".join(allowed) or "nothing"
        raise PayoutStepError(
            f"A payout that is {now_state} does not become {wanted}; from here it may become {listed}.",
            f"付款处于 {now_state}，不能变为 {wanted}；可变为 {', '.join(allowed) or '无'}。",
            state=str(now_state),
        )


def check_details(now_state: PayoutState, wanted: PayoutState, *, bank_reference: str, reason: str) -> None:
    """Pass a step that names what it must: the bank's reference when paid, a reason when not or when it was unknown.

    Raises:
        PayoutRefusedError: names what is missing.
    """
    if wanted is PayoutState.PAID and not bank_reference.strip():
        raise PayoutRefusedError(
            "A paid payout names the bank's reference, by which it can be found in the bank's statement.",
            "已付款须填写银行流水号。",
            field="bank_reference",
        )
    needs_reason = wanted in (PayoutState.FAILED, PayoutState.UNKNOWN) or now_state is PayoutState.UNKNOWN
    if needs_reason and not reason.strip():
        raise PayoutRefusedError(
            f"A payout becomes {wanted} with a reason; say what the bank said or what was found.",
            f"变为 {wanted} 须填写原因，请说明银行答复或核实结果。",
            field="reason",
        )
