"""Usage records: the hub's deduplicated ingest against a plain COPY of the same rows and against single commits.

It leaves transfers to `posting`.
"""

from collections.abc import Callable

import psycopg

from benchmarks.ledger.posting import NOW
from hub.clock import to_us
from hub.database import Sessions
from hub.ids import new_id
from hub.metering.service import accept_usage
from hub.metering.tables import Usage
from serving import contract

BATCH = 500
Step = Callable[[], int]
_RECORD = contract.UsageRecord(
    request_id="",
    attempt=0,
    allowance_id="alw_1",
    organisation_id="org_1",
    key_id="key_1",
    cost_centre=None,
    version_id="ver_1",
    digest="d" * 64,
    price_version_id="prv_1",
    replica_id="rep_1",
    replica_epoch=1,
    prompt_tokens=120,
    cached_tokens=20,
    completion_tokens=60,
    started_at=to_us(NOW),
    ended_at=to_us(NOW),
    end_reason=contract.EndReason.STOP,
    status=contract.UsageStatus.COMPLETE,
    disputed=False,
)
_COLUMNS = [column.name for column in Usage.__table__.columns]


def accept_batches(sessions: Sessions, seed: int) -> Step:
    """Accept a batch of 500 new records in each transaction, as from one gateway."""
    gateway, turn = new_id("gw"), 0

    def step() -> int:
        nonlocal turn
        turn += 1
        batch = contract.UsageBatch(gateway, 1, turn * BATCH, build_records(BATCH))
        with sessions.write() as session:
            accept_usage(session, batch, NOW)
        return BATCH

    return step


def copy_batches(sessions: Sessions, seed: int) -> Step:
    """COPY 500 records in each transaction into a table of the same columns without any key."""
    connection = open_plain(sessions)
    # IF NOT EXISTS alone does not hold where four processes ask at once.
    connection.execute("SELECT pg_advisory_xact_lock(1)")
    connection.execute("CREATE TABLE IF NOT EXISTS plain_usage (LIKE usage_records)")
    connection.commit()
    statement = f"COPY plain_usage ({', '.join(_COLUMNS)}) FROM STDIN"

    def step() -> int:
        rows = [list_values(record) for record in build_records(BATCH)]
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
        connection.commit()
        return BATCH

    return step


def insert_singly(sessions: Sessions, seed: int) -> Step:
    """Insert one record in each transaction, deduplicated by the primary key."""
    connection = open_plain(sessions)
    places = ", ".join(["%s"] * len(_COLUMNS))
    statement = f"INSERT INTO usage_records ({', '.join(_COLUMNS)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608

    def step() -> int:
        connection.execute(statement, list_values(build_records(1)[0]))
        connection.commit()
        return 1

    return step


def open_plain(sessions: Sessions) -> psycopg.Connection:
    """Return a connection of the driver alone to the same database."""
    url = sessions.engine.url
    return psycopg.connect(host=str(url.query["host"]), user=url.username, dbname=url.database)


def build_records(count: int) -> tuple[contract.UsageRecord, ...]:
    """Return new records of one organisation's calls; gateways make them, so making them here costs next to nothing."""
    batch, known = new_id("req"), vars(_RECORD)
    records = []
    for number in range(count):
        record = object.__new__(contract.UsageRecord)
        vars(record).update(known, request_id=f"{batch}{number:03x}")
        records.append(record)
    return tuple(records)


def list_values(record: contract.UsageRecord) -> list[object]:
    """Return a record's stored values in the order of the table's columns."""
    values = vars(record) | {"gateway_id": "gw", "gateway_epoch": 1, "seq": 1}
    values |= {"received_at": to_us(NOW), "disputed": int(record.disputed)}
    values |= {"end_reason": record.end_reason.value, "status": record.status.value}
    return [values[name] for name in _COLUMNS]
