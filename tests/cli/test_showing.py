"""How the terminal shows what the hub answered: ids whole, texts folded, times in Shanghai."""

import pytest

from hub.cli.showing import local_time, show, show_facts
from hub.ids import new_id
from tests.cli.terminal import Terminal, street, terminal
from tests.cli.test_provider_commands import rent, send
from tests.hub.conftest import empty_database, now, sessions
from tests.hub.money.conftest import built_market, market, postgresql
from tests.hub.orders.conftest import rich
from tests.hub.orders.test_rentals import Shop

__all__ = ["built_market", "empty_database", "market", "now", "postgresql", "rich", "sessions", "street", "terminal"]
REASON = "the cards of both were seen and they are of two persons who bear one name, so nothing stands against it"


def test_ids_are_whole_however_many_stand_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [new_id("tst") for _ in range(6)]
    show({}, [[*ids, REASON, "¥1,234,567.89"]], [*"abcdef", "reason", "fee"], as_json=False)
    said = capsys.readouterr().out
    for text in (*ids, "¥1,234,567.89"):
        assert text in said
    assert REASON not in said
    assert set(REASON.split()) <= set(said.split())


def test_a_long_value_is_shown_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    show_facts({}, [("name", "x" * 400 + "END")], as_json=False)
    said = capsys.readouterr().out
    assert said.count("x") == 400
    assert "END" in said


@pytest.mark.parametrize(
    ("moment", "timespec", "shown"),
    [
        ("2026-11-30T16:00:00+00:00", "minutes", "2026-12-01 00:00"),
        ("2026-11-30T15:59:59.900000+00:00", "seconds", "2026-11-30 23:59:59"),
        ("2026-12-01T00:00:00+08:00", "minutes", "2026-12-01 00:00"),
        (None, "minutes", ""),
    ],
)
def test_times_are_shanghais(moment: str | None, timespec: str, shown: str) -> None:
    assert local_time(moment, timespec=timespec) == shown


def test_doubted_reports_are_listed_by_whole_ids_and_local_time(terminal: Terminal) -> None:
    shop = Shop(terminal.market)
    rental = rent(terminal, shop)
    doubtful = send(shop, rental, 1, 9_000_000, at=1800)
    [row] = terminal.read("operator", "meters", "list")["items"]
    said = terminal.run("operator", "meters", "list")
    for text in (doubtful, rental, "gpu-0", local_time(row["observed_at"], timespec="seconds")):
        assert text in said
    assert row["observed_at"][:19].replace("T", " ") not in said


def test_decisions_on_pairs_are_listed_by_whole_ids_and_local_time(street: Terminal) -> None:
    pair = [street.market.owner(who) for who in ("factory", "provider")]
    for who in ("factory", "provider"):
        street.run(who, "related", "declare", "王建国", "--share-bp", "5100")
    made = street.read("operator", "related", "decide", *pair, "cleared", "--reason", REASON, "--yes")
    said = street.run("auditor", "related", "decisions")
    for text in (made["id"], *pair, made["decided_by"], local_time(made["created_at"])):
        assert text in said
    assert made["created_at"][:16] not in said
