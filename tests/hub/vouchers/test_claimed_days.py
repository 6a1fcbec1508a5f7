"""Claims of any days: the money used on them alone, no day in two claims, and the verifier sees both for itself."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from hub.audit.signing import AuditKey
from hub.audit.verifier.days import read_days
from hub.claims import service
from hub.claims.rules import DaysOverlapError, NothingToClaimError, read_period
from hub.claims.tables import Claim
from hub.clock import to_us
from hub.errors import InvalidValueError
from hub.organisations.ownership import declare_owner
from hub.organisations.tables import OwnerKind
from hub.vouchers.related import rule_on_pair
from hub.vouchers.tables import Verdict
from tests.hub.audit.test_export import Rows, edit, failures, forge
from tests.hub.audit.year import export, sign
from tests.hub.money.market import Market
from tests.hub.vouchers.steps import add_invoice, assert_books, buy, draft, shanghai
from tests.hub.vouchers.test_claims import reverse_voucher, submit

EARLY, LATE = "2026-11-20--2026-11-22", "2026-11-23--2026-12-15"
KEY = AuditKey("a secret of the tests")


@pytest.fixture
def used(market: Market) -> Market:
    """The factory has used 2100 fen of its model voucher on 21 November and as much four days later."""
    grant = market.award("model", 30_000)
    market.fund("factory", 20_000, "bank-1")
    buy(market, "key-1", offer="private")
    market.now += timedelta(days=4)
    buy(market, "key-2", offer="private")
    add_invoice(market, grant.id)
    return market


def draft_for(market: Market, period: str, organisation_id: str | None) -> Claim:
    with market.sessions.write() as session:
        return service.draft_claim(
            session, market.actors["checker"], programme="model", period=period, organisation_id=organisation_id,
            now=market.now,
        )  # fmt: skip


def withdraw(market: Market, claim: Claim) -> None:
    with market.sessions.write() as session:
        service.withdraw_claim(session, market.actors["checker"], claim.id, reason="other days", now=market.now)


@pytest.mark.parametrize("order", [(EARLY, LATE), (LATE, EARLY)])
def test_a_range_claims_what_was_used_on_its_days_alone(used: Market, order: tuple[str, str]) -> None:
    for period in order:
        claim = draft(used, period=period)
        asked = read_period(period)
        assert (claim.period, claim.amount_fen) == (period, 2100)
        with used.sessions.read() as session:
            assert all(asked.start <= line.booked_at < asked.end for line in service.list_lines(session, claim.id))
    with pytest.raises(NothingToClaimError):
        draft(used, period="2026-11")
    assert_books(used)


def test_a_day_begins_and_ends_at_midnight_in_shanghai(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 20_000, "bank-1")
    market.now = shanghai(2026, 11, 30, 23, 59)
    buy(market, "key-1", offer="private")
    market.now += timedelta(minutes=1)
    buy(market, "key-2", offer="private")
    for month in ("2026-11", "2026-12"):
        add_invoice(market, grant.id, number=f"F-{month}", month=month)
    for day in ("2026-11-30", "2026-12-01"):
        assert draft(market, period=f"{day}--{day}").amount_fen == 2100


@pytest.mark.parametrize("period", ["2026-11-21--2026-11-24", "2026-11-01--2026-12-31", "2026-11-22--2026-11-30"])
def test_no_day_stands_in_two_claims(used: Market, period: str) -> None:
    claim = draft(used, period=EARLY)
    with pytest.raises(DaysOverlapError, match=rf"no\. 1 \('{claim.id}'\) is for {EARLY}") as refused:
        draft(used, period=period)
    assert (refused.value.code, refused.value.field) == ("days_overlap", "period")
    with used.sessions.read() as session:
        assert [row.id for row in service.list_claims(session, used.actors["auditor"])] == [claim.id]
    withdraw(used, claim)
    assert draft(used, period=period).amount_fen in (2100, 4200)


def test_a_month_has_its_days_and_takes_what_ranges_left(used: Market) -> None:
    assert draft(used, period=LATE).amount_fen == 2100
    assert draft(used, period="2026-11").amount_fen == 2100
    with pytest.raises(DaysOverlapError, match="is for 2026-11,"):
        draft(used, period="2026-11-01--2026-11-02")
    with pytest.raises(NothingToClaimError):
        draft(used, period="2026-12-16--2026-12-31")


def test_days_are_kept_apart_for_each_firm(used: Market) -> None:
    owner = used.owner("factory")
    draft_for(used, EARLY, owner)
    for organisation_id in (owner, None):
        with pytest.raises(DaysOverlapError):
            draft_for(used, "2026-11-21--2026-11-30", organisation_id)
    with pytest.raises(NothingToClaimError):
        draft_for(used, "2026-11-21--2026-11-30", used.owner("rival"))
    assert draft_for(used, LATE, None).amount_fen == 2100


def test_what_was_left_out_is_claimed_by_the_same_days_again(used: Market) -> None:
    parties = [used.owner(who) for who in ("factory", "provider")]
    with used.sessions.write() as session:
        for who, owner in zip(("factory", "provider"), parties, strict=True):
            declare_owner(
                session, used.actors[who], owner, kind=OwnerKind.LEGAL_PERSON, name="王建国", code="",
                share_bp=None, now=used.now,
            )  # fmt: skip
    assert draft(used, period=EARLY).amount_fen == 1500
    with used.sessions.write() as session:
        rule_on_pair(
            session, used.actors["operator"], parties[0], parties[1], verdict=Verdict.CLEARED, reason="namesakes",
            now=used.now,
        )  # fmt: skip
    assert draft(used, period=EARLY).amount_fen == 600


def test_what_came_back_before_a_range_is_not_left_out(used: Market) -> None:
    submit(used, draft(used, period=EARLY))
    reverse_voucher(used)
    with used.sessions.read() as session:
        when = used.now + timedelta(days=1)
        plan = service.plan_claim(
            session, used.actors["checker"], programme="model", period="2026-11-26--2026-11-30", now=when
        )
    assert [candidate.amount_fen for candidate in plan.ready] == [-600]
    # Of the days on which it came back it is claimed with what was used on them, once.
    assert draft(used, period=LATE).amount_fen == 2100 - 600


def test_what_came_back_of_a_use_that_nobody_claimed_stays_with_it(used: Market) -> None:
    reverse_voucher(used)
    used.now += timedelta(days=2)
    with pytest.raises(NothingToClaimError):
        draft(used, period="2026-11-26--2026-11-30")
    assert draft(used, period="2026-11").amount_fen == 4200 - 600


def test_days_taken_between_plan_and_draft_are_seen(used: Market) -> None:
    plans = []
    for period in (EARLY, "2026-11-22--2026-11-30"):
        with used.sessions.read() as session:
            plans.append(
                service.plan_claim(session, used.actors["checker"], programme="model", period=period, now=used.now)
            )
    with used.sessions.write() as session:
        service.place_claim(session, used.actors["checker"], plans[0], now=used.now)
    with pytest.raises(DaysOverlapError), used.sessions.write() as session:
        service.place_claim(session, used.actors["checker"], plans[1], now=used.now)


@pytest.mark.parametrize(
    ("period", "error", "said"),
    [
        ("2026-11-30--2026-11-01", InvalidValueError, "a range goes forward"),
        ("2026-11-31--2026-12-01", InvalidValueError, "is not a day"),
        ("2026-11-03", InvalidValueError, "range of days"),
        ("2026-12-01--2026-12-02", NothingToClaimError, "nothing of it can be claimed yet"),
    ],
)
def test_days_that_cannot_be_claimed_are_refused(used: Market, period: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        draft(used, period=period)
    assert_books(used)


@pytest.mark.parametrize("text", ["2026-11", "2026-12", "2026-Q1", "2026-Q4", "2026", "2024-02-29--2024-03-01"])
def test_the_verifier_reads_the_same_days_by_itself(text: str) -> None:
    period = read_period(text)
    assert read_days(text) == (to_us(period.start), to_us(period.end))


def _set_period(number: int, period: str) -> Callable[[Rows], None]:
    return lambda rows: rows[number]["annex"].update(period=period)


@pytest.mark.parametrize(
    ("number", "period", "said"),
    [
        (0, "2026-11-23--2026-11-30", "is of another day"),
        (0, "2026-10", "is of another day"),
        (1, "2026-11-22--2026-12-15", f"has {EARLY}"),
    ],
)
def test_the_verifier_tells_days_that_are_wrong(
    used: Market, tmp_path: Path, number: int, period: str, said: str
) -> None:
    sent_back = draft(used, period="2026-11-21--2026-11-24")
    submit(used, sent_back)
    with used.sessions.write() as session:
        service.refuse_claim(session, used.actors["operator"], sent_back.id, reason="form 3 lacks", now=used.now)
    draft(used, period=EARLY)
    draft(used, period=LATE)
    with pytest.raises(DaysOverlapError):
        draft(used, period="2026-11-01--2026-11-30")
    used.now = shanghai(2026, 12, 1)
    sign(used.sessions, KEY, tmp_path, used)
    place = export(used.sessions, KEY, tmp_path / "books", (None, "2026-11"))
    assert failures(place) == []
    names = [json.loads(line)["annex"]["period"] for line in (place / "claims.jsonl").read_text().splitlines()]
    assert names == ["2026-11-21--2026-11-24", EARLY, LATE]
    edit(place, "claims", _set_period(number + 1, period))
    forge(place, KEY)
    assert any(said in line for line in failures(place))


def test_the_verifier_tells_a_step_that_does_not_follow(used: Market, tmp_path: Path) -> None:
    sent_back = draft(used, period=EARLY)
    submit(used, sent_back)
    with used.sessions.write() as session:
        service.refuse_claim(session, used.actors["operator"], sent_back.id, reason="form 3 lacks", now=used.now)
    used.now = shanghai(2026, 12, 1)
    sign(used.sessions, KEY, tmp_path, used)
    place = export(used.sessions, KEY, tmp_path / "books", (None, "2026-11"))
    assert failures(place) == []

    def forget_submission(rows: Rows) -> None:
        event = next(row["row"] for row in rows if row["row"]["topic"] == "claim.submitted")
        event["topic"] = "claim.noted"

    edit(place, "events", forget_submission)
    forge(place, KEY)
    assert any(f"claim {sent_back.id} became refused after it was noted" in line for line in failures(place))
