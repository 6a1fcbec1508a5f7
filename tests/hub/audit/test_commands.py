"""The audit commands on an installation of its own, and the auditor's pages of the API."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.app import create_api
from hub.audit.service import keep_audit
from hub.audit.tree import is_included
from hub.cli.main import app
from hub.database import Sessions
from hub.ledger.tables import Transfer
from hub.organisations.service import sign_in
from hub.secrets import make_secrets, read_secrets
from hub.settings import read_settings
from tests.hub.audit.year import run_two_months
from tests.hub.money.market import Market


@pytest.fixture
def installed(market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Market:
    """A traded market as the installation that the environment names."""
    make_secrets(tmp_path)
    for name in [name for name in os.environ if name.startswith("GUANMO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GUANMO_HOME", str(tmp_path))
    monkeypatch.setenv("GUANMO_DATABASE_URL", str(market.sessions.engine.url))
    run_two_months(market)
    return market


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def test_the_whole_way_of_an_auditor(installed: Market, tmp_path: Path) -> None:
    assert "signed at size" in run("audit", "checkpoint")
    assert "nothing new to sign" in run("audit", "checkpoint")
    assert "whole, 1 checkpoints" in run("audit", "check")
    place = str(tmp_path / "books.zip")
    assert "18 files" in run("audit", "export", place, "--to", "2026-12")
    assert run("verify", place, "--checkpoints", str(tmp_path / "audit" / "checkpoints")).endswith("VERIFIED\n")
    assert "postings" in run("audit", "books", place, str(tmp_path / "j"), "--format", "hledger")
    assert "python" in run("audit", "verifier", str(tmp_path / "verify.pyz"))


def test_wrong_ways_are_refused(installed: Market, tmp_path: Path) -> None:
    for arguments in (
        ("verify", str(tmp_path / "nothing")),
        ("audit", "export", str(tmp_path / "x"), "--to", "2026-13"),
        ("audit", "books", str(tmp_path / "x"), str(tmp_path / "y"), "--format", "word"),
    ):
        run(*arguments, code=1)
    assert not (tmp_path / "x").exists()


def test_the_worker_keeps_the_trail_and_the_auditor_proves_a_transfer(installed: Market, tmp_path: Path) -> None:
    sessions: Sessions = installed.sessions
    assert keep_audit(sessions, tmp_path, installed.now) > 100
    assert keep_audit(sessions, tmp_path, installed.now + timedelta(seconds=5)) == 0
    settings = read_settings(os.environ)
    hub = create_api(settings, secrets=read_secrets(tmp_path), sessions=sessions, clock=lambda: installed.now)
    client = hub.test_client()
    with sessions.read() as session:
        transfer = session.get_one(Transfer, 7)
    with sessions.write() as session:
        tokens = {
            who: sign_in(session, email=f"{who}@demo.example", password="open-sesame-42", now=installed.now).token
            for who in ("auditor", "factory")
        }
    headers = {"Authorization": f"Bearer {tokens['auditor']}"}
    listed = client.get("/api/v1/audit/checkpoints", headers=headers).get_json()
    assert listed["public_key"].startswith("guanmo/audit+")
    proof = client.get(f"/api/v1/audit/transfers/{transfer.id}/proof", headers=headers).get_json()
    assert is_included(
        bytes.fromhex(proof["leaf_hash"]),
        proof["index"],
        listed["items"][0]["size"],
        path=[bytes.fromhex(node) for node in proof["path"]],
        root=bytes.fromhex(listed["items"][0]["root"]),
    )
    assert client.get("/api/v1/audit/transfers/tra_none/proof", headers=headers).status_code == 404
    refused = client.get("/api/v1/audit/checkpoints", headers={"Authorization": f"Bearer {tokens['factory']}"})
    assert refused.status_code == 403
