"""Which prices and split terms may be published; pure, no session.

It leaves who may publish to `hub.prices.service`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from hub.errors import InvalidValueError
from hub.prices.tables import CALL_METERS, Meter, PriceSubject

MAX_AMOUNT_FEN = 10**10
MAX_PER_UNITS = 10**12

METERS = {
    PriceSubject.OFFER: (Meter.DEVICE_MS,),
    PriceSubject.TUNING: (Meter.TRAINED_TOKENS,),
    PriceSubject.BASE: CALL_METERS,
    PriceSubject.ADAPTER: CALL_METERS,
    PriceSubject.VERSION: CALL_METERS,
}
"""The meters that a price of each kind may carry; cached tokens cost the prompt price where they have none."""


class Party(StrEnum):
    """Who takes part in a split; the platform takes what the others leave."""

    INTEGRATOR = "integrator"
    BASE_OWNER = "base_owner"
    PROVIDER = "provider"
    POOL = "pool"
    PLATFORM = "platform"


@dataclass(frozen=True)
class SplitPart:
    """One party's share num/den of every fen sold; `organisation_id` is None for pool and platform."""

    party: Party
    organisation_id: str | None
    num: int
    den: int


class PriceRefusedError(InvalidValueError):
    """The price cannot be published as given."""

    code = "bad_price"


class SplitRefusedError(InvalidValueError):
    """The split terms cannot be published as given."""

    code = "bad_split"


def check_lines(kind: PriceSubject, lines: Mapping[str, tuple[int, int]]) -> dict[Meter, tuple[int, int]]:
    """Return the lines by meter.

    Raises:
        PriceRefusedError: names the meter or figure that breaks a rule and what is allowed.
    """
    allowed = METERS[kind]
    needed = [meter for meter in allowed if meter is not Meter.CACHED]
    missing = [meter for meter in needed if meter not in lines]
    unknown = [meter for meter in lines if meter not in allowed]
    if missing or unknown:
        listed = ", ".join(sorted(lines)) or "nothing"
        raise PriceRefusedError(
            f"A price of kind '{kind}' was given for {listed}; it takes {', '.join(allowed)} "
            f"and needs {', '.join(needed)}.",
            f"“{kind}”价格的计量项为 {listed}；可用 {', '.join(allowed)}，必填 {', '.join(needed)}。",
            field="lines",
        )
    for meter, (amount_fen, per_units) in lines.items():
        if not (0 <= amount_fen <= MAX_AMOUNT_FEN and 1 <= per_units <= MAX_PER_UNITS):
            raise PriceRefusedError(
                f"{meter}: {amount_fen} fen per {per_units} is out of range; "
                f"amount 0..{MAX_AMOUNT_FEN}, units 1..{MAX_PER_UNITS}.",
                f"{meter}：每 {per_units} 单位 {amount_fen} 分超出范围；"
                f"金额 0..{MAX_AMOUNT_FEN}，单位 1..{MAX_PER_UNITS}。",
                field=f"lines.{meter}",
            )
    return {Meter(meter): line for meter, line in lines.items()}


def check_parts(parts: Sequence[SplitPart]) -> list[dict[str, Any]]:
    """Return the parts as JSON values.

    Raises:
        SplitRefusedError: a share out of 0..1, shares above 1 together, or a party without its organisation.
    """
    total = Fraction(0)
    for index, part in enumerate(parts):
        if part.den < 1 or not 0 <= part.num <= part.den:
            raise _refuse_part(index, f"share {part.num}/{part.den} is not within 0..1", f"份额 {part.num}/{part.den}")
        own_books = part.party in (Party.POOL, Party.PLATFORM)
        if own_books == bool(part.organisation_id):
            raise _refuse_part(
                index, f"'{part.party}' {'takes no' if own_books else 'needs an'} organisation_id", "机构编号"
            )
        total += Fraction(part.num, part.den)
    if total > 1 or len({(part.party, part.organisation_id) for part in parts}) != len(parts):
        raise SplitRefusedError(
            f"The shares add up to {total}, at most 1 is allowed, and each party stands once. Lower a share.",
            f"份额合计 {total}，不得超过 1，且每方只列一次。请调低。",
            field="parts",
        )
    return [{**asdict(part), "party": str(part.party)} for part in parts]


def read_parts(parts: Sequence[Mapping[str, Any]]) -> list[SplitPart]:
    """Return split parts from stored or sent JSON values."""
    return [SplitPart(Party(part["party"]), part.get("organisation_id"), part["num"], part["den"]) for part in parts]


def fee_fen(quantity: int, amount_fen: int, per_units: int) -> int:
    """Return the fee of a quantity in whole fen, rounded down once: never above the exact price."""
    return quantity * amount_fen // per_units


def _refuse_part(index: int, en: str, zh: str) -> SplitRefusedError:
    return SplitRefusedError(f"Split part {index}: {en}.", f"分成第 {index} 项：{zh}有误。", field=f"parts[{index}]")
