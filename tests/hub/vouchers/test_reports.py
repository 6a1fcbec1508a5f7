"""The authority report: the same bytes for a closed period whatever comes later, and what changed since the last."""

import csv
import io
import json
from datetime import timedelta

import pytest

from hub.claims import service
from hub.claims.rules import PeriodRunningError, list_months, period_bounds, read_period
from hub.claims.tables import AuthorityReport
from hub.errors import ForbiddenError, InvalidValueError
from hub.ledger.closing import list_closed
from hub.ledger.periods import SHANGHAI
from hub.vouchers import service as vouchers
from serving.contract import AllowanceGrant
from tests.hub.money.market import Market
from tests.hub.vouchers.steps import add_invoice, assert_books, buy, draft, shanghai


def issue(market: Market, period: str = "2026-11", who: str = "operator") -> AuthorityReport:
    with market.sessions.write() as session:
        return service.issue_report(session, market.actors[who], period, now=market.now)


def figures(report: AuthorityReport) -> dict[tuple[str, str], int]:
    """Return the firms' figures, summed over firms."""
    found: dict[tuple[str, str], int] = {}
    for row in csv.DictReader(io.StringIO(report.csv_text)):
        key = (row["programme"], row["figure"])
        found[key] = found.get(key, 0) + int(row["value"])
    return found


@pytest.fixture
def spent(market: Market) -> Market:
    grant = market.award("model", 30_000)
    market.fund("factory", 50_000, "bank-1")
    buy(market, offer="private")
    add_invoice(market, grant.id)
    return market


def test_periods_are_months_quarters_and_years_of_shanghai() -> None:
    assert list_months("2026-Q4") == ["2026-10", "2026-11", "2026-12"]
    assert len(list_months("2026")) == 12
    assert period_bounds("2026") == (shanghai(2026, 1, 1), shanghai(2027, 1, 1))
    for wrong in ("2026-13", "2026-Q5", "26", "", "2026-11-01"):
        with pytest.raises(InvalidValueError, match="2026-Q4"):
            period_bounds(wrong)


def test_a_range_is_whole_days_of_shanghai_and_touches_the_months_it_lies_in() -> None:
    period = read_period("2026-11-03--2027-01-15")
    assert (period.start, period.end) == (shanghai(2026, 11, 3), shanghai(2027, 1, 16))
    assert (period.kind, period.months) == ("days", ("2026-11", "2026-12", "2027-01"))
    assert period.closes_at == shanghai(2027, 2, 1)
    assert read_period("2026-12-31--2026-12-31").end == shanghai(2027, 1, 1)
    assert {text: read_period(text).kind for text in ("2026-11", "2026-Q4", "2026")} == {
        "2026-11": "month",
        "2026-Q4": "quarter",
        "2026": "year",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-03", "range of days"),
        ("2026-11-03--", "range of days"),
        ("2026-11-03..2026-12-15", "range of days"),
        ("2026-11-31--2026-12-15", "'2026-11-31' of period"),
        ("0000-01-01--2026-12-15", "'0000-01-01' of period"),
        ("9999-12-31--9999-12-31", "'9999-12-31' of period"),
        ("2026-12-15--2026-11-03", "is -41 days"),
        ("2016-01-01--2026-12-31", "1 to 3660 days"),
    ],
)
def test_a_range_that_is_none_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said) as refused:
        read_period(text)
    assert refused.value.field == "period"


def test_a_range_counts_its_days_and_never_changes_once_issued(spent: Market) -> None:
    day = spent.now.astimezone(SHANGHAI).date()
    before, within = f"2026-11-01--{day - timedelta(days=1)}", f"{day}--{day}"
    spent.now = shanghai(2026, 12, 1)
    first, second = issue(spent, before), issue(spent, within)
    assert figures(second)["model", "used_fen"] == 2100
    assert ("model", "used_fen") not in figures(first)
    with spent.sessions.read() as session:
        assert [row.month for row in list_closed(session)] == ["2026-11"]
    buy(spent, "key-2", offer="private")
    again = issue(spent, within)
    assert (again.id, again.json_text, again.csv_text) == (second.id, second.json_text, second.csv_text)
    with spent.sessions.read() as session:
        assert service.check_report(session, again)
        assert json.loads(again.json_text)["period"] == within


