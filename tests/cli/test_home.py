"""`guanmo init`, `reset`, `logs` and the demonstration's lock on a real folder; no process is started."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import create_engine, inspect
from typer.testing import CliRunner

from hub.cli.main import app
from hub.errors import GuanmoError

ROOT = Path(__file__).resolve().parent.parent.parent


def test_init_makes_secrets_and_tables_and_can_be_repeated(tmp_path: Path) -> None:
    home = tmp_path / "my home"
    for _ in range(2):
        done = call_guanmo(home, "init")
        assert done.exit_code == 0, done.output
    engine = create_engine(f"sqlite:///{home / 'hub.sqlite3'}")
    assert {"organisations", "ledger_accounts", "runs"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_reset_asks_and_keeps_only_trained_bases(tmp_path: Path) -> None:
    home = tmp_path / "home"
    call_guanmo(home, "init")
    for folder in ("bases/x", "artifacts/locked"):
        (home / folder).mkdir(parents=True)
        (home / folder / "config.json").write_text("{}")
    (home / "artifacts" / "locked").chmod(0o500)
    refused = call_guanmo(home, "reset", typed="yes\n")
    assert refused.exit_code == 1
    assert "You typed 'yes', not 'reset'; nothing was deleted" in str(refused.exception)
    assert (home / "hub.sqlite3").is_file()
    done = call_guanmo(home, "reset", typed="reset\n")
    assert done.exit_code == 0, done.output
    assert [path.name for path in home.iterdir()] == ["bases"]
    assert (home / "bases" / "x" / "config.json").is_file()


def test_reset_never_deletes_a_folder_that_is_no_installation(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    refused = call_guanmo(tmp_path, "reset", "--yes")
    assert refused.exit_code == 1
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_reset_does_not_pretend_to_clear_another_database(tmp_path: Path) -> None:
    call_guanmo(tmp_path, "init")
    refused = call_guanmo(tmp_path, "reset", "--yes", GUANMO_DATABASE_URL="postgresql+psycopg://guanmo@/hub")
    assert refused.exit_code == 1
    assert (tmp_path / "secrets" / "pepper").is_file()


def test_logs_before_any_start_names_none(tmp_path: Path) -> None:
    refused = call_guanmo(tmp_path, "logs", "hub")
    assert isinstance(refused.exception, GuanmoError)
    assert "none yet" in refused.exception.en


def test_second_demonstration_is_refused_and_the_first_undisturbed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = call_guanmo(tmp_path, "demo", "--detach")
    assert isinstance(refused.exception, GuanmoError)
    assert "Another demonstration is running" in refused.exception.en
    assert "GUANMO_HOME" in refused.exception.en
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "told"),
    [
        (
            ["status"],
            {"GUANMO_HUB_PORT": "x"},
            1,
            "GUANMO_HUB_PORT is 'x'; give a port from 1 to 65535 [bad_settings]",
        ),
        (["status"], {"GUANMO_TYPO": "x", "LANG": "zh_CN.UTF-8"}, 1, "设置有误"),
        (["fly"], {}, 2, "No such command 'fly'"),
        (["logs", "-n", "0", "hub"], {}, 2, "greater than or equal to 1"),
    ],
)
def test_refusal_is_one_line_and_exit_status(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], status: int, told: str
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GUANMO_")}
    done = subprocess.run(
        [sys.executable, "-c", "from hub.cli.main import main; main()", *arguments],
        env={**clean, "LANG": "C.UTF-8", "GUANMO_HOME": str(tmp_path), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if status == 1:
        assert done.stderr.startswith("guanmo: ")
        assert done.stderr.count("\n") == 1
    assert told in done.stderr


def call_guanmo(home: Path, *arguments: str, typed: str | None = None, **environment: str) -> Result:
    """Run a command of `guanmo` in this process."""
    variables = {"GUANMO_HOME": str(home), **environment}
    return CliRunner().invoke(app, arguments, input=typed, env=variables)
