"""From a line of the statement to its raw meter records, page by page, for those who may see them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.app import create_api
from hub.errors import InvalidValueError, NotFoundError
from hub.reports.records import RecordPage, list_records
from hub.reports.service import statement
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from tests.hub.money.market import Market
from tests.hub.reports.conftest import CALLS


def lines(market: Market) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with market.sessions.read() as session:
        for line in statement(session, market.owner("factory"), "2026-11").lines:
            found.setdefault(line.kind, []).append(line)
    return found


def page(market: Market, line_id: str, who: str = "factory", after: str = "", limit: int = 100) -> RecordPage:
    with market.sessions.read() as session:
        return list_records(session, market.actors[who], line_id, after=after, limit=limit)


def test_calls_add_up_to_their_line_over_pages(busy: Market) -> None:
    seen = 0
    for line in lines(busy)["calls"]:
        after, cost, tokens = "", 0, 0
        while True:
            part = page(busy, line.line_id, after=after, limit=2)
            assert len(part.items) <= 2
            cost += sum(item.cost_ufen or 0 for item in part.items)
            tokens += sum(sum(item.figures.values()) for item in part.items)
            seen += len(part.items)
            if part.next_after is None:
                break
            after = part.next_after
        assert cost == line.exact_ufen
        assert tokens == sum(line.quantities.values())
    assert seen == len(CALLS)


def test_a_fine_tune_shows_the_figures_that_were_settled(busy: Market) -> None:
    for line in lines(busy)["order"]:
        items = page(busy, line.line_id).items
        assert items[-1].figures == {"device_ms": 3_600_000, "trained_tokens": 1_000_000}


def test_strangers_and_bad_cursors_are_refused(busy: Market) -> None:
    line = lines(busy)["calls"][0]
    for who in ("rival", "provider"):
        with pytest.raises(NotFoundError):
            page(busy, line.line_id, who)
    assert page(busy, line.line_id, "auditor").items
    for cursor in ("x", "r-1:", "r-1:x", ":1"):
        with pytest.raises(InvalidValueError):
            page(busy, line.line_id, after=cursor)
    with pytest.raises(InvalidValueError):
        page(busy, line.line_id, limit=0)
    with pytest.raises(NotFoundError):
        page(busy, "chg_none")


def test_over_http_in_four_formats(busy: Market, tmp_path: Path) -> None:
    secrets = Secrets({name: f"{name} of the tests" for name in NAMES})
    later = busy.now + timedelta(days=20)
    settings = Settings(home=tmp_path, database_url="")
    app = create_api(settings, secrets=secrets, sessions=busy.sessions, clock=lambda: later)
    client = app.test_client()
    # Sessions end before then, so each signs in anew.
    signed = client.post("/api/v1/sessions", json={"email": "factory@demo.example", "password": "open-sesame-42"})
    headers = {"Authorization": f"Bearer {signed.json['token']}", "Accept-Language": "en"}
    body = client.get("/api/v1/statement?month=2026-11", headers=headers).json
    line = body["lines"][0]
    found = client.get(f"/api/v1/statement/lines/{line['line_id']}/records?limit=1", headers=headers)
    assert found.status_code == 200, found.text
    assert found.json["line_id"] == line["line_id"]
    for ending, start in (("csv", b"\xef\xbb\xbf"), ("xlsx", b"PK"), ("pdf", b"%PDF")):
        answer = client.get(f"/api/v1/statement.{ending}?month=2026-11", headers=headers)
        assert answer.data.startswith(start)
        assert f'filename="statement-2026-11.{ending}"' in answer.headers["Content-Disposition"]
    closing = {"organisation_id": busy.owner("factory"), "month": "2026-11"}
    assert client.post("/api/v1/statement/close", json=closing, headers=headers).status_code == 403
    answer = client.get("/api/v1/statement?month=2026-13", headers=headers)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_value")
