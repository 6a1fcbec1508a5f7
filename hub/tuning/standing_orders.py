"""The order job: accepts a run's quote without asking again, on the terms that came with the run.

It leaves prices, cover and holds to `hub.orders` and the quote itself to `hub.tuning.ordering`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from finetune.spec import Fault
from hub.actor import Actor
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.errors import ConflictError, GuanmoError
from hub.jobs.service import Claim, finish_job, require_lock
from hub.jobs.work import DONE, Verdict, Work
from hub.orders.tables import Quote
from hub.organisations.people import find_user
from hub.tuning.endings import end_failed
from hub.tuning.ordering import accept_run, quote_run
from hub.tuning.states import RunState
from hub.tuning.tables import Run

DEFAULT_MAX_FEN = 10_000
"""Most own money, vouchers deducted, that a job may hold when its caller names no limit (our default)."""


class QuoteAboveLimitError(GuanmoError):
    """The cheapest quote needs more own money than the caller allowed."""

    code = "quote_above_limit"
    status = 402


def order_run(work: Work, claim: Claim) -> Verdict:
    """Quote every open offer, accept the cheapest within the terms; a refusal fails the run before any money moves."""
    now = work.clock()
    with work.sessions.write() as session:
        require_lock(session, claim)
        run = session.get_one(Run, claim.subject, with_for_update=True)
        if run.state is RunState.PLANNED and run.terms is not None:
            user = find_user(session, run.created_by)
            actor = Actor(user.id, run.organisation_id, user.role, user.language)
            try:
                with session.begin_nested():
                    accept_on_terms(session, actor, run, run.terms, now=now)
            except GuanmoError as refusal:
                session.refresh(run)
                end_failed(session, run, reason_code=refusal.code, fault=Fault.USER, message=refusal.en, now=now)
        finish_job(session, claim, now=now)
    return DONE


def accept_on_terms(session: Session, actor: Actor, run: Run, terms: Mapping[str, Any], *, now: datetime) -> Quote:
    """Accept the quote with the least own money (then the least list price) among the offers that the terms allow.

    Raises:
        QuoteAboveLimitError: even that one is above `max_fen`.
        ConflictError: no offer is open. InsufficientFundsError and the other refusals of quote and acceptance.
    """
    offer_id = terms.get("offer_id") or _find_cheapest(session, actor, run, now)
    quote = quote_run(session, actor, run.id, offer_id=offer_id, now=now)
    if quote.self_paid_fen > terms["max_fen"]:
        raise QuoteAboveLimitError(
            f"The cheapest quote needs {quote.self_paid_fen} fen of your own (list price {quote.list_fen}, vouchers "
            f"{quote.voucher_fen}); the limit is {terms['max_fen']}. "
            "Raise metadata.guanmo_max_fen, or choose fewer epochs.",
            f"最低报价需自付 {quote.self_paid_fen} 分（标价 {quote.list_fen}，券 {quote.voucher_fen}），"
            f"上限为 {terms['max_fen']} 分。请提高 guanmo_max_fen 或减少训练量。",
            field="metadata.guanmo_max_fen",
        )
    accept_run(session, actor, run.id, quote_id=quote.id, idempotency_key=f"standing:{run.id}", now=now)
    return quote


def _find_cheapest(session: Session, actor: Actor, run: Run, now: datetime) -> str:
    """Quote each offer inside a savepoint that is taken back, so that only the chosen quote stays."""
    found: list[tuple[int, int, str]] = []
    for offer, _ in list_offers(session, OfferFilter(), now=now):
        if offer.available <= 0:
            continue
        attempt = session.begin_nested()
        quote = quote_run(session, actor, run.id, offer_id=offer.id, now=now)
        found.append((quote.self_paid_fen, quote.list_fen, offer.id))
        attempt.rollback()
        session.refresh(run)  # the row was moved by a plain UPDATE, of whose end the session knows nothing
    if not found:
        raise ConflictError(
            "No compute offer is open now. Try again later, or ask your operator for offers.",
            "目前没有可用的算力报价，请稍后再试或联系运营方。",
        )
    return min(found)[2]
