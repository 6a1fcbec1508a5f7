"""Which price version a hosted call of a version falls under.

It leaves the prices to `hub.prices` and the arithmetic to `serving.contract`.
"""

from datetime import datetime

from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.prices.service import default_price, find_price
from hub.prices.tables import PriceSubject


def find_call_price(session: Session, version: ModelVersion, now: datetime) -> str:
    """Return the price version: the listing's own, else the version's, else the platform's for its kind.

    Raises:
        NotFoundError: the operator has published no price for this kind yet.
    """
    if version.price_version_id is not None:
        return version.price_version_id
    own = find_price(session, PriceSubject.VERSION, version.id, now)
    if own is not None:
        return own.id
    kind = PriceSubject.BASE if version.base_version_id is None else PriceSubject.ADAPTER
    return default_price(session, kind, now).id
