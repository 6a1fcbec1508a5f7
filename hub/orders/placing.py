"""Accepts a quote: one order and one group of holds on vouchers and cash, all or nothing.

It leaves what happens to the holds to `settlement`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.tables import ModelVersion
from hub.errors import ConflictError, IdempotencyConflictError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.filings.service import StandingState, explain_standing, standing_of
from hub.ids import new_id
from hub.ledger.movements import hold
from hub.ledger.rules import AccountLimitError, Movement, derive_id
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import Account, AccountKind
from hub.orders.cash import firm_cash, queue_up, wallet
from hub.orders.leases import LEASE_S
from hub.orders.quotes import require_buyer
from hub.orders.rules import FilingEndedError, InsufficientFundsError, QuoteExpiredError, QuoteStaleError
from hub.orders.tables import Order, OrderState, Quote, QuoteLine, QuoteState
from hub.prices.service import find_price_version
from hub.vouchers.rules import period_of, read_body
from hub.vouchers.service import describe_line, require_unrelated
from hub.vouchers.tables import Grant, GrantState, RuleVersion

VOUCHER, CASH = "voucher", "cash"


def accept_quote(
    session: Session,
    actor: Actor,
    quote_id: str,
    *,
    idempotency_key: str,
    now: datetime,
    cost_centre: str | None = None,
) -> Order:
    """Turn an open quote into an order with its money held. The same key again returns the same order.

    Raises:
        InsufficientFundsError: names what the quote needs, what is available and what is missing.
        QuoteExpiredError, QuoteStaleError: a new quote is needed.
        FilingEndedError: the base's filing was withdrawn or expired since the quote.
        RelatedPartiesError: buyer and seller of a line that a voucher was to pay look related since the quote.
        IdempotencyConflictError: the key belongs to another quote's order.
    """
    require_buyer(actor)
    _check_key(idempotency_key)
    # The firm is locked before anything else, as by everything that holds its money: those may share a transaction.
    queue_up(session, actor.organisation_id)
    quote = session.get(Quote, quote_id, with_for_update=True, populate_existing=True)
    if quote is None or quote.organisation_id != actor.organisation_id:
        raise NotFoundError.of("quote", quote_id)
    known = _find_known(session, quote, idempotency_key)
    if known is not None:
        return known
    _check_open(quote, now)
    _check_filing(session, quote, now)
    _check_covers(session, quote, now)
    _check_parties(session, quote, now)
    order = _build_order(quote, actor, idempotency_key=idempotency_key, cost_centre=cost_centre, now=now)
    _place_holds(session, quote, order, actor, now)
    quote.state = QuoteState.ACCEPTED
    session.add(order)
    session.flush()
    record_event(
        session,
        "order.accepted",
        order.id,
        organisation_id=order.organisation_id,
        actor_id=actor.user_id,
        now=now,
        quote_id=quote.id,
        order_subject=order.subject,
        held_fen=order.held_fen,
    )
    return order


def hold_id(order_id: str, line: QuoteLine, purse: str) -> str:
    """Return the id of the hold of one line on `voucher` or `cash`."""
    return derive_id("tra", "hold", order_id, str(line.position), purse)


def clearing_account(session: Session, order: Order, now: datetime) -> Account:
    """Return the account that an order's money passes through; zero before and after."""
    return open_account(
        session, organisation_id=order.organisation_id, kind=AccountKind.CLEARING, subject=order.id, now=now
    )


def _check_key(idempotency_key: str) -> None:
    if not 1 <= len(idempotency_key) <= 200:
        raise InvalidValueError(
            f"The idempotency key has {len(idempotency_key)} characters; give 1..200, the same on a retry.",
            f"幂等键长度为 {len(idempotency_key)}，应为 1..200，重试时保持不变。",
            field="idempotency_key",
        )


def _find_known(session: Session, quote: Quote, idempotency_key: str) -> Order | None:
    known = session.scalar(
        select(Order).where(Order.organisation_id == quote.organisation_id, Order.idempotency_key == idempotency_key)
    )
    if known is not None and known.quote_id != quote.id:
        raise IdempotencyConflictError(
            f"Idempotency key '{idempotency_key}' belongs to the order of quote '{known.quote_id}'; take a new key.",
            f"幂等键“{idempotency_key}”已用于报价“{known.quote_id}”，请更换。",
            field="idempotency_key",
        )
    return known


def _check_open(quote: Quote, now: datetime) -> None:
    if quote.state is QuoteState.ACCEPTED:
        raise ConflictError(
            f"Quote '{quote.id}' was accepted before; ask for a new quote to run again.",
            f"报价“{quote.id}”已被接受；如需再次训练请重新报价。",
        )
    if quote.state is QuoteState.EXPIRED or now >= quote.valid_until:
        raise QuoteExpiredError(
            f"Quote '{quote.id}' was valid until {quote.valid_until.isoformat()}; ask for a new one.",
            f"报价“{quote.id}”有效期至 {quote.valid_until.isoformat()}，请重新报价。",
        )


