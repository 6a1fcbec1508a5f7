"""How the MLflow server is started: what stands in its command, environment and files."""

import stat
from pathlib import Path

import pytest

from registry.mlflow_server import ServerSecretError, prepare_server, server_argv, server_env

PASSWORD = "p" * 20


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A password file as `guanmo init` writes it."""
    path = tmp_path / "mlflow.password"
    path.write_text(PASSWORD + "\n")
    return path


def test_command_binds_loopback_and_carries_no_secret(tmp_path: Path) -> None:
    argv = server_argv(tmp_path, 8050)
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--allowed-hosts") + 1] == "127.0.0.1:8050"
    assert argv[argv.index("--workers") + 1] == "1"
    assert str(tmp_path / "mlflow" / "mlflow.sqlite3") in argv[argv.index("--backend-store-uri") + 1]
    assert PASSWORD not in " ".join(argv)


def test_environment_holds_only_what_the_server_needs(tmp_path: Path, password_file: Path) -> None:
    env = server_env(tmp_path, password_file=password_file, inherited={"PATH": "/bin", "GUANMO_PEPPER": "x"})
    assert "GUANMO_PEPPER" not in env
    assert env["PATH"] == "/bin"
    assert env["MLFLOW_AUTH_ADMIN_PASSWORD"] == PASSWORD
    assert env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert PASSWORD not in env["MLFLOW_FLASK_SERVER_SECRET_KEY"]


def test_each_password_has_its_own_users(tmp_path: Path, password_file: Path) -> None:
    prepare_server(tmp_path, password_file=password_file)
    config = tmp_path / "mlflow" / "auth.ini"
    first = config.read_text()
    prepare_server(tmp_path, password_file=password_file)
    assert config.read_text() == first
    assert PASSWORD not in first
    password_file.write_text("q" * 20)
    prepare_server(tmp_path, password_file=password_file)
    assert config.read_text() != first
    assert stat.S_IMODE((tmp_path / "mlflow").stat().st_mode) == 0o700


def test_missing_and_weak_passwords_are_refused(tmp_path: Path, password_file: Path) -> None:
    password_file.write_text("short\n")
    with pytest.raises(ServerSecretError, match="5 characters"):
        prepare_server(tmp_path, password_file=password_file)
    password_file.unlink()
    with pytest.raises(ServerSecretError, match="guanmo init"):
        server_env(tmp_path, password_file=password_file, inherited={})
    assert not (tmp_path / "mlflow").exists()
