"""A short city year: the same seed gives the same money, and the verifier finds every fen again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.city_year.story import Outcome, Plan, list_months, simulate
from hub.audit.signing import AuditKey
from hub.audit.verifier.reading import Export, Row
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
    return home, run(home, Plan(firms=20, months=3, seed=11))


def test_a_short_year_is_verified_to_the_last_fen(year: tuple[Path, Outcome]) -> None:
    outcome = year[1]
    assert outcome.verified, "\n".join(outcome.lines)
    assert (outcome.totals["ledger_sum_fen"], outcome.totals["audit_missing"]) == (0, 0)
    assert outcome.totals["fee_fen"] == outcome.totals["voucher_fen"] + outcome.totals["cash_fen"] > 100_000
    done = outcome.totals["done"]
    for name in (
        "calls", "rented", "ended: settle", "corrected", "calls corrected", "paid out", "rule changed",
        "filing withdrawn", "papers", "claimed", "redeemed",
        "taken back",
    ):  # fmt: skip
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


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("claims", lambda doc: doc.update(amount_fen=doc["amount_fen"] + 1), "its lines give"),
        ("claims", lambda doc: _raise(doc), "it moved"),
        ("claims", lambda doc: doc["lines"].append(doc["lines"][0]), "which claim"),
        ("claims", lambda doc: doc.update(programme_id="prg_other"), "is not of its programme"),
        ("redemptions", lambda doc: doc.update(eligible_fen=doc["eligible_fen"] - 1), "are eligible, its charges give"),
        ("redemptions", lambda doc: doc.update(amount_fen=doc["eligible_fen"]), "the rule's share of its charges is"),
        ("redemptions", lambda doc: doc["lines"].append(doc["lines"][0]), "redeems charge"),
        ("redemptions", lambda doc: doc["lines"][0].update(fee_fen=10**9), "counts 1000000000 fen of charge"),
    ],
)
def test_claims_and_redemptions_are_computed_again(
    year: tuple[Path, Outcome], tmp_path: Path, name: str, change: Callable[[Row], object], said: str
) -> None:
    copy = tmp_path / "export"
    shutil.copytree(year[0] / "export", copy)
    edit(copy, name, lambda rows: change(max((row["annex"] for row in rows), key=_count_lines)) and None)
    forge(copy, AuditKey("whoever"))
    found = failures(copy)
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("topic", "change", "said"),
    [
        ("claim.submitted", lambda row: row.update(actor_id=row["payload"]["drafter"]), "was drafted and submitted by"),
        ("claim.paid", lambda row: row["payload"].update(paid_fen=1), "was paid 1 fen, the ledger moved"),
        ("claim.reconciled", lambda row: row["payload"].update(difference_fen=9), "with a difference of 9, it is"),
        ("redemption.paid", lambda row: row["payload"].update(amount_fen=1), "the ledger moved"),
        ("redemption.paid", lambda row: row.update(actor_id=row["payload"]["drafter"]), "and approved, by"),
        ("redemption.taken_back", lambda row: row["payload"].update(amount_fen=10**6), "gave back 1000000 fen"),
        ("redemption.taken_back", lambda row: row["payload"].update(fee_fen=0), "its charges give"),
    ],
)
def test_the_steps_of_claims_and_redemptions_are_checked(
    year: tuple[Path, Outcome], tmp_path: Path, topic: str, change: Callable[[Row], object], said: str
) -> None:
    copy = tmp_path / "export"
    shutil.copytree(year[0] / "export", copy)
    export = Export(copy)
    drafters = {row["id"]: row.get("drafted_by", row.get("requested_by")) for row in _list_drafts(export)}

    def twist(rows: Rows) -> None:
        found = next(row["row"] for row in rows if row["row"]["topic"] == topic and _counts(row["row"]))
        found["payload"]["drafter"] = drafters.get(found["subject"])
        change(found)

    edit(copy, "events", twist)
    forge(copy, AuditKey("whoever"))
    found = failures(copy)
    assert any(said in line for line in found), found


def _count_lines(annex: Row) -> int:
    return len(annex["lines"])


def _counts(row: Row) -> bool:
    return row["topic"] != "redemption.taken_back" or row["payload"]["amount_fen"] > 0


def _list_drafts(export: Export) -> list[Row]:
    return [*export.annexes("claims").values(), *export.annexes("redemptions").values()]


def _raise(doc: Row) -> None:
    """Claim a fen more on one line and a fen less on another, so that the sum stays."""
    doc["lines"][0]["amount_fen"] += 1
    doc["lines"][-1]["amount_fen"] -= 1
