"""Quotes, orders and charges as JSON values, for the API and the pages.

It leaves who may see them to the callers.
"""

from hub.orders.answers import AllowanceView, EarningView, OrderView, QuoteLineView, QuoteView
from hub.orders.parts import SELLER
from hub.orders.tables import Allowance, Charge, ChargePart, Order, Quote, QuoteLine
from hub.prices.rules import Party


def present_quote(quote: Quote) -> QuoteView:
    """Return a quote with its lines; amounts in fen."""
    return {
        "id": quote.id,
        "organisation_id": quote.organisation_id,
        "state": quote.state,
        "subject_kind": quote.subject_kind,
        "subject": quote.subject,
        "base_version_id": quote.base_version_id,
        "base_public_name": quote.base_public_name,
        "filed": quote.filed,
        "offer_id": quote.offer_id,
        "dataset_version_id": quote.dataset_version_id,
        "device_ms": quote.device_ms,
        "trained_tokens": quote.trained_tokens,
        "list_fen": quote.list_fen,
        "voucher_fen": quote.voucher_fen,
        "self_paid_fen": quote.self_paid_fen,
        "sha256": quote.sha256,
        "created_at": quote.created_at.isoformat(),
        "valid_until": quote.valid_until.isoformat(),
        "lines": [present_line(line) for line in quote.lines],
    }


def present_line(line: QuoteLine) -> QuoteLineView:
    """Return a quote line with what each voucher pays and why others do not."""
    return {
        "position": line.position,
        "meter": line.meter,
        "title": {"zh": line.title_zh, "en": line.title_en},
        "quantity": line.quantity,
        "price": {
            "price_version_id": line.price_version_id,
            "amount_fen": line.amount_fen,
            "per_units": line.per_units,
        },
        "list_fen": line.list_fen,
        "covers": [
            {
                "programme": cover.programme,
                "rule_version_id": cover.rule_version_id,
                "grant_id": cover.grant_id,
                "share": {"num": cover.share_num, "den": cover.share_den},
                "amount_fen": cover.amount_fen,
                "period": cover.period_key,
            }
            for cover in line.covers
        ],
        "not_covered_by": line.notes,
        "voucher_fen": line.voucher_fen,
        "self_paid_fen": line.self_paid_fen,
    }


def present_order(order: Order) -> OrderView:
    """Return an order; amounts in fen."""
    return {
        "id": order.id,
        "organisation_id": order.organisation_id,
        "quote_id": order.quote_id,
        "subject_kind": order.subject_kind,
        "subject": order.subject,
        "state": order.state,
        "cost_centre": order.cost_centre,
        "held_fen": order.held_fen,
        "charged_fen": order.charged_fen,
        "voucher_fen": order.voucher_fen,
        "self_paid_fen": order.cash_fen,
        "metered": order.metered,
        "fault": order.fault,
        "reason_code": order.reason_code,
        "accepted_at": order.accepted_at.isoformat(),
        "closed_at": order.closed_at.isoformat() if order.closed_at else None,
    }


def present_earning(part: ChargePart, charge: Charge) -> EarningView:
    """Return what an organisation received of a charge, without who paid it."""
    return {
        "charge_id": charge.id,
        "party": SELLER if part.party == SELLER else Party(part.party),
        "amount_fen": part.amount_fen,
        "fee_fen": charge.fee_fen,
        "title": {"zh": charge.title_zh, "en": charge.title_en},
        "meter": charge.meter,
        "price_version_id": charge.price_version_id,
        "month": charge.month,
        "charged_at": charge.charged_at.isoformat(),
    }


def present_allowance(allowance: Allowance) -> AllowanceView:
    """Return a slice of a firm's money; amounts in µfen."""
    return {
        "id": allowance.id,
        "organisation_id": allowance.organisation_id,
        "gateway_id": allowance.gateway_id,
        "state": allowance.state,
        "amount_ufen": allowance.amount_ufen,
        "spent_ufen": allowance.spent_ufen,
        "granted_at": allowance.granted_at.isoformat(),
        "expires_at": allowance.expires_at.isoformat(),
        "closed_at": allowance.closed_at.isoformat() if allowance.closed_at else None,
    }
