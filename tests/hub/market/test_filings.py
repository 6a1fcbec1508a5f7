"""Filings: what a base's standing is at each moment, evidence, withdrawal, demonstration marks."""

import io
from datetime import datetime, timedelta
from typing import Any

import pytest
from werkzeug.test import TestResponse

from hub.errors import GuanmoError
from hub.filings.rules import StandingState, check_filing, derive_standing, explain_standing
from hub.filings.service import standing_of
from hub.filings.tables import Filing, Track
from tests.hub.market.world import World, count

DIGEST = "a" * 64
PDF = b"%PDF-1.7 demonstration"
FIELDS = {
    "weights_digest": DIGEST,
    "model_name": "莞模一号",
    "holder": "演示企业",
    "number": "DEMO-备案-0001",
    "body": "演示机构",
    "authority": "demonstration",
    "scope": "工单与合同",
    "filed_at": "2026-01-05T00:00:00+08:00",
}


def record(
    world: World, name: str = "evidence.pdf", content: bytes = PDF, who: str = "operator", **changes: Any
) -> TestResponse:
    fields = {key: value for key, value in {**FIELDS, **changes}.items() if value is not None}
    sent = {**fields, "evidence": (io.BytesIO(content), name)}
    return world.call("POST", "/filings", who, data=sent, content_type="multipart/form-data")


def state_of(world: World, moment: datetime | None = None) -> StandingState:
    with world.sessions.read() as session:
        return standing_of(session, DIGEST, moment or world.now).state


def test_a_filing_makes_the_base_valid_and_keeps_its_evidence(world: World) -> None:
    assert state_of(world) is StandingState.NEVER
    made = record(world, "备案通知.pdf")
    assert made.status_code == 201
    assert (made.json["state"], made.json["track"], made.json["demo"]) == ("valid", "备案", True)
    assert state_of(world) is StandingState.VALID
    assert (world.store.path(made.json["evidence_digest"]) / "evidence.pdf").read_bytes() == PDF
    path = f"/filings/{made.json['id']}/evidence"
    download = world.call("GET", path, "auditor")
    assert (download.status_code, download.data) == (200, PDF)
    assert download.headers["Content-Disposition"].startswith("attachment")
    assert world.call("GET", path, "factory").status_code == 403
    assert world.call("GET", path).status_code == 401
    [listed] = world.call("GET", "/filings").json["filings"]
    assert listed["number"] == "DEMO-备案-0001"


def test_withdrawal_and_expiry_end_it(world: World) -> None:
    until = world.now + timedelta(days=30)
    made = record(world, valid_until=until.isoformat()).json
    assert state_of(world, until - timedelta(microseconds=1)) is StandingState.VALID
    assert state_of(world, until) is StandingState.EXPIRED
    path = f"/filings/{made['id']}/withdraw"
    assert world.call("POST", path, "factory", json={"reason": "mine"}).status_code == 403
    withdrawn = world.call("POST", path, "operator", json={"reason": "holder dissolved"}).json
    assert withdrawn["state"] == "withdrawn"
    again = world.call("POST", path, "operator", json={"reason": "twice"}).json
    assert again["withdrawn_reason"] == "holder dissolved"
    standing = world.call("GET", f"/filings/standing/{DIGEST}").json
    assert standing["state"] == "withdrawn"
    assert "holder dissolved" in standing["text"]


def test_a_second_valid_filing_keeps_the_base_valid(world: World) -> None:
    first = record(world).json
    assert record(world).status_code == 409
    assert record(world, number="DEMO-备案-0002").status_code == 201
    world.call("POST", f"/filings/{first['id']}/withdraw", "operator", json={"reason": "replaced"})
    assert state_of(world) is StandingState.VALID


def filing(now: datetime, **changes: Any) -> Filing:
    fields = {
        "track": Track.FILING,
        "filed_at": now - timedelta(days=9),
        "number": "n",
        "model_name": "m",
        "authority": "a",
    }
    return Filing(**{**fields, "valid_until": None, "withdrawn_at": None, "withdrawn_reason": None, **changes})


def test_each_standing_is_explained_in_both_languages(now: datetime) -> None:
    day = timedelta(days=1)
    cases = {
        StandingState.NEVER: [],
        StandingState.VALID: [filing(now)],
        StandingState.EXPIRED: [filing(now, valid_until=now - day)],
        StandingState.WITHDRAWN: [filing(now, withdrawn_at=now - day, withdrawn_reason="why")],
    }
    texts = set()
    for state, filings in cases.items():
        standing = derive_standing(filings, now)
        assert standing.state is state
        texts |= set(explain_standing(standing))
    assert len(texts) == 8


def test_a_filing_of_tomorrow_and_a_registration_do_not_count(now: datetime) -> None:
    tomorrow = filing(now, filed_at=now + timedelta(days=1))
    registration = filing(now, track=Track.REGISTRATION)
    assert derive_standing([tomorrow, registration], now).state is StandingState.NEVER


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"track": "登记"}, "track"),
        ({"valid_until": "2025-01-01T00:00:00+08:00"}, "valid_until"),
        ({"number": "国模备-1"}, "number"),
        ({"authority": "CAC"}, "number"),
        ({"weights_digest": "A" * 64}, None),
        ({"filed_at": "2026-01-05"}, None),
        ({"filed_at": "yesterday"}, None),
        ({"filed_at": "9" * 5_000}, None),
        ({"holder": "x\x00y"}, None),
        ({"holder": "x\u202ey"}, None),
        ({"holder": "x" * 201}, None),
        ({"holder": None}, None),
        ({"approved_by": "me"}, None),
    ],
)
def test_bad_fields_are_refused_and_nothing_is_kept(world: World, changes: dict[str, Any], field: str | None) -> None:
    answer = record(world, **changes)
    assert (answer.status_code, answer.json.get("field")) == (422, field)
    assert count(world, Filing) == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.exe", PDF),
        ("evidence.pdf", b"MZ not a pdf"),
        ("evidence.pdf", b""),
        ("e\u202evidence.pdf", PDF),
        ("e" * 250 + ".pdf", PDF),
        ("evidence.svg", b"<svg onload=x>"),
    ],
)
def test_bad_evidence_is_refused(world: World, name: str, content: bytes) -> None:
    assert record(world, name, content).status_code == 422
    assert count(world, Filing) == 0
    assert not list(world.store.root.glob("*"))


def test_a_path_in_the_name_of_the_evidence_is_dropped(world: World) -> None:
    assert record(world, "../../etc/passwd.pdf").json["evidence_name"] == "passwd.pdf"


@pytest.mark.parametrize("who", ["factory", "integrator", "auditor"])
def test_only_the_operator_files(world: World, who: str) -> None:
    assert record(world, who=who).status_code == 403
    assert count(world, Filing) == 0


def test_production_refuses_demonstration_filings(world: World) -> None:
    with pytest.raises(GuanmoError, match="production refuses"):
        check_filing(
            number="DEMO-备案-0001",
            authority="demonstration",
            track=Track.FILING,
            filed_at=world.now,
            valid_until=None,
            production=True,
        )
