"""A model as its card shows it: words of the taxonomy, base, filing, price per million tokens.

It leaves finding models to `hub.catalogue` and drawing to the templates.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from hub.catalogue.search import Found
from hub.catalogue.service import price_of, read_taxonomy
from hub.catalogue.tables import Model
from hub.catalogue.taxonomy import Entry
from hub.prices.tables import Meter, PriceVersion
from hub.web import request_language

MILLION = 1_000_000
UNNAMED = "chain-"
"""Codes of industrial chains; those whose official name the operator has not filled in yet carry no information."""


@dataclass(frozen=True)
class Card:
    """One model of a list; `price_fen` is the price of a million completion tokens, None without a price."""

    found: Found
    base_name: str | None
    task: str
    scenario: str
    price_fen: int | None

    @property
    def model(self) -> Model:
        """The model."""
        return self.found.model


class Titles:
    """Titles of the taxonomy's codes in the request's language."""

    def __init__(self, axes: dict[str, list[Entry]]) -> None:
        chinese = request_language() == "zh"
        self.axes = {
            axis: {entry.code: entry.title_zh if chinese else entry.title_en for entry in entries}
            for axis, entries in axes.items()
        }

    def of(self, axis: str, code: str | None) -> str:
        """Return the title of a code, empty for none."""
        return "" if code is None else self.axes[axis].get(str(code), str(code))


def read_titles(session: Session) -> Titles:
    """Return the taxonomy's titles, the operator's own in place."""
    return Titles(read_taxonomy(session))


def make_cards(session: Session, items: Iterable[Found], now: datetime) -> list[Card]:
    """Return the cards of search results."""
    titles = read_titles(session)
    return [
        Card(
            found=item,
            base_name=_name_of_base(session, item.model),
            task=titles.of("task", item.model.task),
            scenario=titles.of("scenario", item.model.scenario),
            price_fen=price_of_million(price_of(session, item.version, now), Meter.COMPLETION),
        )
        for item in items
    ]


def price_of_million(price: PriceVersion | None, meter: Meter) -> int | None:
    """Return the price of a million tokens of a meter in whole fen, rounded up; None where there is none."""
    lines = {line.meter: line for line in price.lines} if price else {}
    line = lines.get(meter)
    return None if line is None else -(-line.amount_fen * MILLION // line.per_units)


def title_of(model: Model) -> str:
    """Return a model's title in the request's language."""
    return model.title_zh if request_language() == "zh" else model.title_en


def summary_of(model: Model) -> str:
    """Return a model's summary in the request's language, else in the other one."""
    chosen, other = model.summary_zh, model.summary_en
    if request_language() != "zh":
        chosen, other = other, chosen
    return chosen or other


def _name_of_base(session: Session, model: Model) -> str | None:
    return None if model.base_model_id is None else session.get_one(Model, model.base_model_id).name
