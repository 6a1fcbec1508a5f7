"""Usage records arrive many times, shuffled and at once: each is stored once, on SQLite and on PostgreSQL."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select, text

from hub.clock import to_us
from hub.database import Sessions, open_sessions
from hub.metering.service import accept_usage
from hub.metering.tables import RejectedUsage, Usage
from hub.tables import import_tables, metadata
from serving import contract

NOW = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def meter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sessions]:
    """The tables of metering alone, for the same test on both databases."""
    import_tables()
    url = f"sqlite:///{tmp_path / 'hub.sqlite3'}"
    if request.param == "postgresql":
        template = request.getfixturevalue("postgresql")
        name = f"meter_{abs(hash(str(tmp_path)))}"
        admin = create_engine(template.format(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        url = template.format(database=name)
    opened = open_sessions(url)
    names = ("usage_records", "rejected_usage", "gateway_streams", "watched_outcomes")
    with opened.engine.begin() as connection:
        metadata.create_all(connection, tables=[metadata.tables[name] for name in names])
    yield opened
    opened.close()


def make(number: int, **changes: object) -> contract.UsageRecord:
    at = to_us(NOW) + number
    record = contract.UsageRecord(
        request_id=f"req-{number:04d}",
        attempt=0,
        allowance_id="alw_1",
        organisation_id="org_1",
        key_id="key_1",
        cost_centre="二车间" if number % 2 else None,
        version_id="ver_1",
        digest="d" * 64,
        price_version_id="prc_1",
        replica_id="rep_1",
        replica_epoch=1,
        prompt_tokens=number,
        cached_tokens=0,
        completion_tokens=2 * number,
        started_at=at,
        ended_at=at,
        end_reason=contract.EndReason.STOP,
        status=contract.UsageStatus.COMPLETE,
        disputed=number % 3 == 0,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def send(meter: Sessions, records: list[contract.UsageRecord], first_seq: int = 1) -> contract.UsageReply:
    with meter.write() as session:
        return accept_usage(session, contract.UsageBatch("gw", 1, first_seq, tuple(records)), NOW)


def test_each_record_counts_once_however_often_it_comes(meter: Sessions) -> None:
    records = [make(number) for number in range(400)]
    arriving = records * 3
    random.Random(7).shuffle(arriving)
    batches = [arriving[start : start + 100] for start in range(0, len(arriving), 100)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda batch: send(meter, batch), batches))
    assert [reply.rejected for reply in replies] == [()] * len(batches)
    with meter.read() as session:
        stored = session.scalars(select(Usage).order_by(Usage.request_id)).all()
    assert len(stored) == 400
    for row, record in zip(stored, records, strict=True):
        assert {name: getattr(row, name) for name in ("prompt_tokens", "completion_tokens", "cost_centre")} == {
            name: getattr(record, name) for name in ("prompt_tokens", "completion_tokens", "cost_centre")
        }
        assert (to_us(row.ended_at), row.disputed, row.status, row.end_reason) == (
            record.ended_at,
            record.disputed,
            record.status,
            record.end_reason,
        )


def test_a_repeat_with_other_counts_is_refused_and_kept_apart(meter: Sessions) -> None:
    send(meter, [make(1), make(2)])
    reply = send(meter, [make(1), make(2, completion_tokens=99), make(3), make(3, prompt_tokens=4)], first_seq=3)
    assert [(item.seq, item.code) for item in reply.rejected] == [(4, "conflicting_repeat"), (6, "conflicting_repeat")]
    with meter.read() as session:
        assert session.scalar(select(func.sum(Usage.completion_tokens))) == 2 + 4 + 6
        assert session.scalar(select(func.count()).select_from(RejectedUsage)) == 2
