"""One line of a bill as the rules see it: who pays, who receives, what is counted, and the facts that rules ask for.

It leaves what a rule makes of these facts to `cover`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.prices.rules import Party
from hub.prices.service import split_parts
from hub.prices.tables import PriceSubject, PriceVersion


@dataclass(frozen=True)
class LineToCover:
    """One line: who pays, what is counted, its list price, and the facts that rules ask for.

    `filed_base` is None where there is no base model, as in a rental. `reserved` are fen of grants that earlier lines
    of the same bill take already. `derived` says of hosted calls that they go to a model made from a base, which is
    what roll-out means. `base_owner_id` receives a part of the fee without selling; `partner_ids` are the split's
    other parties.
    """

    organisation_id: str
    meter: str
    amount_fen: int
    filed_base: bool | None
    via_city_platform: bool
    seller_id: str | None = None
    reserved: Mapping[str, int] = field(default_factory=dict)
    derived: bool = True
    base_owner_id: str | None = None
    partner_ids: frozenset[str] = frozenset()

    @property
    def is_own_sale(self) -> bool:
        """Whether the payer sells to itself: it is the seller or a party of the split."""
        return self.organisation_id == self.seller_id or self.organisation_id in self.partner_ids


def describe_line(
    session: Session,
    price: PriceVersion,
    *,
    organisation_id: str,
    meter: str,
    amount_fen: int,
    filed_base: bool | None,
    via_city_platform: bool = False,
    reserved: Mapping[str, int] | None = None,
) -> LineToCover:
    """Return the line of a sale at a price: its parties and its subject follow from the price version."""
    parts = [part for part in split_parts(session, price.split_terms_id) or () if part.organisation_id]
    owners = [part.organisation_id for part in parts if part.party is Party.BASE_OWNER]
    partners = {part.organisation_id for part in parts if part.party is not Party.BASE_OWNER}
    return LineToCover(
        organisation_id=organisation_id,
        meter=meter,
        amount_fen=amount_fen,
        filed_base=filed_base,
        via_city_platform=via_city_platform,
        seller_id=price.organisation_id,
        reserved=reserved or {},
        derived=_prices_derived(session, price),
        base_owner_id=owners[0] if owners else None,
        partner_ids=frozenset(partner for partner in partners if partner),
    )


def _prices_derived(session: Session, price: PriceVersion) -> bool:
    """Say whether a price is for models made from a base; the version called has the last word when usage is rated."""
    if price.subject_kind is PriceSubject.VERSION:
        version = session.get(ModelVersion, price.subject)
        return version is not None and version.base_version_id is not None
    return price.subject_kind is not PriceSubject.BASE
