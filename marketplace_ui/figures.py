"""Figures for the operator's desk, each counted from the records when it is shown.

It leaves judging them to people; targets are those of the city's plan for 2027.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import Model, ModelKind, ModelVersion, VersionState
from hub.columns import Flag
from hub.compute.rules import OfferFilter
from hub.compute.service import list_offers
from hub.ledger.tables import Account, Transfer
from hub.metering.tables import Usage
from hub.orders.tables import Charge, Order
from hub.organisations.tables import Organisation, OrganisationState
from hub.tuning.states import DELIVERED
from hub.tuning.tables import Run
from hub.vouchers.service import list_grants

TARGET_BASES, TARGET_VERTICAL, TARGET_TWO_HIGH = 3, 15, 200
DEPOSITS_SHOWN = 30
YES = literal(True, Flag())


@dataclass(frozen=True)
class Figures:
    """Counts and sums of everything so far; money in fen."""

    manufacturing_bases: int
    vertical: int
    two_high: int
    bases: int
    adapters: int
    organisations: int
    offers: int
    runs: int
    delivered: int
    orders: int
    charged_fen: int
    voucher_fen: int
    awarded_fen: int
    calls: int
    call_tokens: int


def count_records(session: Session, now: datetime) -> Figures:
    """Return the figures as the records stand now."""
    in_use = ModelVersion.state.in_((VersionState.LISTED, VersionState.PRIVATE, VersionState.IN_REVIEW))
    tokens = func.coalesce(func.sum(Usage.prompt_tokens + Usage.completion_tokens), 0)
    charged = func.coalesce(func.sum(Charge.fee_fen), 0)
    by_voucher = func.coalesce(func.sum(Charge.voucher_fen), 0)
    return Figures(
        manufacturing_bases=_count(session, Model.manufacturing_base == YES),
        vertical=_count(session, Model.kind == ModelKind.VERTICAL),
        two_high=_count(session, Model.two_high == YES),
        bases=_count(session, Model.kind == ModelKind.BASE),
        adapters=_count(session, ModelVersion.kind == ModelKind.ADAPTER, in_use),
        organisations=_count(session, Organisation.state == OrganisationState.VERIFIED),
        offers=len(list_offers(session, OfferFilter(), now=now)),
        runs=_count(session, Run.accepted_at.is_not(None)),
        delivered=_count(session, Run.state.in_(DELIVERED)),
        orders=_count(session, Order.id.is_not(None)),
        charged_fen=int(session.scalar(select(charged)) or 0),
        voucher_fen=int(session.scalar(select(by_voucher)) or 0),
        awarded_fen=sum(grant.awarded_fen for grant in list_grants(session, None)),
        calls=_count(session, Usage.request_id.is_not(None)),
        call_tokens=int(session.scalar(select(tokens)) or 0),
    )


def list_deposits(session: Session) -> list[tuple[Transfer, str]]:
    """Return the newest deposits booked with the firm's name; `business_id` is the bank's reference."""
    query = (
        select(Transfer, Organisation.name)
        .join(Account, Account.id == Transfer.credit_id)
        .join(Organisation, Organisation.id == Account.organisation_id)
        .where(Transfer.business_type == "deposit")
        .order_by(Transfer.seq.desc())
    )
    return [(transfer, name) for transfer, name in session.execute(query.limit(DEPOSITS_SHOWN))]


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(*conditions)) or 0
