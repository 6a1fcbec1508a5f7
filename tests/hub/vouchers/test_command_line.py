"""`guanmo programmes`: the same rules by command line, and the same refusal of one person doing both halves."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.cli.programmes import programmes
from hub.errors import FourEyesError
from tests.hub.money.market import PASSWORD, Market


@pytest.fixture
def installed(market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Market:
    monkeypatch.setenv("GUANMO_DATABASE_URL", str(market.sessions.engine.url))
    monkeypatch.setenv("GUANMO_HOME", str(tmp_path))
    monkeypatch.setattr("hub.cli.programmes.read_clock", lambda: market.now)
    return market


def run(*words: str, typed: str = "") -> str:
    result = CliRunner().invoke(programmes, list(words), input=typed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_list_show_draft_and_approve(installed: Market, tmp_path: Path) -> None:
    listed = run("list")
    assert "模型券" in listed
    assert listed.count("not open here") == 1
    shape = json.loads(run("show", "model"))
    shape["body"]["share"] = {"num": 2, "den": 5}
    shape["effective_from_at"] = "2027-01-01T00:00:00+08:00"
    file = tmp_path / "rule.json"
    file.write_text(json.dumps(shape), encoding="utf-8")
    drafted = run("draft", "model", str(file), "--as", "checker@demo.example", typed=f"{PASSWORD}\n")
    assert "share: {'num': 1, 'den': 2} -> {'num': 2, 'den': 5}  (our default" in drafted
    rule_id = next(word for word in drafted.split() if word.startswith("rul_")).rstrip(",")
    with pytest.raises(FourEyesError):
        run("approve", rule_id, "--as", "checker@demo.example", typed=f"{PASSWORD}\n")
    assert "Version 2" in run("approve", rule_id, "--as", "approver@demo.example", typed=f"{PASSWORD}\n")
    assert json.loads(run("show", "model", "--number", "2"))["state"] == "approved"
