"""Quotes and acceptance of runs: what a plan costs on an offer, and the order that queues it.

It leaves prices, cover and holds to `hub.orders`.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.service import root_base
from hub.catalogue.tables import ModelVersion
from hub.compute.service import find_offer
from hub.datasets.service import find_usable_version
from hub.errors import ConflictError
from hub.filings.service import StandingState, explain_standing, standing_of
from hub.orders.service import accept_quote, quote_tuning, refund_order
from hub.orders.tables import Fault, Order, OrderState, Quote
from hub.tuning.moves import RunStateError, move_run
from hub.tuning.queueing import queue_training
from hub.tuning.service import NotTunableError, find_run
from hub.tuning.speeds import estimate_time, read_speeds
from hub.tuning.states import RunState
from hub.tuning.tables import Run

_QUOTABLE = (RunState.PLANNED, RunState.QUOTED)


def quote_run(
    session: Session,
    actor: Actor,
    run_id: str,
    *,
    offer_id: str,
    now: datetime,
    require_model_voucher: bool = False,
) -> Quote:
    """Return a quote for a planned run on an offer; the newest quote is the one that may be accepted.

    Raises:
        NotFoundError, RunStateError: not planned yet, or ordered already.
        ConflictError: the offer was withdrawn or is over.
        NotTunableError: the base's filing was withdrawn or expired since.
        BaseNotFiledError: a model voucher is insisted on for a base without a filing.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.state not in _QUOTABLE or run.plan is None:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; a quote needs a finished plan and no order yet. Wait, or start a new run.",
            f"任务 {run.id} 状态为“{run.state}”，需已完成规划且尚未下单。请稍候或新建任务。",
            state=str(run.state),
        )
    offer = find_offer(session, offer_id)
    if not offer.is_open(now):
        raise ConflictError(
            f"Offer {offer.id} is no longer open. Choose another from GET /api/v1/offers.",
            f"报价 {offer.id} 已下架，请另选。",
            field="offer_id",
        )
    find_usable_version(session, actor, run.dataset_version_id)
    base = root_base(session, session.get_one(ModelVersion, run.base_version_id))
    standing = standing_of(session, base.weights_digest, now)
    if standing.state in (StandingState.WITHDRAWN, StandingState.EXPIRED):
        raise NotTunableError(*explain_standing(standing), field="base")
    speeds = read_speeds(session, as_of=now, base_version_id=run.base_version_id)
    device_ms = estimate_time(run.plan, offer, speeds.get(offer.id)).device_ms
    quote = quote_tuning(
        session,
        actor,
        base_version_id=run.base_version_id,
        base_public_name=run.base_public_name,
        filed=standing.valid,
        filing_id=standing.filing.id if standing.valid and standing.filing is not None else None,
        offer=offer,
        dataset_version_id=run.dataset_version_id,
        device_ms=device_ms,
        trained_tokens=run.plan["tokens"],
        plan_digest=run.plan_digest or "",
        subject=run.id,
        now=now,
        require_model_voucher=require_model_voucher,
    )
    move_run(
        session,
        run,
        RunState.QUOTED,
        now=now,
        actor_id=actor.user_id,
        quote_id=quote.id,
        offer_id=offer.id,
        quoted_device_ms=device_ms,
        quote_valid_until=quote.valid_until,
    )
    return quote


def accept_run(
    session: Session, actor: Actor, run_id: str, *, quote_id: str, idempotency_key: str, now: datetime
) -> tuple[Run, Order]:
    """Accept the run's newest quote: money is held and training queued. The same key again returns the same order.

    Raises:
        NotFoundError, RunStateError: another quote than the newest, or the run went on.
        InsufficientFundsError, QuoteExpiredError, QuoteStaleError, IdempotencyConflictError: from orders.
    """
    run = find_run(session, actor, run_id, lock=True)
    if run.quote_id != quote_id:
        raise RunStateError(
            f"Quote '{quote_id}' is not the newest of run {run.id} ('{run.quote_id}'). Accept that one.",
            f"报价“{quote_id}”不是任务 {run.id} 的最新报价（“{run.quote_id}”）。请接受最新报价。",
            field="quote_id",
        )
    if run.order_id is None:
        _check_still_usable(session, actor, run)
    order = accept_quote(
        session, actor, quote_id, idempotency_key=idempotency_key, now=now, cost_centre=run.cost_centre
    )
    if run.order_id is None:
        _queue(session, run, order, actor_id=actor.user_id, now=now)
    return run, order


def queue_accepted_runs(session: Session, *, now: datetime) -> int:
    """Queue runs whose quote was accepted through the orders' own address; returns how many.

    A run takes the first of its orders; another quote of it that was accepted too is given back.
    """
    rows = session.execute(
        select(Run, Order, Quote)
        .join(Order, Order.subject == Run.id)
        .join(Quote, Quote.id == Order.quote_id)
        .where(Run.state == RunState.QUOTED, Order.state == OrderState.HELD)
        .order_by(Run.id, Order.accepted_at, Order.id)
    ).all()
    queued = 0
    for run, order, quote in rows:
        if run.state is not RunState.QUOTED:
            refund_order(session, order.id, fault=Fault.CANCEL, reason_code="superseded", now=now)
            continue
        run.quote_id, run.offer_id, run.quoted_device_ms = quote.id, quote.offer_id, quote.device_ms
        _queue(session, run, order, actor_id=order.accepted_by, now=now)
        queued += 1
    return queued


def _queue(session: Session, run: Run, order: Order, *, actor_id: str, now: datetime) -> None:
    move_run(
        session,
        run,
        RunState.QUEUED,
        now=now,
        actor_id=actor_id,
        order_id=order.id,
        accepted_at=order.accepted_at,
    )
    queue_training(session, run, now=now)


def _check_still_usable(session: Session, actor: Actor, run: Run) -> None:
    """Data deleted or a run cancelled after the quote must not be paid for."""
    find_usable_version(session, actor, run.dataset_version_id)
    if run.state is not RunState.QUOTED:
        raise RunStateError(
            f"Run {run.id} is '{run.state}'; only a quoted run can be accepted. Ask for a new quote.",
            f"任务 {run.id} 状态为“{run.state}”，只有已报价的任务可以接受。请重新报价。",
            state=str(run.state),
        )
