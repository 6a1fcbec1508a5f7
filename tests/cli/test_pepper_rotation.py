"""A new pepper with the old one beside it: older keys go on in hub and gateway until the old file is taken away."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from hub.actor import Role
from hub.app import create_api
from hub.cli.home import prepare_home
from hub.cli.processes import list_processes
from hub.clock import read_clock
from hub.database import Sessions, open_sessions
from hub.organisations.people import create_user
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.organisations.service import create_organisation, mark_verified, sign_in
from hub.secrets import PREVIOUS_PEPPER, SecretsError, read_secrets
from hub.settings import Settings
from tests.gateway.world import free_port, wait_for
from tests.web import served

EMAIL, PASSWORD = "person@demo.example", "open-sesame-42"


@dataclass
class House:
    """One start of an installation: its hub in this process, its gateway as production starts it."""

    hub: str
    gateway: str
    sessions: Sessions

    def make_key(self) -> str:
        """Return the text of a new key."""
        with self.sessions.write() as session:
            token = sign_in(session, email=EMAIL, password=PASSWORD, now=read_clock()).token
        headers = {"authorization": f"Bearer {token}"}
        answer = httpx.post(f"{self.hub}/api/v1/keys", json={"name": "line 1"}, headers=headers)
        return str(answer.raise_for_status().json()["key"])

    def ask(self, key: str) -> tuple[int, int]:
        """Return what gateway and hub answer to a key."""
        headers = {"authorization": f"Bearer {key}"}
        models = wait_for(lambda: self._look(f"{self.gateway}/v1/models", headers))
        return models, httpx.get(f"{self.hub}/v1/fine_tuning/jobs", headers=headers).status_code

    def _look(self, url: str, headers: dict[str, str]) -> int | None:
        """None while the gateway has heard nothing from the hub yet."""
        try:
            status = httpx.get(url, headers=headers, timeout=10).status_code
        except httpx.TransportError:
            return None
        return None if status == 503 else status


@contextlib.contextmanager
def started(settings: Settings) -> Iterator[House]:
    """Do what `guanmo up` does before a start, then run hub and gateway."""
    prepare_home(settings)
    sessions = open_sessions(settings.database_url)
    app = create_api(settings, secrets=read_secrets(settings.home), sessions=sessions)
    (settings.home / "journal").mkdir(exist_ok=True)
    argv = next(process.argv for process in list_processes(settings) if process.name == "gateway")
    with served(app) as hub:
        argv = [hub if part == settings.hub_url else part for part in argv]
        # One process: several wait for the routes of a pool, and there is none here.
        with subprocess.Popen([*argv, "--processes", "1"]) as gateway:
            try:
                yield House(hub, f"http://127.0.0.1:{settings.gateway_port}", sessions)
            finally:
                gateway.terminate()
        assert gateway.returncode == 0
    sessions.close()


def settle_in(settings: Settings) -> None:
    """Make a firm with one person."""
    prepare_home(settings)
    sessions, now = open_sessions(settings.database_url), read_clock()
    with sessions.write() as session:
        uscc = make_demo_uscc(1)
        firm = create_organisation(session, name="Firm", slug="firm", uscc=uscc, kind=OrganisationKind.FACTORY, now=now)
        mark_verified(session, firm.id, by="system", now=now)
        create_user(
            session,
            organisation_id=firm.id,
            email=EMAIL,
            name="person",
            password=PASSWORD,
            role=Role.FACTORY,
            now=now,
        )
    sessions.close()


def test_keys_outlive_the_pepper_that_they_were_made_under(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ports = {name: free_port() for name in ("hub_port", "gateway_port", "pool_port")}
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'hub.sqlite3'}", **ports)
    settle_in(settings)
    folder = tmp_path / "secrets"
    with started(settings) as house:
        old = house.make_key()
        assert house.ask(old) == (200, 200)
    (folder / "pepper").rename(folder / PREVIOUS_PEPPER)
    with started(settings) as house:
        new = house.make_key()
        assert (house.ask(old), house.ask(new)) == ((200, 200), (200, 200))
        assert house.ask(f"{old[:-1]}~") == (401, 401)
    assert "live under the previous pepper: 1 /" in capsys.readouterr().err
    (folder / PREVIOUS_PEPPER).unlink()
    with started(settings) as house:
        assert (house.ask(old), house.ask(new)) == ((401, 401), (200, 200))
    assert "their pepper is gone: 1 /" in capsys.readouterr().err


def test_a_pepper_lost_on_the_way_is_told_before_anything_starts(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database_url=f"sqlite:///{tmp_path / 'hub.sqlite3'}")
    prepare_home(settings)
    (tmp_path / "secrets" / "pepper").unlink()
    with pytest.raises(SecretsError, match="pepper"):
        prepare_home(settings)
