"""Who receives a sale: the accounts of sellers, pool and platform, and the movements that hand a fee out.

It leaves shares to `hub.prices` and their arithmetic to `rules`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from hub.ledger.movements import move
from hub.ledger.rules import Movement, derive_id
from hub.ledger.service import open_account
from hub.ledger.tables import PLATFORM, Account, AccountKind
from hub.orders.rules import split_fee
from hub.orders.tables import ChargePart
from hub.organisations.rules import OrganisationKind
from hub.organisations.service import find_organisation
from hub.prices.rules import Party, SplitPart
from hub.prices.service import split_parts

SELLER: Final = "seller"
"""Party of a sale without split terms: the seller takes all of it."""


@dataclass(frozen=True)
class Given:
    """What one party receives of a fee, in fen; `organisation_id` is empty for the platform's own books."""

    party: str
    organisation_id: str
    amount_fen: int


def give_out(
    session: Session,
    fee_fen: int,
    *,
    seller_id: str,
    split_terms_id: str | None,
    payer_id: str | None = None,
    before_fen: int = 0,
    received: dict[tuple[str, str], int] | None = None,
) -> list[Given]:
    """Return what every party receives of a fee; the amounts add up to it exactly.

    `before_fen` and `received` carry what was sold and given out on the same line before. Where `payer_id` is given,
    the payer receives nothing of its own money: its part is the platform's (ADR 11).
    """
    terms = split_parts(session, split_terms_id)
    if terms is not None:
        terms = [part for part in terms if payer_id is None or part.organisation_id != payer_id]
    elif seller_id == payer_id:
        return [Given(Party.PLATFORM, "", fee_fen)]
    else:
        return [Given(SELLER, seller_id, fee_fen)]
    had = [(received or {}).get((part.party, part.organisation_id or ""), 0) for part in terms]
    amounts = split_fee(fee_fen, before_fen=before_fen, received=had, parts=terms)
    given = _list_given(terms, amounts)
    return [*given, Given(Party.PLATFORM, "", fee_fen - sum(amounts))]


def receiving_account(session: Session, given: Given, now: datetime) -> Account:
    """Return the account that a party is paid into; the operator's own sales are platform income."""
    if given.party == Party.POOL:
        return open_account(session, organisation_id=PLATFORM, kind=AccountKind.POOL_INCOME, now=now)
    if given.party == Party.PLATFORM or _is_operator(session, given.organisation_id):
        return open_account(session, organisation_id=PLATFORM, kind=AccountKind.PLATFORM_INCOME, now=now)
    return open_account(session, organisation_id=given.organisation_id, kind=AccountKind.PAYABLE, now=now)


def payout_movements(
    session: Session, clearing: Account, shares: Sequence[Given], *, key: str, now: datetime
) -> list[Movement]:
    """Return the movements that hand a fee out of clearing; nothing for parties that receive nothing."""
    return [
        move(
            derive_id("tra", "part", key, given.party, given.organisation_id),
            clearing,
            receiving_account(session, given, now),
            amount_fen=given.amount_fen,
            code=f"income_{given.party}",
        )
        for given in shares
        if given.amount_fen
    ]


def build_parts(charge_id: str, shares: Sequence[Given]) -> list[ChargePart]:
    """Return the rows that show a charge's parts, those of nothing left out."""
    return [
        ChargePart(
            charge_id=charge_id,
            party=given.party,
            organisation_id=given.organisation_id,
            amount_fen=given.amount_fen,
        )
        for given in shares
        if given.amount_fen
    ]


def _list_given(terms: Sequence[SplitPart], amounts: Sequence[int]) -> list[Given]:
    return [
        Given(part.party, part.organisation_id or "", amount)
        for part, amount in zip(terms, amounts, strict=True)
        if part.party is not Party.PLATFORM
    ]


def _is_operator(session: Session, organisation_id: str) -> bool:
    return find_organisation(session, organisation_id).kind is OrganisationKind.OPERATOR
