"""Quotes a fine-tune: the lines of its bill with voucher cover by the rules of the day, everything pinned.

It leaves estimates of time and tokens to the trainer's plan and holding money to `placing`.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.columns import write_json
from hub.errors import ForbiddenError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.orders.quote_lines import WantedLine, build_lines
from hub.orders.rules import BaseNotFiledError
from hub.orders.tables import Quote, QuoteState
from hub.prices.service import default_price, find_price_version
from hub.prices.tables import Meter, PriceSubject

VALID_FOR = timedelta(hours=24)
MAX_QUANTITY = 10**13


class OfferTerms(Protocol):
    """What a quote needs of an offer; a row of `hub.compute` fits. `organisation_id` is the provider's."""

    @property
    def id(self) -> str: ...
    @property
    def organisation_id(self) -> str: ...
    @property
    def price_version_id(self) -> str: ...
    @property
    def via_city_platform(self) -> bool: ...
    @property
    def title_zh(self) -> str: ...
    @property
    def title_en(self) -> str: ...


def quote_tuning(
    session: Session,
    actor: Actor,
    *,
    base_version_id: str,
    base_public_name: str,
    filed: bool,
    offer: OfferTerms,
    dataset_version_id: str,
    device_ms: int,
    trained_tokens: int,
    plan_digest: str,
    subject: str,
    now: datetime,
    filing_id: str | None = None,
    require_model_voucher: bool = False,
) -> Quote:
    """Return what a run (`subject`) costs at most: compute rental and tuning service, each with its voucher cover.

    Raises:
        BaseNotFiledError: a model voucher is required and the base has no valid filing.
        InvalidValueError: a quantity out of range.
        NotFoundError: no price for tuning is published.
    """
    require_buyer(actor)
    check_quantities({"device_ms": device_ms, "trained_tokens": trained_tokens})
    if require_model_voucher and not filed:
        raise _refuse_unfiled(base_public_name)
    quote = Quote(
        id=new_id("quo"),
        organisation_id=actor.organisation_id,
        subject_kind="tuning",
        subject=subject,
        state=QuoteState.OPEN,
        base_version_id=base_version_id,
        base_public_name=base_public_name,
        filed=filed,
        filing_id=filing_id,
        offer_id=offer.id,
        provider_organisation_id=offer.organisation_id,
        dataset_version_id=dataset_version_id,
        plan_digest=plan_digest,
        device_ms=device_ms,
        trained_tokens=trained_tokens,
        created_by=actor.user_id,
        created_at=now,
        valid_until=now + VALID_FOR,
    )
    quote.lines = build_lines(session, quote, _list_wanted(session, quote, offer, now), now)
    return keep_quote(session, quote)


def keep_quote(session: Session, quote: Quote) -> Quote:
    """Add a quote's lines up, pin them by digest and store it."""
    add_up(quote)
    session.add(quote)
    session.flush()
    _record(session, quote)
    return quote


def find_quote(session: Session, actor: Actor, quote_id: str) -> Quote:
    """Return a quote that the actor may see.

    Raises:
        NotFoundError: missing or another organisation's.
    """
    quote = session.get(Quote, quote_id)
    wide = actor.reads_all
    if quote is None or (quote.organisation_id != actor.organisation_id and not wide):
        raise NotFoundError.of("quote", quote_id)
    return quote


def require_buyer(actor: Actor) -> None:
    """Pass whoever may order.

    Raises:
        ForbiddenError: auditors write nothing, providers sell.
    """
    if actor.role in (Role.AUDITOR, Role.PROVIDER):
        raise ForbiddenError(
            f"Role '{actor.role}' does not order; sign in as a factory, integrator or developer.",
            f"角色“{actor.role}”不能下单，请以工厂、集成商或开发者身份登录。",
        )


def expire_quotes(session: Session, now: datetime) -> int:
    """Mark open quotes whose time is over and return how many."""
    query = select(Quote).where(Quote.state == QuoteState.OPEN, Quote.valid_until <= now)
    due = list(session.scalars(query.order_by(Quote.id).limit(500).with_for_update(skip_locked=True)))
    for quote in due:
        quote.state = QuoteState.EXPIRED
    return len(due)


def check_quantities(quantities: dict[str, int]) -> None:
    """Pass whole quantities that a bill can carry. Raises: InvalidValueError."""
    for name, quantity in quantities.items():
        if type(quantity) is not int or not 0 <= quantity <= MAX_QUANTITY:
            raise InvalidValueError(
                f"{name} is {quantity}; a quote takes 0..{MAX_QUANTITY}. Plan the run again.",
                f"{name} 为 {quantity}，报价允许 0..{MAX_QUANTITY}，请重新规划。",
                field=name,
            )


def _refuse_unfiled(base_public_name: str) -> BaseNotFiledError:
    return BaseNotFiledError(
        f"Base '{base_public_name}' has no valid filing, so no model voucher pays for it. "
        "Choose a filed base, or pay in cash.",
        f"基座“{base_public_name}”没有有效备案，不能使用模型券。请改选已备案基座，或以自有资金支付。",
        field="base_version_id",
    )


def rental_line(session: Session, offer: OfferTerms, device_ms: int) -> WantedLine:
    """Return the line of so much device time of an offer."""
    return WantedLine(
        Meter.DEVICE_MS,
        device_ms,
        find_price_version(session, offer.price_version_id),
        f"算力租用 · {offer.title_zh}",
        f"Compute rental · {offer.title_en}",
        offer.via_city_platform,
    )


def _list_wanted(session: Session, quote: Quote, offer: OfferTerms, now: datetime) -> list[WantedLine]:
    return [
        rental_line(session, offer, quote.device_ms),
        WantedLine(
            Meter.TRAINED_TOKENS,
            quote.trained_tokens,
            default_price(session, PriceSubject.TUNING, now),
            f"微调服务 · {quote.base_public_name}",
            f"Tuning service · {quote.base_public_name}",
            False,
        ),
    ]


def _record(session: Session, quote: Quote) -> None:
    record_event(
        session,
        "quote.made",
        quote.id,
        organisation_id=quote.organisation_id,
        actor_id=quote.created_by,
        now=quote.created_at,
        list_fen=quote.list_fen,
    )


def add_up(quote: Quote) -> None:
    """Set the totals of a quote and the digest of everything that it pins."""
    quote.list_fen = sum(line.list_fen for line in quote.lines)
    quote.voucher_fen = sum(line.voucher_fen for line in quote.lines)
    quote.self_paid_fen = sum(line.self_paid_fen for line in quote.lines)
    quote.sha256 = hashlib.sha256(write_json(_list_pinned(quote)).encode()).hexdigest()


def _list_pinned(quote: Quote) -> dict[str, Any]:
    return {
        "base": quote.base_version_id,
        "filed": quote.filed,
        "filing": quote.filing_id,
        "offer": quote.offer_id,
        "dataset": quote.dataset_version_id,
        "plan": quote.plan_digest,
        "lines": [
            [line.meter, line.quantity, line.price_version_id, line.amount_fen, line.per_units, line.split_terms_id]
            + [[cover.rule_version_id, cover.grant_id, cover.amount_fen, cover.period_key] for cover in line.covers]
            for line in quote.lines
        ],
    }