def _check_filing(session: Session, quote: Quote, now: datetime) -> None:
    """Ask again what the quote asked: a base whose filing ended takes no new order, with voucher or without."""
    if quote.base_version_id is None:
        return
    base = session.get_one(ModelVersion, quote.base_version_id)
    standing = standing_of(session, base.weights_digest, now)
    if standing.state in (StandingState.WITHDRAWN, StandingState.EXPIRED) or (quote.filed and not standing.valid):
        raise FilingEndedError(*explain_standing(standing), field="base_version_id")


def _check_covers(session: Session, quote: Quote, now: datetime) -> None:
    """A hold counts in the period that it is made in, and only an active grant pays for anything new."""
    for cover in (cover for line in quote.lines for cover in line.covers):
        grant = session.get_one(Grant, cover.grant_id, populate_existing=True)
        version = session.get_one(RuleVersion, cover.rule_version_id)
        period = period_of(read_body(version.body), now, version.tz)
        if grant.state is not GrantState.ACTIVE or period != cover.period_key:
            raise QuoteStaleError(
                f"A voucher that quote '{quote.id}' counts on is {grant.state}, for the period {cover.period_key}; "
                f"today is in {period}. Ask for a new quote.",
                f"报价“{quote.id}”所用券状态为 {grant.state}，适用期间 {cover.period_key}，现为 {period}，请重新报价。",
            )


def _check_parties(session: Session, quote: Quote, now: datetime) -> None:
    """Ask again whether the parties of what a voucher pays for look related: a sign may have come up since."""
    for line, cover in [(each, cover) for each in quote.lines for cover in each.covers]:
        sold = describe_line(
            session,
            find_price_version(session, line.price_version_id),
            organisation_id=quote.organisation_id,
            meter=line.meter,
            amount_fen=line.list_fen,
            filed_base=quote.filed,
        )
        require_unrelated(session, sold, cover.rule_version_id, now)


def _build_order(quote: Quote, actor: Actor, *, idempotency_key: str, cost_centre: str | None, now: datetime) -> Order:
    return Order(
        id=new_id("ord"),
        organisation_id=quote.organisation_id,
        quote_id=quote.id,
        subject_kind=quote.subject_kind,
        subject=quote.subject,
        state=OrderState.HELD,
        cost_centre=cost_centre,
        idempotency_key=idempotency_key,
        held_fen=quote.list_fen,
        charged_fen=0,
        voucher_fen=0,
        cash_fen=0,
        accepted_by=actor.user_id,
        accepted_at=now,
    )


def _place_holds(session: Session, quote: Quote, order: Order, actor: Actor, now: datetime) -> None:
    clearing = clearing_account(session, order, now)
    cash = firm_cash(session, quote.organisation_id, now)
    movements = _voucher_holds(session, quote, order, clearing) + _cash_holds(quote, order, cash, clearing)
    if not movements:
        return
    posted = Posted("order", order.id, actor.user_id, now)
    try:
        post_group(session, derive_id("grp", "hold", order.id), movements, posted)
    except AccountLimitError as error:
        raise _explain(session, quote, error) from error


def _voucher_holds(session: Session, quote: Quote, order: Order, clearing: Account) -> list[Movement]:
    covers = [(line, cover) for line in quote.lines for cover in line.covers]
    query = select(Grant.id, Account).join(Account, Account.id == Grant.account_id)
    rows = session.execute(query.where(Grant.id.in_({cover.grant_id for _, cover in covers}))) if covers else ()
    accounts = {grant_id: account for grant_id, account in rows}
    return [
        hold(
            hold_id(order.id, line, VOUCHER),
            accounts[cover.grant_id],
            clearing,
            amount_fen=cover.amount_fen,
            code="voucher_held",
            rule_version_id=cover.rule_version_id,
            price_version_id=line.price_version_id,
            lease_s=LEASE_S,
        )
        for line, cover in covers
    ]


def _cash_holds(quote: Quote, order: Order, cash: Account, clearing: Account) -> list[Movement]:
    return [
        hold(
            hold_id(order.id, line, CASH),
            cash,
            clearing,
            amount_fen=line.self_paid_fen,
            code="cash_held",
            price_version_id=line.price_version_id,
            lease_s=LEASE_S,
        )
        for line in quote.lines
        if line.self_paid_fen
    ]


def _explain(session: Session, quote: Quote, error: AccountLimitError) -> Exception:
    if error.extra["kind"] == AccountKind.GRANT:
        return QuoteStaleError(
            f"A voucher that quote '{quote.id}' counts on has {error.extra['available_fen']} fen left; "
            "ask for a new quote.",
            f"报价“{quote.id}”所用券额剩余 {error.extra['available_fen']} 分，请重新报价。",
        )
    available = wallet(session, quote.organisation_id).available_fen
    short = quote.self_paid_fen - available
    return InsufficientFundsError(
        f"Quote '{quote.id}' needs {quote.self_paid_fen} fen of your own, {available} fen are available; "
        f"deposit {short} fen more.",
        f"报价“{quote.id}”需自付 {quote.self_paid_fen} 分，可用 {available} 分，还差 {short} 分，请先充值。",
        quote_fen=quote.self_paid_fen,
        available_fen=available,
        short_fen=short,
    )
