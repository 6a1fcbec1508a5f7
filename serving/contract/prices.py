"""The only price arithmetic for tokens, in integer µfen.

Which price applies is decided by the hub; shares, months and ledger postings too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import lcm

from serving.contract.errors import ContractError
from serving.contract.snapshot import Meter, SnapshotPrice

UFEN_PER_FEN = 1_000_000


def cost_ufen(prices: Iterable[SnapshotPrice], prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    """Return the cost of one request in µfen, the exact sum rounded up once.

    `prices` are the meters of one price version. Cached tokens are part of the prompt tokens and cost the cached
    meter where there is one, else the prompt meter. A meter is needed only where its count is above zero.
    Raises: ContractError for negative counts, cached above prompt, mixed versions, doubled or missing meters.
    """
    _check_counts(prompt_tokens, cached_tokens, completion_tokens)
    rates, scale = _rates(tuple(prices))
    cached_meter = Meter.CACHED if Meter.CACHED in rates else Meter.PROMPT
    scaled_ufen = 0
    for meter, tokens in (
        (Meter.PROMPT, prompt_tokens - cached_tokens),
        (cached_meter, cached_tokens),
        (Meter.COMPLETION, completion_tokens),
    ):
        if tokens:
            if meter not in rates:
                raise ContractError("missing_meter", f"no price for {tokens} {meter} tokens; publish one", field=meter)
            scaled_ufen += tokens * rates[meter]
    return -(-scaled_ufen // scale)


@lru_cache(maxsize=1024)
def _rates(prices: tuple[SnapshotPrice, ...]) -> tuple[dict[Meter, int], int]:
    """Return µfen per token by meter, all times the returned scale, so that the sum stays in whole numbers."""
    meters = _by_meter(prices)
    scale = lcm(*(price.per_units for price in meters.values()))
    return {
        meter: price.amount_fen * UFEN_PER_FEN * (scale // price.per_units) for meter, price in meters.items()
    }, scale


def _check_counts(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
    if min(prompt_tokens, cached_tokens, completion_tokens) < 0:
        counts = f"prompt {prompt_tokens}, cached {cached_tokens}, completion {completion_tokens}"
        raise ContractError("negative_tokens", f"token counts must not be negative: {counts}")
    if cached_tokens > prompt_tokens:
        message = f"cached tokens {cached_tokens} exceed prompt tokens {prompt_tokens} that contain them"
        raise ContractError("cached_above_prompt", message, field="cached_tokens")


def _by_meter(prices: Iterable[SnapshotPrice]) -> dict[Meter, SnapshotPrice]:
    meters: dict[Meter, SnapshotPrice] = {}
    for price in prices:
        if price.meter in meters:
            raise ContractError("doubled_meter", f"two prices for meter {price.meter} of {price.price_version_id}")
        if price.per_units <= 0 or price.amount_fen < 0:
            raise ContractError("bad_price", f"{price.amount_fen} fen per {price.per_units} units is no price")
        meters[price.meter] = price
    if len({price.price_version_id for price in meters.values()}) > 1:
        raise ContractError("mixed_price_versions", "the prices belong to more than one price version")
    return meters
