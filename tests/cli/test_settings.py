"""Settings are read once, all problems are told together, and what is unknown is refused."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from hub.settings import Settings, SettingsError, read_settings


def test_nothing_set_binds_loopback_and_keeps_all_in_one_folder() -> None:
    settings = read_settings({"PATH": "/bin"})
    assert (settings.bind, settings.production) == ("127.0.0.1", False)
    assert settings.home == Path("var").absolute()
    assert settings.database_url == f"sqlite:///{settings.home / 'hub.sqlite3'}"
    assert settings.hub_url == "http://127.0.0.1:8000"
    assert settings.gateway_url == settings.shown_gateway_url == "http://127.0.0.1:8080/v1"


def test_every_setting_makes_a_difference(tmp_path: Path) -> None:
    environment = {
        "GUANMO_HOME": str(tmp_path),
        "GUANMO_DATABASE_URL": "postgresql+psycopg://guanmo@/hub",
        "GUANMO_BIND": "0.0.0.0",  # noqa: S104  read, not bound
        "GUANMO_HUB_PORT": "1",
        "GUANMO_GATEWAY_PORT": "2",
        "GUANMO_POOL_PORT": "3",
        "GUANMO_MLFLOW_PORT": "65535",
        "GUANMO_PUBLIC_URL": "https://models.example/v1/",
        "GUANMO_PRODUCTION": "1",
    }
    settings = read_settings(environment)
    assert settings == Settings(
        home=tmp_path,
        database_url="postgresql+psycopg://guanmo@/hub",
        bind="0.0.0.0",  # noqa: S104  read, not bound
        hub_port=1,
        gateway_port=2,
        pool_port=3,
        mlflow_port=65535,
        public_url="https://models.example/v1",
        production=True,
    )
    assert settings.hub_url == "http://127.0.0.1:1"
    assert settings.shown_gateway_url == "https://models.example/v1"


def test_all_problems_are_told_together() -> None:
    environment = {
        "GUANMO_HOME": "",
        "GUANMO_HOMES": "x",
        "GUANMO_BIND": "everywhere",
        "GUANMO_HUB_PORT": "0",
        "GUANMO_GATEWAY_PORT": "eighty",
        "GUANMO_POOL_PORT": "65536",
        "GUANMO_PRODUCTION": "yes",
        "GUANMO_PUBLIC_URL": "models.example",
        "GUANMO_DATABASE_URL": "mysql://guanmo:hunter2@db/hub",
    }
    with pytest.raises(SettingsError) as refusal:
        read_settings(environment)
    for name in environment:
        assert name in refusal.value.en, name
        assert name in refusal.value.zh, name
    assert "known: GUANMO_BIND" in refusal.value.en
    assert "hunter2" not in refusal.value.en


@pytest.mark.parametrize("text", ["-1", "1.5", " 80", "８０", "99999", ""])
def test_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"GUANMO_HUB_PORT is '.*'; give a port from 1 to 65535"):
        read_settings({"GUANMO_HUB_PORT": text})


def test_one_port_for_two_processes_is_refused() -> None:
    with pytest.raises(SettingsError, match="GUANMO_GATEWAY_PORT and GUANMO_HUB_PORT are both 8080"):
        read_settings({"GUANMO_HUB_PORT": "8080"})


def test_shell_that_read_demo_env_may_go_on() -> None:
    assert (
        read_settings({"GUANMO_URL": "http://x", "GUANMO_MODEL": "a/b@1", "GUANMO_BASE_MODEL": "a/c"}).hub_port == 8000
    )


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        read_settings({}).hub_port = 1  # type: ignore[misc]
