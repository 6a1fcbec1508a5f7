"""A short city year: the same seed gives the same money, and the verifier finds every fen again."""

import shutil
from pathlib import Path

import pytest

from examples.city_year.story import Outcome, Plan, list_months, simulate
from hub.audit.signing import AuditKey
from hub.audit.verifier.reading import Export
from hub.database import open_sessions
from hub.tables import import_tables, metadata
from tests.hub.audit.test_export import Rows, edit, failures, forge


def run(home: Path, plan: Plan) -> Outcome:
    import_tables()
    sessions = open_sessions(f"sqlite:///{home / 'city.sqlite3'}")
    with sessions.engine.begin() as connection:
        metadata.create_all(connection)
    outcome = simulate(sessions, home, plan, lambda line: None)
    sessions.close()
    return outcome


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    home = tmp_path_factory.mktemp("city")
    return home, run(home, Plan(firms=12, months=3, seed=7))


def test_a_short_year_is_verified_to_the_last_fen(year: tuple[Path, Outcome]) -> None:
    outcome = year[1]
    assert outcome.verified, "\n".join(outcome.lines)
    assert (outcome.totals["ledger_sum_fen"], outcome.totals["audit_missing"]) == (0, 0)
    assert outcome.totals["fee_fen"] == outcome.totals["voucher_fen"] + outcome.totals["cash_fen"] > 100_000
    done = outcome.totals["done"]
    for name in ("calls", "rented", "ended: settle", "corrected", "paid out", "rule changed", "filing withdrawn"):
        assert done[name] > 0, name


def test_the_turn_of_the_year_is_charged_to_the_old_years_cap(year: tuple[Path, Outcome]) -> None:
    """Ordered at 23:50 on New Year's Eve in Shanghai and settled at 00:20: the hold's year counts."""
    export = Export(year[0] / "export")
    grants, quotes = export.annexes("grants"), export.annexes("quotes")
    charged = [
        (charge["month"], grants[charge["grant_id"]]["period_key"])
        for order in export.annexes("orders").values()
        for charge in order["charges"]
        if charge["grant_id"]
        and charge["programme"] == "compute"
        and quotes[order["quote_id"]]["created_at"] % 10**6 == 0
    ]
    assert ("2027-01", "2026") in charged


def test_the_rule_of_the_day_is_pinned_across_its_change(year: tuple[Path, Outcome]) -> None:
    export = Export(year[0] / "export")
    shares = {
        (cover["share_num"], cover["share_den"])
        for quote in export.annexes("quotes").values()
        for line in quote["lines"]
        for cover in line["covers"]
        if cover["programme"] == "compute"
    }
    assert shares == {(1, 2), (2, 5)}


def test_a_rental_is_billed_by_its_signed_readings(year: tuple[Path, Outcome], tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(year[0] / "export", copy)

    def shorten(rows: Rows) -> None:
        rental = next(row["annex"]["rental"] for row in rows if row["annex"]["rental"] and not row["annex"]["fault"])
        rental["readings"][-1]["counted_ms"] -= 1000

    edit(copy, "orders", shorten)
    forge(copy, AuditKey("whoever"))
    assert any("of a rental whose readings give" in line for line in failures(copy))


def test_the_same_seed_gives_the_same_money(tmp_path: Path) -> None:
    plan = Plan(firms=4, months=1, seed=3)
    homes = [tmp_path / name for name in "ab"]
    for home in homes:
        home.mkdir()
    first, second = (run(home, plan).totals for home in homes)
    assert first == second
    assert first["fee_fen"] > 0


def test_a_year_of_any_length_has_a_turn_of_the_year_in_it() -> None:
    assert list_months(3) == ["2026-11", "2026-12", "2027-01"]
    assert (list_months(12)[0], len(list_months(12))) == ("2026-02", 12)
