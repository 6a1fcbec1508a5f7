"""Allowances and bills of hosted calls: slices of a hold, usage taken once, remainders carried, shares kept."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from hub.errors import ConflictError, IdempotencyConflictError, InvalidValueError, NotFoundError
from hub.ids import new_id
from hub.ledger.audit import check_books
from hub.metering.tables import RejectedUsage, Usage
from hub.orders import service
from hub.orders.tables import Allowance, BillLine, Charge, RatedUsage, UsageTranche
from hub.organisations.tables import Budget
from hub.prices.service import publish_price, publish_split
from hub.vouchers.service import list_grants
from serving.contract import AllowanceGrant, AllowanceRefusal
from tests.hub.money.market import Market

FEN = 1_000_000
# 200, 50 and 800 fen per million tokens are as many µfen for each token.
PROMPT, CACHED, COMPLETION = 200, 50, 800


def grant(answer: AllowanceGrant | AllowanceRefusal) -> AllowanceGrant:
    assert isinstance(answer, AllowanceGrant)
    return answer


def lines(market: Market) -> list[BillLine]:
    with market.sessions.read() as session:
        return list(session.scalars(select(BillLine).order_by(BillLine.rule_version_id)))


def serve(market: Market, tag: str, counts: tuple[int, int, int], *, filed: bool = True, seq: int = 1) -> None:
    """One allowance with one request, closed and settled."""
    piece = grant(market.draw(f"draw-{tag}"))
    market.send(market.record(piece.allowance_id, f"req-{tag}", counts, filed=filed), first_seq=seq)
    market.close(piece.allowance_id, through_seq=seq)
    assert market.settle() == 1


def test_a_slice_is_cut_from_a_hold(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    assert piece.amount_ufen == 100 * FEN
    with market.sessions.read() as session:
        tranche = session.scalars(select(UsageTranche)).one()
        assert (tranche.held_fen, tranche.sliced_ufen) == (500, 100 * FEN)
        assert service.wallet(session, market.owner("factory")).held_fen == 500


def test_slices_of_one_hold_stay_below_it(market: Market) -> None:
    market.fund("factory", 500, "bank-1")
    answers = [market.draw(str(number)) for number in range(6)]
    amounts = [answer.amount_ufen for answer in answers if isinstance(answer, AllowanceGrant)]
    assert amounts == [100 * FEN] * 4 + [99 * FEN]
    assert isinstance(answers[-1], AllowanceRefusal)
    assert (answers[-1].code, answers[-1].left) == ("insufficient_funds", 0)


def test_the_same_key_gives_the_same_slice(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    assert market.draw("a") == market.draw("a")
    with pytest.raises(IdempotencyConflictError):
        market.draw("a", want_ufen=1)
    with market.sessions.read() as session:
        assert len(session.scalars(select(Allowance)).all()) == 1


def test_no_money_no_slice(market: Market) -> None:
    refusal = market.draw("a")
    assert isinstance(refusal, AllowanceRefusal)
    assert (refusal.limit, refusal.set_by, refusal.resets_at) == ("firm cash", market.owner("factory"), None)
    market.fund("factory", 1, "bank-1")
    assert isinstance(market.draw("b"), AllowanceRefusal)
    with pytest.raises(InvalidValueError):
        market.draw("c", want_ufen=0)


def test_budgets_stop_a_key_within_a_month(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    with market.sessions.write() as session:
        budget = Budget(
            id=new_id("bud"),
            organisation_id=market.owner("factory"),
            name="line 3",
            limit_fen=150,
            set_by="usr_1",
            created_at=market.now,
        )
        session.add(budget)
    first = grant(market.draw("a", budget_id=budget.id))
    assert grant(market.draw("b", budget_id=budget.id)).amount_ufen == 50 * FEN
    refusal = market.draw("c", budget_id=budget.id)
    assert isinstance(refusal, AllowanceRefusal)
    assert (refusal.code, refusal.limit, refusal.used, refusal.left) == (
        "budget_exhausted",
        "budget line 3",
        150 * FEN,
        0,
    )
    market.close(first.allowance_id)
    assert grant(market.draw("d", budget_id=budget.id)).amount_ufen == 100 * FEN
    with pytest.raises(NotFoundError):
        market.draw("e", who="rival", budget_id=budget.id)


def test_usage_is_taken_once(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    record = market.record(piece.allowance_id, "req-1", (1000, 200, 50))
    assert market.send(record, record).rejected == ()
    assert market.send(record, first_seq=7).through_seq == 7
    changed = market.record(piece.allowance_id, "req-1", (1000, 200, 51))
    assert [item.code for item in market.send(changed, first_seq=8).rejected] == ["conflicting_repeat"]
    with market.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(Usage)) == 1
        assert session.scalars(select(RejectedUsage)).one().record["completion_tokens"] == 51


def test_usage_that_fits_no_allowance_is_rejected_with_its_reason(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    reply = market.send(
        market.record("alw_nowhere", "r1", (1, 0, 1)),
        market.record(piece.allowance_id, "r2", (1, 0, 1), who="rival"),
        market.record(piece.allowance_id, "r3", (1, 2, 1)),
        market.record(piece.allowance_id, "r4", (1, 0, 1)),
        market.record(piece.allowance_id, "r5\x1e", (1, 0, 1)),
    )
    assert reply.through_seq == 5
    assert [(item.seq, item.code) for item in reply.rejected] == [
        (1, "unknown_allowance"),
        (2, "wrong_organisation"),
        (3, "cached_above_prompt"),
        (5, "control_character"),
    ]
    market.close(piece.allowance_id, through_seq=5)
    late = market.send(market.record(piece.allowance_id, "r6", (1, 0, 1)), first_seq=6)
    assert [item.code for item in late.rejected] == ["allowance_closed"]


def test_closing_waits_for_the_usage_and_counts_it_itself(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    with pytest.raises(ConflictError, match="send the usage first"):
        market.close(piece.allowance_id, through_seq=1)
    market.send(market.record(piece.allowance_id, "r1", (1000, 0, 10)))
    market.close(piece.allowance_id, spent_ufen=1, through_seq=1)
    market.close(piece.allowance_id, spent_ufen=1, through_seq=1)
    with market.sessions.read() as session:
        closed = session.get_one(Allowance, piece.allowance_id)
        assert (closed.spent_ufen, closed.claimed_ufen) == (1000 * PROMPT + 10 * COMPLETION, 1)


def test_closing_rates_every_record_however_many(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    for batch in range(2):
        records = [market.record(piece.allowance_id, f"r-{batch}-{index}", (10, 0, 0)) for index in range(400)]
        market.send(*records, first_seq=1 + 400 * batch)
    market.close(piece.allowance_id, spent_ufen=800 * 10 * PROMPT, through_seq=800)
    with market.sessions.read() as session:
        assert session.scalar(select(func.count()).select_from(RatedUsage)) == 800
        assert session.get_one(Allowance, piece.allowance_id).spent_ufen == 800 * 10 * PROMPT


def test_a_hold_waits_for_all_its_slices(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    first, second = grant(market.draw("a")), grant(market.draw("b"))
    market.close(first.allowance_id)
    assert market.settle() == 0
    market.close(second.allowance_id)
    assert market.settle() == 1
    assert market.settle() == 0
    with market.sessions.read() as session:
        assert service.wallet(session, market.owner("factory")).available_fen == 10_000
        assert session.scalars(select(Charge)).all() == []
        assert check_books(session) == []


def test_less_than_a_fen_carries_to_the_next_hold(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    for number in range(3):
        serve(market, str(number), (2000, 0, 0), seq=number + 1)  # 0.4 fen each
    line = lines(market)[0]
    assert (line.exact_ufen, line.posted_fen) == (1_200_000, 1)
    with market.sessions.read() as session:
        assert [charge.fee_fen for charge in session.scalars(select(Charge))] == [1]


def test_vouchers_pay_their_share_of_filed_calls_only(market: Market) -> None:
    market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    market.send(
        market.record(piece.allowance_id, "r1", (0, 0, 12_500)),  # 10 fen, filed
        market.record(piece.allowance_id, "r2", (0, 0, 8_750), filed=False),  # 7 fen, unfiled
    )
    market.close(piece.allowance_id, through_seq=2)
    market.settle()
    unfiled, filed = sorted(lines(market), key=lambda line: line.rule_version_id is not None)
    assert (unfiled.posted_fen, unfiled.subsidised_fen, unfiled.rule_version_id) == (7, 0, None)
    assert (filed.posted_fen, filed.subsidised_fen, filed.programme) == (10, 5, "model")
    with market.sessions.read() as session:
        assert service.wallet(session, market.owner("factory")).balance_fen == 10_000 - 7 - 5
        assert [row.settled_fen for row in list_grants(session, market.owner("factory"))] == [5]
        assert check_books(session) == []


def test_revenue_is_split_by_contract_and_the_platform_takes_the_rest(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    owner = market.owner("integrator")
    with market.sessions.write() as session:
        split = publish_split(
            session,
            market.actors["integrator"],
            organisation_id=owner,
            parts=[
                {"party": "integrator", "organisation_id": owner, "num": 7, "den": 10},
                {"party": "pool", "organisation_id": None, "num": 2, "den": 10},
            ],
            now=market.now,
        )
        market.call_price = publish_price(
            session,
            market.actors["integrator"],
            organisation_id=owner,
            subject_kind="version",
            subject="ver_1",
            lines={"prompt": (200, FEN), "completion": (800, FEN)},
            split_terms_id=split.id,
            now=market.now,
        ).id
    for number in range(2):
        serve(market, str(number), (0, 0, 6_250), seq=number + 1)  # 5 fen each
    with market.sessions.read() as session:
        charges = session.scalars(select(Charge).order_by(Charge.charged_at, Charge.id)).all()
        parts = [sorted((part.party, part.amount_fen) for part in charge.parts) for charge in charges]
        assert sorted(parts) == sorted(
            [
                [("integrator", 3), ("platform", 1), ("pool", 1)],
                [("integrator", 4), ("pool", 1)],
            ]
        )
        assert service.wallet(session, owner).payable_fen == 7
        assert sum(part.amount_fen for part, _ in service.list_earnings(session, owner)) == 7
        assert check_books(session) == []


def test_a_month_has_its_own_line(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    market.now = datetime(2026, 11, 30, 15, 59, 59, tzinfo=UTC)
    piece = grant(market.draw("a"))
    market.now += timedelta(seconds=2)  # December in Shanghai
    other = grant(market.draw("b"))
    market.send(
        market.record(piece.allowance_id, "r1", (5000, 0, 0)), market.record(other.allowance_id, "r2", (10_000, 0, 0))
    )
    for allowance in (piece, other):
        market.close(allowance.allowance_id, through_seq=2)
    assert market.settle() == 2
    assert sorted((line.month, line.posted_fen) for line in lines(market)) == [("2026-11", 1), ("2026-12", 2)]


def test_every_record_is_rated_on_one_line(market: Market) -> None:
    market.fund("factory", 10_000, "bank-1")
    piece = grant(market.draw("a"))
    records = [market.record(piece.allowance_id, f"r{number}", (100 + number, number, 7)) for number in range(20)]
    market.send(*records)
    with market.sessions.write() as session:
        assert service.rate_usage(session, market.now) == 20
        assert service.rate_usage(session, market.now) == 0
        rated = session.scalars(select(RatedUsage)).all()
        expected = sum(
            (record.prompt_tokens - record.cached_tokens) * PROMPT
            + record.cached_tokens * CACHED
            + record.completion_tokens * COMPLETION
            for record in records
        )
        assert sum(row.cost_ufen for row in rated) == expected
        assert len({row.bill_line_id for row in rated}) == 1
