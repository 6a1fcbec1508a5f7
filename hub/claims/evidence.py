"""What stands behind one transfer of voucher money: charges, order, meter, sellers, filing.

It leaves files to `pack` and whether all of it suffices to `candidates`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.catalogue.versions import root_base
from hub.claims.tables import Redemption, RedemptionLine
from hub.compute.tables import MeterRecord, MeterState
from hub.filings.service import standing_of
from hub.filings.tables import Filing
from hub.ledger.tables import Account, AccountKind, Transfer
from hub.metering.tables import Usage
from hub.orders.placing import VOUCHER, hold_id
from hub.orders.tables import BillVersion, CallCorrection, Charge, Order, Quote, RatedUsage

REDEMPTION = "redemption"
"""`business_type` of the transfer that pays a redemption."""


def list_charges(session: Session, transfer: Transfer, grant_id: str) -> list[Charge]:
    """Return the charges that a transfer of a grant's money belongs to, in order of their ids.

    A top-up, or what a correction of calls gave back, belongs to every charge of its bill line so far, a redemption to
    the charges it redeems, and any other to those charges of its group that the grant paid a part of.
    """
    query = select(Charge)
    if transfer.business_type == "bill_line":
        # Nothing that came later: a pack built again has the same bytes.
        earlier = Charge.charged_at <= transfer.recorded_at
        query = query.where(Charge.bill_line_id == transfer.business_id, earlier)
    elif transfer.business_type == REDEMPTION:
        redeemed = select(RedemptionLine.charge_id).where(RedemptionLine.redemption_id == transfer.business_id)
        query = query.where(Charge.id.in_(redeemed))
    else:
        query = query.where(Charge.group_id == transfer.group_id, Charge.grant_id == grant_id)
    found = list(session.scalars(query.order_by(Charge.id)))
    own = [charge for charge in found if _is_hold_of(session, transfer, charge)]
    return own or found


def list_funds(session: Session, programme_id: str) -> list[str]:
    """Return the account of a programme's fund, as a list that a query can take; empty before the first release."""
    query = select(Account.id).where(Account.kind == AccountKind.PROGRAMME_FUND, Account.subject == programme_id)
    return list(session.scalars(query))


def list_sellers(session: Session, transfer: Transfer, grant_id: str) -> list[str]:
    """Return the organisations that received a part of what a transfer paid for."""
    parts = [part for charge in list_charges(session, transfer, grant_id) for part in charge.parts]
    return sorted({part.organisation_id for part in parts if part.organisation_id})


def describe_charge(session: Session, charge: Charge) -> dict[str, Any]:
    """Return a charge with its meter evidence as JSON values; nothing in it changes later."""
    found = {
        "id": charge.id,
        "version": charge.version,
        "organisation_id": charge.organisation_id,
        "month": charge.month,
        "meter": charge.meter,
        "title": {"zh": charge.title_zh, "en": charge.title_en},
        "quantity": charge.quantity,
        "price_version_id": charge.price_version_id,
        "amount_fen": charge.amount_fen,
        "per_units": charge.per_units,
        "fee_fen": charge.fee_fen,
        "voucher_fen": charge.voucher_fen,
        "cash_fen": charge.cash_fen,
        "share": {"num": charge.share_num, "den": charge.share_den},
        "rule_version_id": charge.rule_version_id,
        "grant_id": charge.grant_id,
        "ledger_group": charge.group_id,
        "charged_at": charge.charged_at.isoformat(),
        "parts": [
            {"party": part.party, "organisation_id": part.organisation_id, "amount_fen": part.amount_fen}
            for part in sorted(charge.parts, key=lambda part: (part.party, part.organisation_id))
        ],
    }
    return {**found, **(_describe_order(session, charge) if charge.order_id else _describe_calls(session, charge))}


def list_filings(session: Session, charges: Sequence[Charge]) -> list[Filing]:
    """Return the filings that charges relied on: the pinned one of an order, those at the first and last call."""
    found: dict[str, Filing] = {}
    for charge in charges:
        for filing in _filings_of(session, charge):
            found[filing.id] = filing
    return [found[key] for key in sorted(found)]


def describe_redemption(session: Session, transfer: Transfer) -> dict[str, Any] | None:
    """Return the redemption that a transfer paid, None for any other transfer."""
    if transfer.business_type != REDEMPTION:
        return None
    row = session.get_one(Redemption, transfer.business_id)
    return {
        "id": row.id,
        "eligible_fen": row.eligible_fen,
        "amount_fen": row.amount_fen,
        "requested_by": row.requested_by,
        "checked_by": row.checked_by,
        "approved_by": row.approved_by,
        "created_at": row.created_at.isoformat(),
    }


def _is_hold_of(session: Session, transfer: Transfer, charge: Charge) -> bool:
    """Say whether a transfer resolved the hold of exactly this charge's line: an order has one hold for each line."""
    if transfer.pending_id is None or charge.order_id is None:
        return False
    order = session.get_one(Order, charge.order_id)
    lines = [line for line in session.get_one(Quote, order.quote_id).lines if line.meter == charge.meter]
    return any(hold_id(order.id, line, VOUCHER) == transfer.pending_id for line in lines)


