"""What an organisation called in a month, summed by day, key and model: tokens and, where rated, cost.

It leaves counting to the gateway, rating and bills to `hub.orders`.
"""

import csv
import io
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, type_coerce
from sqlalchemy.orm import Session

from hub.catalogue.tables import Model, ModelVersion
from hub.clock import from_us
from hub.columns import Whole
from hub.ledger.periods import SHANGHAI
from hub.metering.tables import Usage
from hub.orders.usage_tables import RatedUsage
from hub.organisations.tables import ApiKey
from hub.reports.comma_separated import guard_cell

COLUMNS = ("day", "key", "model", "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "rated_cny")
DAY_US = 86_400_000_000
UFEN_PER_YUAN = 100_000_000
SHANGHAI_US = 8 * 3_600_000_000
MAX_ROWS = 200


@dataclass(frozen=True)
class UsageRow:
    """One day, key and model; `cost_ufen` counts the calls that were rated so far."""

    day: datetime
    key: str
    model: str
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_ufen: int


def list_usage_by_day(
    session: Session, organisation_id: str, start: datetime, end: datetime, *, most: int | None = MAX_ROWS
) -> list[UsageRow]:
    """Return at most `most` rows of [start, end), newest day first; all of them for None."""
    # The bare operator divides whole numbers downwards on both databases; SQLAlchemy's own `/` would not.
    day = (type_coerce(Usage.ended_at, Whole) + SHANGHAI_US).op("/", precedence=8)(DAY_US).label("day")
    query = (
        select(
            day,
            Usage.key_id,
            ApiKey.name,
            Model.name,
            ModelVersion.number,
            func.count(),
            func.sum(Usage.prompt_tokens),
            func.sum(Usage.cached_tokens),
            func.sum(Usage.completion_tokens),
            func.coalesce(func.sum(RatedUsage.cost_ufen), 0),
        )
        .join(ModelVersion, ModelVersion.id == Usage.version_id)
        .join(Model, Model.id == ModelVersion.model_id)
        .outerjoin(ApiKey, ApiKey.id == Usage.key_id)
        .outerjoin(RatedUsage, (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt))
        .where(Usage.organisation_id == organisation_id, Usage.ended_at >= start, Usage.ended_at < end)
        .group_by("day", Usage.key_id, ApiKey.name, Model.name, ModelVersion.number)
        .order_by("day", Usage.key_id)
    )
    rows = session.execute(query).all()
    return [
        UsageRow(
            day=from_us(int(row[0]) * DAY_US) + timedelta(hours=12),
            key=row[2] or row[1],
            model=f"{row[3]}@{row[4]}",
            calls=row[5],
            prompt_tokens=int(row[6]),
            cached_tokens=int(row[7]),
            completion_tokens=int(row[8]),
            cost_ufen=int(row[9]),
        )
        for row in reversed(rows)
    ][:most]


def write_usage_csv(rows: list[UsageRow]) -> bytes:
    """Return rows as CSV in UTF-8 with a byte order mark; days are those of Shanghai, money is yuan."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (row.calls, row.prompt_tokens, row.cached_tokens, row.completion_tokens)
        day = row.day.astimezone(SHANGHAI).date().isoformat()
        yuan, rest = divmod(row.cost_ufen, UFEN_PER_YUAN)
        writer.writerow([day, guard_cell(row.key), guard_cell(row.model), *numbers, f"{yuan}.{rest:08d}"])
    return ("\ufeff" + out.getvalue()).encode()