def test_a_range_in_a_month_that_runs_has_a_preview_but_no_report(spent: Market) -> None:
    day = spent.now.astimezone(SHANGHAI).date()
    days = f"{day}--{day}"
    for now in (spent.now + timedelta(days=1), shanghai(2026, 12, 1) - timedelta(seconds=1)):
        spent.now = now
        with pytest.raises(PeriodRunningError, match=r"Month 2026-11 .* preview") as refused:
            issue(spent, days)
        assert refused.value.field == "period"
    with spent.sessions.read() as session:
        assert (list_closed(session), service.list_reports(session)) == ([], [])
        assert json.loads(service.build_report(session, days)[0])["until_at"].startswith(str(day))
    spent.now = shanghai(2026, 12, 1)
    assert issue(spent, days).number == 1


def test_a_report_is_compared_with_the_last_of_its_kind(spent: Market) -> None:
    spent.now = shanghai(2027, 1, 1)
    ranges = ["2026-10-01--2026-10-31", "2026-11-01--2026-11-30", "2026-10-05--2026-12-31"]
    issued = {period: issue(spent, period) for period in ["2026-10", *ranges, "2026-11", "2026-Q4"]}
    names = {report.id: period for period, report in issued.items()}
    previous = {period: names.get(report.previous_id or "") for period, report in issued.items()}
    assert previous == {
        "2026-10": None,
        "2026-10-01--2026-10-31": None,
        "2026-11-01--2026-11-30": "2026-10-01--2026-10-31",
        "2026-11": "2026-10",
        "2026-Q4": None,
        "2026-10-05--2026-12-31": "2026-11-01--2026-11-30",
    }
    with spent.sessions.read() as session:
        changes = service.diff_against_last(session, issued["2026-11-01--2026-11-30"])
        assert ("model", "used_fen", 0, 2100) in {
            (change.programme, change.figure, change.before, change.after) for change in changes
        }
        assert all(service.check_report(session, report) for report in issued.values())


def test_a_running_period_has_a_preview_but_no_report(spent: Market) -> None:
    with pytest.raises(PeriodRunningError, match="preview"):
        issue(spent)
    with spent.sessions.read() as session:
        shown, table = service.build_report(session, "2026-11")
    assert json.loads(shown)["programmes"][2]["code"] == "data_standard"
    assert "model,fund,released_fen,1500000000" in table


def test_the_report_counts_to_the_fen(spent: Market) -> None:
    claim = draft(spent)
    with spent.sessions.write() as session:
        service.submit_claim(session, spent.actors["approver"], claim.id, pack_sha256="a" * 64, now=spent.now)
        service.record_payment(
            session, spent.actors["operator"], claim.id, paid_fen=2100, reference="TR-1", now=spent.now
        )
    spent.now = shanghai(2026, 12, 1)
    found = figures(issue(spent))
    assert {name: found["model", name] for name in ("applied", "awarded_fen", "used_fen", "claimed_fen")} == {
        "applied": 1,
        "awarded_fen": 30_000,
        "used_fen": 2100,
        "claimed_fen": 2100,
    }
    assert found["model", "left_at_end_fen"] == 27_900
    assert found["model", "paid_by_authority_fen"] == 2100
    assert found["model", "fund_left_at_end_fen"] == 1_500_000_000 - 30_000
    assert found["model", "owed_by_authority_at_end_fen"] == 1_500_000_000 - 2100


