"""Terminals of the market's people at a hub that runs, for the tests of commands; it leaves asserting to them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hub.app import create_api
from hub.cli.calling import HubCallError
from hub.cli.main import app
from hub.organisations.service import sign_in
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from tests.app_copies import copy_app
from tests.hub.money.market import PASSWORD, Market
from tests.web import served


@dataclass
class Terminal:
    """A terminal of each person, at a hub that runs."""

    market: Market
    hub: str

    def invoke(self, who: str, *words: str, typed: str = "") -> Result:
        """Run a command as somebody; what is typed answers its questions."""
        options = ["--hub", self.hub, "--key", self.market.tokens[who]]
        return CliRunner().invoke(app, [*words, *options], input=typed)

    def run(self, who: str, *words: str, typed: str = "") -> str:
        """Return what a command prints; a refusal is raised."""
        result = self.invoke(who, *words, typed=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def run_plain(self, *words: str) -> str:
        """Return what a command prints for a stranger."""
        return CliRunner().invoke(app, [*words, "--hub", self.hub], catch_exceptions=False).stdout

    def read(self, who: str, *words: str) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self.run(who, *words, "--json"))

    def refused(self, who: str, *words: str) -> str:
        """Return the code with which the hub refuses a command."""
        with pytest.raises(HubCallError) as found:
            self.run(who, *words)
        return found.value.code

    def declined(self, who: str, *words: str) -> bool:
        """Say whether a command asked, took no for an answer and ended with 1."""
        result = self.invoke(who, *words, typed="n\n")
        return result.exit_code == 1 and "Aborted" in result.output

    def sign_in(self, *people: str) -> None:
        """Sign people in again, where the day has moved on and their sessions have run out."""
        with self.market.sessions.write() as session:
            for who in people:
                signed = sign_in(session, email=f"{who}@demo.example", password=PASSWORD, now=self.market.now)
                self.market.tokens[who] = signed.token


def serve(market: Market, home: Path) -> Iterator[Terminal]:
    """Yield terminals at a hub on the market's database; its clock is the market's."""
    market.tokens = dict(market.tokens)
    secrets = Secrets({name: f"{name} of the tests" for name in NAMES})
    settings = Settings(home=home, database_url="")
    hub = copy_app(create_api, settings, secrets=secrets, sessions=market.sessions, clock=lambda: market.now)
    with served(hub) as base:
        yield Terminal(market, base)


@pytest.fixture
def street(market: Market, tmp_path: Path) -> Iterator[Terminal]:
    """Nobody has money or vouchers yet."""
    yield from serve(market, tmp_path)


@pytest.fixture
def terminal(rich: Market, tmp_path: Path) -> Iterator[Terminal]:
    """The factory has both vouchers and cash."""
    yield from serve(rich, tmp_path)


def write_paper(folder: Path, name: str = "contract.pdf") -> Path:
    """Write a small document that the hub takes as evidence, and return it."""
    file = folder / name
    file.write_bytes(b"%PDF-1.4 a paper of the tests")
    return file
