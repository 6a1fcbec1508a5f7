"""The annex of an event: the rows behind it that a bill is computed from, so that the chain covers them too.

Every row here is append-only in the database and complete when its event is written. It leaves what the rows mean to
their rooms. A topic that is not listed has no annex.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from hub.audit.content import ACCOUNT_FIELDS, plain
from hub.catalogue.tables import ModelVersion
from hub.claims.tables import Claim, ClaimLine, Redemption, RedemptionLine
from hub.compute.tables import MeterRecord, MeterState, Rental
from hub.events.tables import Event
from hub.filings.tables import Filing
from hub.ledger.rules import derive_id
from hub.ledger.tables import Account
from hub.metering.tables import Usage
from hub.orders.tables import BillVersion, CallCorrection, Charge, Order, Quote
from hub.orders.usage_tables import BillLine, RatedUsage, UsageTranche
from hub.prices.tables import PriceVersion, SplitTerms
from hub.vouchers.tables import Grant, Programme, RuleVersion

QUOTE_FIELDS = (
    "id",
    "organisation_id",
    "subject_kind",
    "subject",
    "base_version_id",
    "filed",
    "filing_id",
    "offer_id",
    "provider_organisation_id",
    "plan_digest",
    "list_fen",
    "voucher_fen",
    "self_paid_fen",
    "sha256",
    "created_at",
)
LINE_FIELDS = (
    "id",
    "position",
    "meter",
    "quantity",
    "price_version_id",
    "amount_fen",
    "per_units",
    "seller_organisation_id",
    "split_terms_id",
    "list_fen",
    "voucher_fen",
    "self_paid_fen",
)
COVER_FIELDS = ("programme", "rule_version_id", "grant_id", "share_num", "share_den", "amount_fen", "period_key")
ORDER_FIELDS = ("id", "organisation_id", "quote_id", "held_fen", "metered", "fault", "reason_code", "closed_at")
CORRECTION_FIELDS = (
    "id",
    "order_id",
    "bill_line_id",
    "number",
    "fault",
    "metered",
    "reason",
    "fee_fen",
    "voucher_fen",
    "cash_fen",
    "advanced_fen",
    "group_id",
    "proposed_by",
    "decided_by",
)
TIMED_CORRECTION_FIELDS = (*CORRECTION_FIELDS, "elapsed_fen")
"""Those of an event of version 2 and up: a link made before stands for the digest without the field."""
CORRECTED_CALL_FIELDS = (
    "request_id",
    "attempt",
    "tranche_id",
    "version_id",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "was_ufen",
    "cost_ufen",
    "ended_at",
    "late",
)
CHARGE_FIELDS = (
    "id",
    "version",
    "organisation_id",
    "month",
    "order_id",
    "bill_line_id",
    "tranche_id",
    "meter",
    "quantity",
    "price_version_id",
    "fee_fen",
    "voucher_fen",
    "cash_fen",
    "programme",
    "rule_version_id",
    "grant_id",
    "share_num",
    "share_den",
    "group_id",
    "charged_at",
)
PART_FIELDS = ("party", "organisation_id", "amount_fen")
RENTAL_FIELDS = ("id", "organisation_id", "provider_organisation_id", "allocated_at", "released_at")
READING_FIELDS = (
    "id",
    "seq",
    "device_id",
    "device_ms",
    "counted_ms",
    "observed_at",
    "received_at",
    "signature",
    "resolved_by",
)
TRANCHE_FIELDS = (
    "id",
    "organisation_id",
    "price_version_id",
    "month",
    "held_fen",
    "voucher_held_fen",
    "rule_version_id",
    "grant_id",
    "share_num",
    "share_den",
    "opened_at",
)
USAGE_FIELDS = (
    "request_id",
    "attempt",
    "allowance_id",
    "organisation_id",
    "key_id",
    "cost_centre",
    "version_id",
    "digest",
    "price_version_id",
    "replica_id",
    "replica_epoch",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "started_at",
    "ended_at",
    "gateway_id",
    "gateway_epoch",
)
RATED_FIELDS = ("bill_line_id", "subsidised", "cost_ufen")
BILL_LINE_FIELDS = ("id", "organisation_id", "price_version_id", "rule_version_id", "month", "share_num", "share_den")
RULE_FIELDS = (
    "id",
    "programme_id",
    "number",
    "effective_from_at",
    "effective_to_at",
    "tz",
    "basis_date",
    "source",
    "body",
    "sha256",
    "drafted_by",
    "approved_by",
)
PROGRAMME_FIELDS = ("id", "code", "fund_fen")
PRICE_FIELDS = ("id", "organisation_id", "subject_kind", "subject", "split_terms_id", "valid_from_at")
PRICE_LINE_FIELDS = ("meter", "amount_fen", "per_units")
GRANT_FIELDS = (
    "id",
    "organisation_id",
    "application_id",
    "programme_id",
    "rule_version_id",
    "account_id",
    "period_key",
    "amount_fen",
)
CLAIM_FIELDS = ("id", "organisation_id", "programme_id", "number", "period", "cut_at", "amount_fen", "drafted_by")
CLAIM_LINE_FIELDS = ("position", "organisation_id", "grant_id", "transfer_id", "amount_fen", "booked_at")
REDEMPTION_FIELDS = (
    "id",
    "organisation_id",
    "grant_id",
    "rule_version_id",
    "eligible_fen",
    "amount_fen",
    "requested_by",
    "created_at",
)
VERSION_FIELDS = ("id", "organisation_id", "base_version_id", "weights_digest", "artifact_digest")
FILING_FIELDS = ("id", "weights_digest", "number", "track", "filed_at", "valid_until")


def read_annex(session: Session, event: Event) -> dict[str, Any] | None:
    """Return the annex of an event, None for a topic without one."""
    read = _ANNEXES.get(event.topic)
    return read(session, event) if read else None


def _quote(session: Session, event: Event) -> dict[str, Any]:
    quote = session.get_one(Quote, event.subject)
    return plain(quote, QUOTE_FIELDS) | {
        "lines": [
            plain(line, LINE_FIELDS) | {"covers": [plain(cover, COVER_FIELDS) for cover in line.covers]}
            for line in quote.lines
        ]
    }


def _order(session: Session, event: Event) -> dict[str, Any]:
    order = session.get_one(Order, event.subject)
    # The charges of the closing itself; a later correction is another version with an event of its own.
    first = Charge.group_id == derive_id("grp", "close", order.id)
    read = _rental(session, order) if order.subject_kind == "rental" and order.closed_at else None
    return plain(order, ORDER_FIELDS) | {"charges": _list_charges(session, first), "rental": read}


def _rental(session: Session, order: Order) -> dict[str, Any] | None:
    """Return a rental with the readings that counted when its order was closed; later ones belong to corrections."""
    rental = session.get(Rental, order.subject)
    if rental is None:
        return None
    by_then = (MeterRecord.code.is_(None) & (MeterRecord.received_at <= order.closed_at)) | (
        (MeterRecord.state == MeterState.ACCEPTED) & (MeterRecord.resolved_at <= order.closed_at)
    )
    query = select(MeterRecord).where(MeterRecord.rental_id == rental.id, by_then).order_by(MeterRecord.seq)
    readings = [plain(record, READING_FIELDS) for record in session.scalars(query)]
    return plain(rental, RENTAL_FIELDS) | {"readings": readings}


def _correction(session: Session, event: Event) -> dict[str, Any]:
    version = session.get_one(BillVersion, event.payload["bill_version_id"])
    fields = TIMED_CORRECTION_FIELDS if event.schema_version > 1 else CORRECTION_FIELDS
    return plain(version, fields) | {"charges": _list_charges(session, Charge.group_id == version.group_id)}


def _line_correction(session: Session, event: Event) -> dict[str, Any]:
    """Return a correction of hosted calls with every call as it should be, and the line that they fall on."""
    version = session.get_one(BillVersion, event.payload["bill_version_id"])
    query = select(CallCorrection).where(CallCorrection.bill_version_id == version.id)
    calls = session.scalars(query.order_by(CallCorrection.request_id, CallCorrection.attempt))
    return _correction(session, event) | {
        "calls": [plain(call, CORRECTED_CALL_FIELDS) for call in calls],
        "bill_line": plain(session.get_one(BillLine, event.subject), BILL_LINE_FIELDS),
    }


def _tranche(session: Session, event: Event) -> dict[str, Any]:
    tranche = session.get_one(UsageTranche, event.subject)
    query = (
        select(Usage, RatedUsage)
        .join(RatedUsage, (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt))
        .where(RatedUsage.tranche_id == tranche.id)
        .order_by(Usage.request_id, Usage.attempt)
    )
    usage = [plain(used, USAGE_FIELDS) | plain(rated, RATED_FIELDS) for used, rated in session.execute(query)]
    wanted = sorted({record["bill_line_id"] for record in usage})
    lines = session.scalars(select(BillLine).where(BillLine.id.in_(wanted)).order_by(BillLine.id))
    return plain(tranche, TRANCHE_FIELDS) | {
        "usage": usage,
        "bill_lines": [plain(line, BILL_LINE_FIELDS) for line in lines],
        "charges": _list_charges(session, Charge.tranche_id == tranche.id),
    }


def _rule(session: Session, event: Event) -> dict[str, Any]:
    rule = session.get_one(RuleVersion, event.subject)
    programme = session.get_one(Programme, rule.programme_id)
    return plain(rule, RULE_FIELDS) | {"programme": plain(programme, PROGRAMME_FIELDS)}


def _price(session: Session, event: Event) -> dict[str, Any]:
    price = session.get_one(PriceVersion, event.subject)
    terms = session.get_one(SplitTerms, price.split_terms_id) if price.split_terms_id else None
    return plain(price, PRICE_FIELDS) | {
        "lines": [plain(line, PRICE_LINE_FIELDS) for line in price.lines],
        "parts": terms.parts if terms else None,
    }


def _grant(session: Session, event: Event) -> dict[str, Any]:
    grant = session.get_one(Grant, event.subject)
    account = session.get_one(Account, grant.account_id)
    return plain(grant, GRANT_FIELDS) | {"account": plain(account, ACCOUNT_FIELDS)}


def _claim(session: Session, event: Event) -> dict[str, Any]:
    claim = session.get_one(Claim, event.subject)
    lines = session.scalars(select(ClaimLine).where(ClaimLine.claim_id == claim.id).order_by(ClaimLine.position))
    return plain(claim, CLAIM_FIELDS) | {"lines": [plain(line, CLAIM_LINE_FIELDS) for line in lines]}


def _redemption(session: Session, event: Event) -> dict[str, Any]:
    row = session.get_one(Redemption, event.subject)
    query = select(RedemptionLine).where(RedemptionLine.redemption_id == row.id).order_by(RedemptionLine.charge_id)
    lines = [plain(line, ("charge_id", "fee_fen")) for line in session.scalars(query)]
    return plain(row, REDEMPTION_FIELDS) | {"lines": lines}


def _version(session: Session, event: Event) -> dict[str, Any] | None:
    version = session.get(ModelVersion, event.subject)
    return plain(version, VERSION_FIELDS) if version else None


def _filing(session: Session, event: Event) -> dict[str, Any]:
    return plain(session.get_one(Filing, event.subject), FILING_FIELDS)


def _list_charges(session: Session, which: ColumnElement[bool]) -> list[dict[str, Any]]:
    charges = session.scalars(select(Charge).where(which).order_by(Charge.id))
    return [plain(charge, CHARGE_FIELDS) | {"parts": _list_parts(charge)} for charge in charges]


def _list_parts(charge: Charge) -> list[dict[str, Any]]:
    parts = sorted(charge.parts, key=lambda part: (part.party, part.organisation_id))
    return [plain(part, PART_FIELDS) for part in parts]


_ANNEXES: dict[str, Callable[[Session, Event], dict[str, Any] | None]] = {
    "quote.made": _quote,
    "order.settled": _order,
    "order.refunded": _order,
    "bill.corrected": _correction,
    "bill_line.corrected": _line_correction,
    "tranche.resolved": _tranche,
    "rule.approved": _rule,
    "price.published": _price,
    "grant.awarded": _grant,
    "claim.drafted": _claim,
    "redemption.requested": _redemption,
    "version.registered": _version,
    "version.created": _version,
    "filing.recorded": _filing,
}
