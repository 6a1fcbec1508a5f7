"""The arithmetic of bills: what a line settles at, what a voucher pays of it, how a sale is split; pure, whole fen.

It leaves prices of tokens to `serving.contract.cost_ufen` and moving the money to the services beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hub.errors import ConflictError, GuanmoError, InvalidValueError
from hub.prices.rules import Party, SplitPart

UFEN_PER_FEN = 1_000_000


class InsufficientFundsError(GuanmoError):
    """The firm's own money does not cover its part of the quote."""

    code = "insufficient_funds"
    status = 402


class QuoteExpiredError(ConflictError):
    """The quote may no longer be accepted."""

    code = "quote_expired"


class QuoteStaleError(ConflictError):
    """A voucher that the quote counts on has been spent since."""

    code = "quote_stale"


class BaseNotFiledError(ConflictError):
    """A model voucher was insisted on for a base without a valid filing."""

    code = "base_not_filed"


class FilingEndedError(ConflictError):
    """The base's filing was withdrawn or expired after the quote; no new order."""

    code = "filing_ended"


class MeterRefusedError(InvalidValueError):
    """The metered figures do not fit the order."""

    code = "bad_meter"


@dataclass(frozen=True)
class Subsidy:
    """A share num/den of the fee, of which at most `held_fen` is set aside."""

    num: int
    den: int
    held_fen: int


@dataclass(frozen=True)
class Paid:
    """A fee and who pays it: fee = voucher + cash, in fen."""

    fee_fen: int
    voucher_fen: int
    cash_fen: int


@dataclass(frozen=True)
class LineState:
    """A bill line before a tranche resolves: exact usage so far (this tranche included), posted and subsidised fen."""

    exact_ufen: int
    posted_fen: int
    subsidised_fen: int


def settle_line(fee_fen: int, subsidy: Subsidy | None) -> Paid:
    """Return who pays an actual fee: S = min(floor(F x share), S_q).

    With S_q <= floor(Q x share) and F <= Q, the cash F - S never exceeds the Q - S_q that is held.
    """
    voucher = min(fee_fen * subsidy.num // subsidy.den, subsidy.held_fen) if subsidy else 0
    return Paid(fee_fen, voucher, fee_fen - voucher)


def resolve_tranche(line: LineState, *, left_fen: int, subsidy: Subsidy | None) -> Paid:
    """Return what a tranche pays on a line, of at most `left_fen` held.

    F = floor(exact) - posted; S = min(floor((posted + F) x share) - subsidised, S_q, F). The rest carries.
    """
    fee = min(line.exact_ufen // UFEN_PER_FEN - line.posted_fen, left_fen)
    voucher = 0
    if subsidy is not None:
        due = (line.posted_fen + fee) * subsidy.num // subsidy.den - line.subsidised_fen
        voucher = min(due, subsidy.held_fen, fee)
    return Paid(fee, voucher, fee - voucher)


def split_fee(fee_fen: int, *, before_fen: int, received: Sequence[int], parts: Sequence[SplitPart]) -> list[int]:
    """Return what each part receives of `fee_fen`, having received `received` of `before_fen` sold before.

    Each part's total is its share of everything sold, rounded down; the platform takes what the list leaves.
    """
    left = fee_fen
    given = []
    for part, had in zip(parts, received, strict=True):
        due = (before_fen + fee_fen) * part.num // part.den - had
        amount = max(0, min(due, left)) if part.party is not Party.PLATFORM else 0
        given.append(amount)
        left -= amount
    return given


def slice_size(want_ufen: int, *, held_fen: int, sliced_ufen: int) -> int:
    """Return how large a slice a tranche still gives; all slices together stay at or below held_fen - 1 fen.

    The fen kept back pays the remainder that a bill line carries in.
    """
    return max(0, min(want_ufen, (held_fen - 1) * UFEN_PER_FEN - sliced_ufen))
