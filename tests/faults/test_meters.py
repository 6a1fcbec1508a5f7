"""Faults 4, 5, 11, 12: usage repeated and shuffled, a write that fails, what comes late, a provider that lies."""

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from hub.audit.chain import chain_all
from hub.audit.checkpoints import make_checkpoint
from hub.audit.export import read_period, write_export
from hub.audit.signing import AuditKey
from hub.audit.verifier.report import verify
from hub.compute.tables import MeterRecord
from hub.metering.tables import Usage
from hub.orders.tables import BillLine, RatedUsage
from serving.contract import AllowanceGrant, UsageRecord
from tests.faults import story
from tests.faults.tally import Tally, take_tally
from tests.hub.money.market import Market
from tests.hub.orders.test_rentals import HOUR_MS, Shop

FAIL = {
    "sqlite": ["CREATE TRIGGER fail BEFORE INSERT ON rated_usage BEGIN SELECT RAISE(ABORT, 'disk gone'); END"],
    "postgresql": [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk gone'; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON rated_usage FOR EACH ROW EXECUTE FUNCTION fail()",
    ],
}


def draw(market: Market, key: str = "slice") -> str:
    piece = market.draw(key, want_ufen=900_000_000)
    assert isinstance(piece, AllowanceGrant)
    return piece.allowance_id


def make_records(market: Market, allowance_id: str, count: int) -> list[UsageRecord]:
    return [
        market.record(allowance_id, f"req-{number}", (1_000 + number, number, 77), filed=number % 2 == 0)
        for number in range(count)
    ]


def tally_usage(market: Market, name: str, records: list[UsageRecord], *, exists: int) -> Tally:
    """Measure which of these records the database has; those beyond one row for each are doubles."""
    keys = [record.request_id for record in records]
    with market.sessions.read() as session:
        found = list(session.scalars(select(Usage.request_id)))
    double = len(found) - len(set(found))
    return take_tally(market.sessions, name, sent=keys, acked=keys, found=found, exists=exists, double=double)


def test_each_event_up_to_five_times_shuffled_over_forty_days(market: Market) -> None:
    """Fault 4: longer than the windows in which others still recognise a repeat (24 hours, 32 days)."""
    market.fund("factory", 50_000, "bank-1")
    rng, allowance = Random(4), draw(market)
    records = make_records(market, allowance, 40)
    deliveries = [record for record in records for _ in range(rng.randrange(1, 6))]
    repeats = len(deliveries) - len(records)
    rng.shuffle(deliveries)
    while deliveries:
        size = rng.randrange(1, 20)
        batch, deliveries = deliveries[:size], deliveries[size:]
        market.now += timedelta(days=40 * size / 120)
        market.send(*batch, first_seq=1)
    market.close(allowance, through_seq=1)
    market.settle()
    with market.sessions.read() as session:
        sums = session.execute(select(func.count(), func.sum(Usage.prompt_tokens), func.sum(Usage.completion_tokens)))
        assert tuple(map(int, sums.one())) == (40, sum(record.prompt_tokens for record in records), 40 * 77)
        rated = session.execute(select(func.count(), func.sum(RatedUsage.cost_ufen))).one()
        exact = session.scalar(select(func.sum(BillLine.exact_ufen)))
        assert (int(rated[0]), int(rated[1])) == (40, int(exact or 0))
    assert tally_usage(market, f"4 {repeats} shuffled repeats", records, exists=repeats).sound


