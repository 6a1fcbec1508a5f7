"""Vouchers and claims over HTTP: the officer's and the firm's way, and refusals with the rule's name."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from hub.app import create_api
from hub.organisations.service import sign_in
from hub.organisations.tables import Organisation, OrganisationState
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from registry.store import FolderStore
from tests.described import watch_answers
from tests.hub.money.market import PAPER, PASSWORD, Market
from tests.hub.vouchers.steps import add_invoice, assert_books, buy, shanghai

ROOMS = ("organisations", "ledger", "prices", "vouchers", "metering", "orders", "claims")
SECRETS = Secrets({name: f"{name} of the tests" for name in NAMES})


@dataclass
class Client:
    """The API as an outside client sees it."""

    app: OpenAPI
    market: Market

    def call(self, method: str, path: str, who: str, body: dict[str, Any] | None = None) -> TestResponse:
        headers = {"Accept-Language": "en", "Authorization": f"Bearer {self.market.tokens[who]}"}
        return self.app.test_client().open(f"/api/v1{path}", method=method, headers=headers, json=body, buffered=True)

    def ok(self, method: str, path: str, who: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.call(method, path, who, body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json

    def refused(self, method: str, path: str, who: str, body: dict[str, Any] | None = None) -> str:
        answer = self.call(method, path, who, body)
        assert 400 <= answer.status_code < 500, answer.text
        told: Any = answer.json
        code: str = told["code"]
        return code


@pytest.fixture
def client(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr("hub.app.ROOMS", ROOMS)
    market.tokens = dict(market.tokens)
    settings = Settings(home=tmp_path, database_url="")
    app = create_api(settings, secrets=SECRETS, sessions=market.sessions, clock=lambda: market.now)
    return Client(watch_answers(app), market)


def apply(client: Client, **more: Any) -> str:
    body = {"programme": "model", "asked_fen": 30_000, "contract_no": "HT-1", "evidence": [PAPER], **more}
    found: str = client.ok("POST", "/voucher-applications", "factory", body)["id"]
    return found


def decide(client: Client, application: str, who: str, decision: str, reason: str = "") -> Any:
    body = {"decision": decision, "reason": reason}
    return client.call("POST", f"/voucher-applications/{application}/reviews", who, body)


def test_return_completion_refusal_and_appeal(client: Client) -> None:
    application = apply(client)
    path = f"/voucher-applications/{application}"
    assert decide(client, application, "checker", "return", "page 2").json["state"] == "returned"
    body = {"asked_fen": 20_000, "evidence": [{**PAPER, "kind": "other"}]}
    assert client.ok("POST", f"{path}/resubmission", "factory", body)["round"] == 2
    assert decide(client, application, "checker", "refuse", "not eligible").json["state"] == "refused"
    assert client.refused("POST", f"{path}/appeal", "rival", {"reason": "mine"}) == "not_found"
    assert client.ok("POST", f"{path}/appeal", "factory", {"reason": "we are"})["state"] == "appealed"
    assert decide(client, application, "checker", "check").json["code"] == "four_eyes"
    assert decide(client, application, "approver", "check").json["state"] == "checked"
    assert decide(client, application, "operator", "approve").json["state"] == "approved"
    [grant] = client.ok("GET", "/grants", "factory")["items"]
    assert (grant["awarded_fen"], grant["state"]) == (20_000, "active")
    revoked = client.ok("POST", f"/grants/{grant['id']}/revocation", "operator", {"reason": "false papers"})
    assert (revoked["state"], revoked["returned_fen"], revoked["left_fen"]) == ("revoked", 20_000, 0)
    [seen] = client.ok("GET", "/grants", "factory")["items"]
    assert (seen["ended_reason"], seen["ended_at"]) == ("false papers", client.market.now.isoformat())


def test_a_rule_is_previewed_drafted_and_approved_or_refused_by_two(client: Client) -> None:
    [rule] = client.ok("GET", "/programmes/model/rules", "factory")["items"]
    body = {**rule["body"], "per_firm_cap_fen": 90_000_000, "our_defaults": ["share"]}
    preview = client.ok("POST", "/programmes/model/rules/preview", "checker", {"body": body})
    assert preview["against"] == 1
    changed = {item["field"]: (item["before"], item["after"]) for item in preview["items"]}
    assert changed["per_firm_cap_fen"] == (100_000_000, 90_000_000)
    assert set(changed) == {"per_firm_cap_fen", "our_defaults"}
    wanted = {"body": body, "effective_from_at": "2027-01-01T00:00:00+08:00", "source": "notice 7"}
    drafted = client.ok("POST", "/programmes/model/rules", "checker", wanted)
    assert client.refused("POST", f"/rules/{drafted['id']}/approve", "checker") == "four_eyes"
    assert client.refused("POST", f"/rules/{drafted['id']}/approve", "auditor") == "forbidden"
    assert client.ok("POST", f"/rules/{drafted['id']}/approve", "approver")["state"] == "approved"
    programmes = {row["code"]: row for row in client.ok("GET", "/programmes", "factory")["items"]}
    assert programmes["model"]["rule"]["number"] == 1  # the new one begins with the year
    second = client.ok("POST", "/programmes/model/rules", "checker", wanted)["id"]
    assert client.refused("POST", f"/rules/{second}/refuse", "approver", {"reason": ""}) == "invalid_value"
    assert client.refused("POST", f"/rules/{second}/refuse", "auditor", {"reason": "x"}) == "forbidden"
    refused = client.ok("POST", f"/rules/{second}/refuse", "approver", {"reason": "a year too late"})
    assert (refused["state"], refused["refusal_reason"]) == ("refused", "a year too late")
    assert client.refused("POST", f"/rules/{second}/approve", "approver") == "conflict"
    told = {
        person: next(row for row in client.ok("GET", "/programmes/model/rules", person)["items"] if row["id"] == second)
        for person in ("auditor", "factory")
    }
    assert told["auditor"]["refusal_reason"] == "a year too late"
    assert (told["factory"]["refused_by"], told["factory"]["refusal_reason"]) == (None, None)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (
            "/programmes/coffee/rules",
            {"body": {}, "effective_from_at": "2027-01-01T00:00:00Z", "source": "x"},
            "not_found",
        ),
        (
            "/programmes/model/rules",
            {"body": {}, "effective_from_at": "2027-01-01T00:00:00Z", "source": "x"},
            "bad_rule",
        ),
        ("/claims", {"programme": "coffee", "period": "2026-11"}, "not_found"),
        ("/claims", {"programme": "model", "period": "2026-11-1"}, "invalid_value"),
        ("/claims", {"programme": "model", "period": "2026-11-09--2026-11-02"}, "invalid_value"),
        ("/claims", {"programme": "model", "period": "2026-11-01--2026-11-30"}, "nothing_to_claim"),
        ("/claims", {"programme": "model", "period": "2026-11"}, "nothing_to_claim"),
        ("/claims", {"programme": "model", "period": "2026-11", "organisation_id": "org_x"}, "not_found"),
        ("/authority-reports", {"period": "2026-11"}, "period_running"),
        ("/authority-reports", {"period": "soon"}, "invalid_value"),
        ("/authority-reports", {"period": "2026-11-09--2026-11-02"}, "invalid_value"),
        ("/authority-reports", {"period": "2026-11-01--2026-11-02"}, "period_running"),
        ("/grants/gra_x/redemptions", {"charge_ids": ["chg_x"]}, "not_found"),
        ("/related-parties", {"buyer_id": "a", "seller_id": "a", "verdict": "cleared", "reason": "x"}, "invalid_value"),
    ],
)
def test_bad_input_is_refused_with_the_rules_name(client: Client, path: str, body: dict[str, Any], code: str) -> None:
    assert client.refused("POST", path, "checker", body) == code
    assert_books(client.market)


def test_amounts_are_whole_fen(client: Client) -> None:
    wrong: tuple[object, ...] = (0, -5, 2**63, 100_000_001, 1.5, "100", True)
    for asked in wrong:
        body = {"programme": "model", "asked_fen": asked, "contract_no": "HT-1", "evidence": [PAPER]}
        assert client.refused("POST", "/voucher-applications", "factory", body) == "invalid_value"


def test_claim_over_http_with_its_pack(client: Client) -> None:
    grant = client.market.award("model", 30_000)
    client.market.fund("factory", 10_000, "bank-1")
    buy(client.market, offer="private")
    paper = {"month": "2026-11", "kind": "invoice", "name": "i.pdf", "digest": "f" * 64, "number": "F-9"}
    assert client.refused("POST", f"/grants/{grant.id}/papers", "factory", paper) == "invalid_value"
    add_invoice(client.market, grant.id)
    assert len(client.ok("GET", f"/grants/{grant.id}/papers", "auditor")["items"]) == 1
    assert client.refused("GET", f"/grants/{grant.id}/papers", "rival") == "not_found"
    claim = client.ok("POST", "/claims", "checker", {"programme": "model", "period": "2026-Q4"})
    assert (claim["amount_fen"], len(claim["lines"])) == (2100, 2)
    days = {"programme": "model", "period": "2026-11-01--2026-11-30"}
    assert client.refused("POST", "/claims", "checker", days) == "days_overlap"
    path = f"/claims/{claim['id']}"
    assert client.refused("POST", f"{path}/refusal", "operator", {"reason": "x"}) == "claim_step"
    assert client.refused("POST", f"{path}/submission", "checker") == "four_eyes"
    assert client.refused("GET", f"{path}/pack", "factory") == "not_found"
    submitted = client.ok("POST", f"{path}/submission", "approver")
    pack = client.call("GET", f"{path}/pack", "auditor")
    assert pack.status_code == 200
    with zipfile.ZipFile(io.BytesIO(pack.data)) as archive:
        assert "manifest.json" in archive.namelist()
    assert submitted["pack_sha256"]
    paid = client.ok("POST", f"{path}/payment", "operator", {"paid_fen": 2000, "reference": "TR-1"})
    assert paid["difference_fen"] == -100
    assert client.refused("POST", f"{path}/reconciliation", "operator", {"reason": ""}) == "difference_unexplained"
    assert client.ok("POST", f"{path}/reconciliation", "operator", {"reason": "capped"})["state"] == "reconciled"
    assert [row["amount_fen"] for row in client.ok("GET", "/claim-lines", "factory")["items"]] == [600, 1500]
    for path in ("/claims", "/authority-reports"):
        assert client.refused("GET", path, "factory") == "forbidden"
        client.ok("GET", path, "auditor")


def test_a_refusal_of_the_authority_over_http(client: Client) -> None:
    grant = client.market.award("model", 30_000)
    client.market.fund("factory", 10_000, "bank-1")
    buy(client.market, offer="private")
    add_invoice(client.market, grant.id)
    wanted = {"programme": "model", "period": "2026-11"}
    path = f"/claims/{client.ok('POST', '/claims', 'checker', wanted)['id']}"
    client.ok("POST", f"{path}/submission", "approver")
    assert client.refused("POST", f"{path}/refusal", "operator", {"reason": " "}) == "invalid_value"
    assert client.refused("POST", f"{path}/refusal", "auditor", {"reason": "x"}) == "forbidden"
    told = client.ok("POST", f"{path}/refusal", "operator", {"reason": "form 3 lacks"})
    assert (told["state"], told["reason"]) == ("refused", "form 3 lacks")
    assert {row["state"] for row in client.ok("GET", "/claim-lines", "factory")["items"]} == {"refused"}
    assert client.ok("POST", "/claims", "checker", wanted)["amount_fen"] == 2100


def test_report_over_http(client: Client) -> None:
    client.market.award("model", 30_000)
    assert client.ok("GET", "/authority-reports/2026-11/preview.json", "auditor")["period"] == "2026-11"
    client.market.now = shanghai(2026, 12, 1)
    # The session that the tests signed in with has run out by then; the operator signs in again.
    with client.market.sessions.write() as session:
        for who in ("operator", "auditor"):
            signed = sign_in(session, email=f"{who}@demo.example", password=PASSWORD, now=client.market.now)
            client.market.tokens[who] = signed.token
    assert client.refused("POST", "/authority-reports", "auditor", {"period": "2026-11"}) == "forbidden"
    client.ok("POST", "/authority-reports", "operator", {"period": "2026-11"})
    first = client.call("GET", "/authority-reports/2026-11/report.csv", "auditor").data
    assert first == client.call("GET", "/authority-reports/2026-11/report.csv", "operator").data
    days = "2026-11-01--2026-11-30"
    assert client.ok("POST", "/authority-reports", "operator", {"period": days})["period"] == days
    assert client.call("GET", f"/authority-reports/{days}/report.csv", "auditor").data == first
    assert client.ok("GET", f"/authority-reports/{days}/report.json", "auditor")["until_at"].startswith("2026-11-30T16")
    changes = client.ok("GET", "/authority-reports/2026-11/changes", "auditor")
    assert changes["recounted_equal"] is True
    assert any(row["figure"] == "awarded_fen" and row["after"] == 30_000 for row in changes["items"])


def test_owners_and_rulings_over_http(client: Client) -> None:
    market = client.market
    for who in ("factory", "provider"):
        owner = client.ok(
            "POST", f"/organisations/{market.owner(who)}/owners", who, {"kind": "legal_person", "name": "王建国"}
        )
    assert client.ok("POST", f"/owners/{owner['id']}/confirmation", "operator")["confirmed"] is True
    assert client.refused("POST", f"/owners/{owner['id']}/end", "provider") == "forbidden"
    pair = f"buyer_id={market.owner('factory')}&seller_id={market.owner('provider')}"
    assert client.ok("GET", f"/related-parties?{pair}", "auditor")["blocks"] is True
    assert client.refused("GET", f"/related-parties?{pair}", "factory") == "forbidden"
    body = {
        "buyer_id": market.owner("factory"),
        "seller_id": market.owner("provider"),
        "verdict": "cleared",
        "reason": "namesakes, cards seen",
    }
    client.ok("POST", "/related-parties", "operator", body)
    found = client.ok("GET", f"/related-parties?{pair}", "auditor")
    assert (found["blocks"], found["ruling"]["reason"]) == (False, "namesakes, cards seen")
    [decided] = client.ok("GET", "/related-parties/decisions", "auditor")["items"]
    assert decided == found["ruling"]
    [waiting] = client.ok("GET", "/owners", "auditor")["items"]
    assert waiting["organisation_id"] == market.owner("factory")
    for path in ("/related-parties/decisions", "/owners"):
        assert client.refused("GET", path, "factory") == "forbidden"


@pytest.mark.parametrize("granted_fen", [0, -1, 30_001])
def test_an_award_of_nothing_or_of_more_than_asked_is_refused(client: Client, granted_fen: int) -> None:
    application = apply(client)
    decide(client, application, "checker", "check")
    path, body = f"/voucher-applications/{application}/reviews", {"decision": "approve", "granted_fen": granted_fen}
    refused: Any = client.call("POST", path, "approver", body).json
    assert (refused["code"], refused["field"]) == ("invalid_value", "granted_fen")
    assert client.ok("GET", "/grants", "factory")["items"] == []
    assert client.ok("GET", f"/voucher-applications/{application}", "factory")["state"] == "checked"
    client.ok("POST", path, "approver", body | {"granted_fen": 1})
    assert [grant["awarded_fen"] for grant in client.ok("GET", "/grants", "factory")["items"]] == [1]
    assert_books(client.market)


def send_document(client: Client, who: str, name: str, content: bytes = b"%PDF-1.4 x", field: str = "paper") -> Any:
    headers = {"Accept-Language": "en", "Authorization": f"Bearer {client.market.tokens[who]}"}
    files = {field: (io.BytesIO(content), name)}
    return client.app.test_client().post("/api/v1/papers", headers=headers, data=files).json


def test_a_document_is_kept_once_by_its_digest_and_named_by_an_application(client: Client) -> None:
    kept = send_document(client, "factory", "contract.pdf")
    assert send_document(client, "factory", "contract.pdf") == kept
    application = apply(client, evidence=[{"kind": "contract", **kept}])
    [paper] = client.ok("GET", f"/voucher-applications/{application}", "checker")["evidence"]
    assert (paper["name"], paper["digest"]) == ("contract.pdf", kept["digest"])


def test_whoever_decides_or_audits_opens_the_document_as_it_was_sent(client: Client) -> None:
    kept = send_document(client, "factory", "合同.pdf", b"%PDF-1.4 contract")
    path = f"/papers/{kept['digest']}"
    for who in ("checker", "auditor"):
        answer = client.call("GET", path, who)
        assert (answer.status_code, answer.data) == (200, b"%PDF-1.4 contract")
        assert answer.headers["Content-Disposition"] == f"attachment; filename={kept['digest'][:16]}.pdf"
        assert answer.mimetype == "application/octet-stream"
    for who in ("factory", "rival", "provider"):
        assert client.refused("GET", path, who) == "forbidden"
    assert client.refused("GET", f"/papers/{'0' * 64}", "checker") == "not_found"
    assert client.refused("GET", "/papers/..", "checker") in ("invalid_value", "not_found")


def test_an_artefact_that_is_no_document_is_not_served_as_one(client: Client, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"secret")
    digest = FolderStore(tmp_path / "artifacts").add_folder(weights).digest
    assert client.refused("GET", f"/papers/{digest}", "operator") == "not_found"


@pytest.mark.parametrize(
    ("who", "name", "content", "field", "code"),
    [
        ("factory", "tool.exe", b"MZ", "paper", "bad_filing"),
        ("factory", "contract.pdf", b"no pdf", "paper", "bad_filing"),
        ("factory", "contract.pdf", b"", "paper", "invalid_value"),
        ("factory", "contract.pdf", b"%PDF-1.4 x", "file", "invalid_value"),
        ("auditor", "contract.pdf", b"%PDF-1.4 x", "paper", "forbidden"),
        ("provider", "contract.pdf", b"%PDF-1.4 x", "paper", "forbidden"),
    ],
)
def test_what_is_no_document_of_a_firm_is_refused(
    client: Client, who: str, name: str, content: bytes, field: str, code: str
) -> None:
    assert send_document(client, who, name, content, field)["code"] == code


def test_only_a_verified_firm_has_documents_kept(client: Client) -> None:
    with client.market.sessions.write() as session:
        firm = session.get_one(Organisation, client.market.owner("factory"))
        firm.state, firm.verified_at = OrganisationState.PENDING, None
    assert send_document(client, "factory", "contract.pdf")["code"] == "organisation_not_verified"
    assert send_document(client, "operator", "contract.pdf")["name"] == "contract.pdf"
