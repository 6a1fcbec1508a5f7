"""Builds the lines of a quote: list price by a pinned price version, and what one voucher pays of each.

It leaves which lines a quote has to `quotes` and which voucher pays to `hub.vouchers`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.ids import new_id
from hub.orders.tables import Quote, QuoteCover, QuoteLine
from hub.prices.rules import fee_fen
from hub.prices.tables import Meter, PriceVersion
from hub.vouchers.service import CoverAnswer, describe_line, find_cover


@dataclass(frozen=True)
class WantedLine:
    """At most `quantity` of a meter at a price; `via_city_platform` is a fact that voucher rules ask for."""

    meter: Meter
    quantity: int
    price: PriceVersion
    title_zh: str
    title_en: str
    via_city_platform: bool


def build_lines(session: Session, quote: Quote, wanted: Sequence[WantedLine], now: datetime) -> list[QuoteLine]:
    """Return the lines of a quote; what one line takes of a grant, the next one cannot."""
    lines: list[QuoteLine] = []
    reserved: dict[str, int] = {}
    for item in wanted:
        price = next(line for line in item.price.lines if line.meter is item.meter)
        line = QuoteLine(
            id=new_id("qln"),
            organisation_id=quote.organisation_id,
            quote_id=quote.id,
            position=len(lines),
            meter=item.meter,
            title_zh=item.title_zh,
            title_en=item.title_en,
            quantity=item.quantity,
            price_version_id=item.price.id,
            amount_fen=price.amount_fen,
            per_units=price.per_units,
            seller_organisation_id=item.price.organisation_id,
            split_terms_id=item.price.split_terms_id,
            list_fen=fee_fen(item.quantity, price.amount_fen, price.per_units),
        )
        _cover_line(line, _ask_cover(session, quote, item, line, reserved=reserved, now=now))
        for cover in line.covers:
            reserved[cover.grant_id] = reserved.get(cover.grant_id, 0) + cover.amount_fen
        lines.append(line)
    return lines


def _ask_cover(
    session: Session,
    quote: Quote,
    item: WantedLine,
    line: QuoteLine,
    *,
    reserved: Mapping[str, int],
    now: datetime,
) -> CoverAnswer:
    asked = describe_line(
        session,
        item.price,
        organisation_id=quote.organisation_id,
        meter=item.meter,
        amount_fen=line.list_fen,
        filed_base=None if quote.base_version_id is None else quote.filed,
        via_city_platform=item.via_city_platform,
        reserved=reserved,
    )
    return find_cover(session, asked, now)


def _cover_line(line: QuoteLine, answer: CoverAnswer) -> None:
    line.covers = [
        QuoteCover(id=new_id("qcv"), organisation_id=line.organisation_id, quote_line_id=line.id, **vars(cover))
        for cover in answer.covers
    ]
    line.voucher_fen = sum(cover.amount_fen for cover in answer.covers)
    line.self_paid_fen = line.list_fen - line.voucher_fen
    line.notes = [vars(refusal) for refusal in answer.refusals]