def _describe_order(session: Session, charge: Charge) -> dict[str, Any]:
    order = session.get_one(Order, charge.order_id)
    quote = session.get_one(Quote, order.quote_id)
    return {
        "order": {
            "id": order.id,
            "subject": order.subject,
            "accepted_at": order.accepted_at.isoformat(),
            "quote_id": quote.id,
            "quote_sha256": quote.sha256,
            "base": quote.base_public_name,
            "base_version_id": quote.base_version_id,
            "filing_id": quote.filing_id,
            "offer_id": quote.offer_id,
            "plan_digest": quote.plan_digest,
            "quoted": {"device_ms": quote.device_ms, "trained_tokens": quote.trained_tokens},
        },
        "device_reports": [_describe_report(row) for row in _list_reports(session, order, charge)],
    }


def _list_reports(session: Session, order: Order, charge: Charge) -> list[MeterRecord]:
    """Return the signed reports of device time that counted when a rental's charge was made; none for a fine-tune."""
    query = select(MeterRecord).where(
        MeterRecord.rental_id == order.subject,
        MeterRecord.state == MeterState.ACCEPTED,
        MeterRecord.received_at <= charge.charged_at,
        MeterRecord.resolved_at.is_(None) | (MeterRecord.resolved_at <= charge.charged_at),
    )
    return list(session.scalars(query.order_by(MeterRecord.seq, MeterRecord.id)))


def _describe_report(row: MeterRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "seq": row.seq,
        "device": row.device_id,
        "device_ms": row.device_ms,
        "counted_ms": row.counted_ms,
        "observed_at": row.observed_at.isoformat(),
        "received_at": row.received_at.isoformat(),
        "signature": row.signature,
    }


def _describe_calls(session: Session, charge: Charge) -> dict[str, Any]:
    """Return every rated call of a charge's tranche on its line; the records carry the tokens."""
    return {
        "bill_line_id": charge.bill_line_id,
        "tranche_id": charge.tranche_id,
        "corrected_calls": _list_corrected(session, charge),
        "calls": [
            {
                "request_id": usage.request_id,
                "attempt": usage.attempt,
                "version_id": usage.version_id,
                "prompt_tokens": usage.prompt_tokens,
                "cached_tokens": usage.cached_tokens,
                "completion_tokens": usage.completion_tokens,
                "started_at": usage.started_at.isoformat(),
                "ended_at": usage.ended_at.isoformat(),
                "gateway_id": usage.gateway_id,
                "seq": usage.seq,
                "cost_ufen": rated.cost_ufen,
            }
            for usage, rated in _list_calls(session, charge)
        ],
    }


def _list_corrected(session: Session, charge: Charge) -> list[dict[str, Any]]:
    """Return the calls that a correction changed, with its reason; none for a first bill."""
    query = (
        select(CallCorrection, BillVersion.reason)
        .join(BillVersion, BillVersion.id == CallCorrection.bill_version_id)
        .where(BillVersion.bill_line_id == charge.bill_line_id, BillVersion.number == charge.version)
        .order_by(CallCorrection.request_id, CallCorrection.attempt)
    )
    return [
        {
            "request_id": call.request_id,
            "attempt": call.attempt,
            "prompt_tokens": call.prompt_tokens,
            "cached_tokens": call.cached_tokens,
            "completion_tokens": call.completion_tokens,
            "was_ufen": call.was_ufen,
            "cost_ufen": call.cost_ufen,
            "reason": reason,
        }
        for call, reason in session.execute(query)
    ]


def _list_calls(session: Session, charge: Charge) -> list[tuple[Usage, RatedUsage]]:
    rows = session.execute(
        select(Usage, RatedUsage)
        .join(RatedUsage, (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt))
        .where(RatedUsage.bill_line_id == charge.bill_line_id, RatedUsage.tranche_id == charge.tranche_id)
        .order_by(Usage.request_id, Usage.attempt)
    )
    return [(usage, rated) for usage, rated in rows]


def _filings_of(session: Session, charge: Charge) -> list[Filing]:
    if charge.order_id:
        order = session.get_one(Order, charge.order_id)
        quote = session.get_one(Quote, order.quote_id)
        if quote.filing_id is not None:
            return [session.get_one(Filing, quote.filing_id)]
        if not quote.filed or quote.base_version_id is None:
            return []
        return _filings_at(session, quote.base_version_id, [order.accepted_at])
    moments: dict[str, list[datetime]] = {}
    for usage, _ in _list_calls(session, charge):
        moments.setdefault(usage.version_id, []).append(usage.ended_at)
    found = []
    for version_id, ended in sorted(moments.items()):
        found += _filings_at(session, version_id, [min(ended), max(ended)])
    return found


def _filings_at(session: Session, version_id: str, moments: Sequence[datetime]) -> list[Filing]:
    version = session.get(ModelVersion, version_id)
    if version is None:
        return []
    weights = root_base(session, version).weights_digest
    standings = [standing_of(session, weights, moment) for moment in moments]
    return [standing.filing for standing in standings if standing.filing]
