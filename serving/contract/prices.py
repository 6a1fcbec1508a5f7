"""The only price arithmetic for tokens, in integer µfen.

Which price applies is decided by the hub; shares, months and ledger postings too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import lcm
from typing import NamedTuple

from serving.contract.errors import ContractError
from serving.contract.snapshot import Meter, SnapshotPrice

UFEN_PER_FEN = 1_000_000


def cost_ufen(prices: Iterable[SnapshotPrice], prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    """Return the cost of one request in µfen, the exact sum rounded up once.

    `prices` are the meters of one price version. Cached tokens are part of the prompt tokens and cost the cached
    meter where there is one, else the prompt meter. A meter is needed only where its count is above zero.
    Raises: ContractError for negative counts, cached above prompt, mixed versions, doubled or missing meters.
    """
    return _cost(_rates(tuple(prices)), prompt_tokens, cached_tokens, completion_tokens)


def worst_cost_ufen(prices: Iterable[SnapshotPrice], prompt_tokens: int, completion_tokens: int) -> int:
    """Return the most µfen of a request of so many tokens, whatever part of its prompt is cached.

    Raises: as `cost_ufen`.
    """
    rates = _rates(tuple(prices))
    cached_is_dearer = rates.prompt is not None and rates.cached is not None and rates.cached > rates.prompt
    return _cost(rates, prompt_tokens, prompt_tokens if cached_is_dearer else 0, completion_tokens)


class _Rates(NamedTuple):
    """µfen per token by meter, all times `scale`, so that a sum stays in whole numbers; None: there is no price."""

    prompt: int | None
    cached: int | None
    completion: int | None
    scale: int


def _cost(rates: _Rates, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
    _check_counts(prompt_tokens, cached_tokens, completion_tokens)
    scaled_ufen = 0
    if prompt_tokens > cached_tokens:
        scaled_ufen += _scale(Meter.PROMPT, prompt_tokens - cached_tokens, rates.prompt)
    if cached_tokens:
        meter = Meter.PROMPT if rates.cached is rates.prompt else Meter.CACHED
        scaled_ufen += _scale(meter, cached_tokens, rates.cached)
    if completion_tokens:
        scaled_ufen += _scale(Meter.COMPLETION, completion_tokens, rates.completion)
    return -(-scaled_ufen // rates.scale)


@lru_cache(maxsize=1024)
def _rates(prices: tuple[SnapshotPrice, ...]) -> _Rates:
    meters = _by_meter(prices)
    scale = lcm(*(price.per_units for price in meters.values()))
    rates = {meter: price.amount_fen * UFEN_PER_FEN * (scale // price.per_units) for meter, price in meters.items()}
    prompt = rates.get(Meter.PROMPT)
    return _Rates(prompt, rates.get(Meter.CACHED, prompt), rates.get(Meter.COMPLETION), scale)


def _scale(meter: Meter, tokens: int, rate: int | None) -> int:
    if rate is None:
        raise ContractError("missing_meter", f"no price for {tokens} {meter} tokens; publish one", field=meter)
    return tokens * rate


def _check_counts(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> None:
    if 0 <= cached_tokens <= prompt_tokens and completion_tokens >= 0:
        return
    if min(prompt_tokens, cached_tokens, completion_tokens) < 0:
        counts = f"prompt {prompt_tokens}, cached {cached_tokens}, completion {completion_tokens}"
        raise ContractError("negative_tokens", f"token counts must not be negative: {counts}")
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
