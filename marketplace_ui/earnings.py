"""What an organisation sold: its parts of settled charges by month and item. It leaves settling to `hub.orders`."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import Model, ModelVersion
from hub.orders.tables import Charge, ChargePart
from hub.prices.tables import PriceVersion
from hub.web import request_language

MAX_ROWS = 200


@dataclass(frozen=True)
class Earning:
    """One item sold in one Shanghai month; amounts in fen. `own_name` says whether the item is a name of its owner."""

    month: str
    item: str
    own_name: bool
    sold_fen: int
    earned_fen: int


def list_earnings(session: Session, organisation_id: str) -> list[Earning]:
    """Return at most 200 rows, newest month first."""
    title = Charge.title_zh if request_language() == "zh" else Charge.title_en
    query = (
        select(
            Charge.month,
            Model.name,
            ModelVersion.number,
            func.max(title),
            func.sum(Charge.fee_fen),
            func.sum(ChargePart.amount_fen),
        )
        .join(ChargePart, ChargePart.charge_id == Charge.id)
        .join(PriceVersion, PriceVersion.id == Charge.price_version_id)
        .outerjoin(ModelVersion, ModelVersion.id == PriceVersion.subject)
        .outerjoin(Model, Model.id == ModelVersion.model_id)
        .where(ChargePart.organisation_id == organisation_id)
        .group_by(Charge.month, PriceVersion.subject, Model.name, ModelVersion.number)
        .order_by(Charge.month.desc(), PriceVersion.subject)
        .limit(MAX_ROWS)
    )
    return [
        Earning(month, f"{name}@{number}" if name else text, bool(name), int(sold), int(earned))
        for month, name, number, text, sold, earned in session.execute(query)
    ]
