"""What a call of a version costs the firm that looks at it: list price, voucher's share, own money.

It leaves the rules of cover to `hub.vouchers` and the bill itself to `hub.orders`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.prices.tables import CALL_METERS, Meter, PriceLine, PriceVersion
from hub.vouchers.service import LineToCover, describe_line, find_cover, find_programme, rule_of_day
from marketplace_ui.cards import MILLION
from marketplace_ui.layout import translate


@dataclass(frozen=True)
class PriceRow:
    """A million tokens of one meter, in fen; `voucher_fen` is None for a stranger, whose vouchers are unknown."""

    meter: Meter
    list_fen: int
    voucher_fen: int | None

    @property
    def own_fen(self) -> int:
        """What the firm pays itself."""
        return self.list_fen - (self.voucher_fen or 0)


@dataclass(frozen=True)
class PriceView:
    """The price panel. `programme` and `rule_number` name what pays; `reasons` say why others do not."""

    rows: list[PriceRow]
    programme: str
    rule_number: int
    share: tuple[int, int] | None
    reasons: list[str]


def view_price(session: Session, actor: Actor | None, price: PriceVersion, *, filed: bool, now: datetime) -> PriceView:
    """Return the price panel of calls at a price; `filed` says whether the root base stands valid now."""
    rows, reasons, programme, number, share = [], dict[str, None](), "", 0, None
    for line in sorted(price.lines, key=lambda line: CALL_METERS.index(line.meter)):
        amount = -(-line.amount_fen * MILLION // line.per_units)
        if actor is None:
            rows.append(PriceRow(line.meter, amount, None))
            continue
        answer = find_cover(session, _line_to_cover(session, actor, line, price, amount_fen=amount, filed=filed), now)
        cover = answer.covers[0] if answer.covers else None
        rows.append(PriceRow(line.meter, amount, cover.amount_fen if cover else 0))
        reasons.update(dict.fromkeys(translate(item.zh, item.en) for item in answer.refusals))
        if cover is not None:
            found = find_programme(session, cover.programme)
            rule = rule_of_day(session, found.id, now)
            programme, share = translate(found.title_zh, found.title_en), (cover.share_num, cover.share_den)
            number = rule.number if rule else 0
    return PriceView(rows, programme, number, share, [] if programme else list(reasons))


def _line_to_cover(
    session: Session, actor: Actor, line: PriceLine, price: PriceVersion, *, amount_fen: int, filed: bool
) -> LineToCover:
    return describe_line(
        session,
        price,
        organisation_id=actor.organisation_id,
        meter=line.meter,
        amount_fen=amount_fen,
        filed_base=filed,
    )