def test_a_write_that_fails_after_the_look_counts_once(market: Market) -> None:
    """Fault 5: known as sent but not stored would lose it, stored but not rated would give it away."""
    market.fund("factory", 50_000, "bank-1")
    allowance = draw(market)
    records = make_records(market, allowance, 3)
    kind = market.sessions.engine.dialect.name
    market.send(records[0], first_seq=1)
    with market.sessions.write() as session:
        for statement in FAIL[kind]:
            session.execute(text(statement))
    market.send(*records, first_seq=1)
    with pytest.raises(DBAPIError, match="disk gone"):
        market.close(allowance, through_seq=3)
    with market.sessions.write() as session:
        session.execute(text("DROP TRIGGER fail" + (" ON rated_usage" if kind == "postgresql" else "")))
    market.close(allowance, through_seq=3)
    market.settle()
    with market.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Usage)) == 3
        assert session.scalar(select(func.count()).select_from(RatedUsage)) == 3
    assert tally_usage(market, "5 failed write", records, exists=1).sound


def test_what_comes_late_posts_a_difference_and_changes_no_closed_byte(market: Market, tmp_path: Path) -> None:
    """Fault 11: usage after its slice is closed is kept apart; a late meter is a new version in the open month."""
    key = AuditKey("faults")
    for step in (story.deposit, story.apply, story.award, story.quote, story.reserve, story.settle):
        step(market)
    for step in (story.draw, story.use, story.release):
        step(market)
    chain_all(market.sessions)
    make_checkpoint(market.sessions, key, tmp_path, now=market.now)
    before = _export(market, tmp_path / "before", key)
    market.now += timedelta(days=15)
    reply = market.send(market.record(story._slice(market).id, "req-late", (5_000, 0, 5)), first_seq=9)
    assert [rejected.code for rejected in reply.rejected] == ["allowance_closed"]
    story.correct(market)
    chain_all(market.sessions)
    make_checkpoint(market.sessions, key, tmp_path, now=market.now)
    after = _export(market, tmp_path / "after", key)
    assert before == after
    with market.sessions.read() as session:
        write_export(session, tmp_path / "whole", read_period(None, "2026-12"), public=key.public)
    holds, lines = verify(tmp_path / "whole")
    assert holds, lines
    sent = ["req-1", "req-2", "req-late"]
    with market.sessions.read() as session:
        found = list(session.scalars(select(Usage.request_id)))
    assert take_tally(market.sessions, "11 late events", sent=sent, acked=sent[:2], found=found).sound


def test_a_lying_provider_is_quarantined_and_not_billed(market: Market) -> None:
    """Fault 12: a forged signature, more time than passed, a counter that runs back, a device in two places."""
    market.award("compute", 20_000)
    market.fund("factory", 10_000, "bank-1")
    shop = Shop(market)
    honest, other = shop.rent("rent-1"), shop.rent("rent-2")
    shop.send(shop.report(honest, 1, 600_000, at=600))
    lies = [
        (shop.report(honest, 2, 9_000_000, at=900), None),
        (shop.report(honest, 3, 300_000, at=1_200), None),
        (shop.report(other, 1, 500_000, at=610), None),
    ]
    forged = shop.report(honest, 4, 1_300_000, at=1_300)
    records = [shop.send(report) for report, _ in lies]
    records.append(shop.send(type(forged)(**{**vars(forged), "signature": "0" * 64})))
    assert [record.state for record in records] == ["quarantined"] * 4
    assert len({record.code for record in records}) == 4
    shop.end(honest, at=1_500)
    shop.end(other, at=1_500)
    with market.sessions.read() as session:
        charged = session.scalar(text("SELECT sum(quantity) FROM charges"))
    assert int(charged or 0) == 600_000 < HOUR_MS
    with market.sessions.read() as session:
        found = [str(seq) for seq in session.scalars(select(MeterRecord.seq).where(MeterRecord.state == "accepted"))]
    sent = ["1", "2", "3", "other 1", "4"]
    assert take_tally(market.sessions, "12 four lies", sent=sent, acked=["1"], found=found).sound


def _export(market: Market, place: Path, key: AuditKey) -> dict[str, bytes]:
    with market.sessions.read() as session:
        write_export(session, place, read_period(None, "2026-11"), public=key.public)
    return {path.name: path.read_bytes() for path in place.iterdir()}