def test_a_refused_claim_is_taken_off_in_the_period_of_its_refusal(spent: Market) -> None:
    def claimed(period: str) -> int:
        with spent.sessions.read() as session:
            programmes = json.loads(service.build_report(session, period)[0])["programmes"]
        return next(int(item["total"]["claimed_fen"]) for item in programmes if item["code"] == "model")

    first = draft(spent)
    with spent.sessions.write() as session:
        service.submit_claim(session, spent.actors["approver"], first.id, pack_sha256="a" * 64, now=spent.now)
    spent.now = shanghai(2026, 12, 1)
    november = issue(spent)
    with spent.sessions.write() as session:
        service.refuse_claim(session, spent.actors["operator"], first.id, reason="form 3 lacks", now=spent.now)
    assert (claimed("2026-11"), claimed("2026-12"), claimed("2026-Q4")) == (2100, -2100, 0)
    again = draft(spent, period="2026-12")
    with spent.sessions.write() as session:
        service.submit_claim(session, spent.actors["approver"], again.id, pack_sha256="b" * 64, now=spent.now)
    assert (claimed("2026-12"), claimed("2026-Q4")) == (0, 2100)
    with spent.sessions.read() as session:
        assert service.check_report(session, november)


def test_a_closed_period_never_changes(spent: Market) -> None:
    spent.now = shanghai(2026, 12, 1)
    first = issue(spent)
    with spent.sessions.read() as session:
        assert [row.month for row in list_closed(session)] == ["2026-11"]
    # Life goes on: a second fine-tune, a revocation, an application completed later.
    buy(spent, "key-2", offer="private")
    with spent.sessions.write() as session:
        [grant] = vouchers.list_grants(session, spent.owner("factory"))
        vouchers.revoke_grant(session, spent.actors["operator"], grant.grant.id, reason="x", now=spent.now)
    again = issue(spent)
    assert (again.id, again.json_text, again.csv_text) == (first.id, first.json_text, first.csv_text)
    with spent.sessions.read() as session:
        assert service.check_report(session, again)


def test_the_difference_against_the_last_report(spent: Market) -> None:
    spent.now = shanghai(2026, 12, 1)
    first = issue(spent)
    buy(spent, "key-2", offer="private")
    spent.now = shanghai(2027, 1, 1)
    second = issue(spent, "2026-12")
    with spent.sessions.read() as session:
        changes = {
            (change.figure, change.before, change.after)
            for change in service.diff_against_last(session, second)
            if change.programme == "model" and change.uscc != "fund"
        }
        assert second.previous_id == first.id
        assert service.diff_against_last(session, first)[0].before == 0
        assert service.compare_reports(second.csv_text, second.csv_text) == []
    assert ("awarded_fen", 30_000, 0) in changes
    assert ("left_at_end_fen", 27_900, 25_800) in changes
    assert not any(figure == "used_fen" for figure, _, _ in changes)  # 2100 in both months


def test_new_year_in_shanghai_decides_the_year(spent: Market) -> None:
    spent.now = shanghai(2027, 1, 1) - timedelta(minutes=1)
    buy(spent, "key-2", offer="private")
    spent.now += timedelta(minutes=1)  # still 31 December in UTC
    buy(spent, "key-3", offer="private")
    with spent.sessions.read() as session:
        old, new = (service.build_report(session, year)[0] for year in ("2026", "2027"))
    used = [
        next(item for item in json.loads(text)["programmes"] if item["code"] == "model")["total"]["used_fen"]
        for text in (old, new)
    ]
    assert used == [4200, 2100]


def test_reports_are_issued_by_the_operator(spent: Market) -> None:
    spent.now = shanghai(2026, 12, 1)
    for who in ("auditor", "factory"):
        with pytest.raises(ForbiddenError):
            issue(spent, who=who)


def test_a_period_whose_calls_still_hold_money_waits_for_them(spent: Market) -> None:
    piece = spent.draw("late")
    assert isinstance(piece, AllowanceGrant)
    spent.send(spent.record(piece.allowance_id, "late", (0, 0, 125_000)))
    spent.now = shanghai(2027, 1, 1)
    for period in ("2026-11", "2026-Q4", "2026", "2026-11-01--2026-11-02"):
        with pytest.raises(PeriodRunningError, match="still open") as refused:
            issue(spent, period)
        assert (refused.value.code, refused.value.field) == ("period_running", "period")
        with spent.sessions.read() as session:
            assert (list_closed(session), service.list_reports(session)) == ([], [])
    spent.close(piece.allowance_id, through_seq=1)
    assert spent.settle() == 1
    assert issue(spent).number == 1
    with spent.sessions.read() as session:
        assert [row.month for row in list_closed(session)] == ["2026-11"]
    assert_books(spent)
