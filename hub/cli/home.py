"""`guanmo init`, `migrate`, `reset`: the folder and the database of an installation.

It leaves the secrets' format to `hub.secrets` and the tables to the migrations.
"""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from alembic import command
from alembic.config import Config
from rich.console import Console

from hub.cli.supervision import is_up
from hub.clock import read_clock
from hub.database import open_sessions
from hub.errors import ConflictError
from hub.installation.service import check_secrets
from hub.organisations.keys import count_keys
from hub.secrets import PREVIOUS_PEPPER, Secrets, make_secrets, read_secrets
from hub.settings import Settings, read_settings

console = Console(stderr=True, highlight=False)
KEPT = frozenset({"bases"})
"""Folders that a reset keeps: trained bases are a cache by content."""


def init() -> None:
    """Create the secrets (once) and bring the database to the newest version."""
    prepare_home(read_settings(os.environ))


def migrate() -> None:
    """Bring the database to the newest version."""
    migrate_database(read_settings(os.environ).database_url)


def reset(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Delete this installation's accounts, money, models and secrets. Trained demo bases are kept as a cache."""
    settings = read_settings(os.environ)
    if is_up(settings):
        raise ConflictError(
            "The marketplace is running; stop it first with 'guanmo down'.", "请先运行 guanmo down 停止。"
        )
    _check_reset(settings)
    if not yes:
        typed = typer.prompt(f"This deletes everything in {settings.home}. Type 'reset' to go on / 输入 reset 确认")
        if typed != "reset":
            raise ConflictError(f"You typed '{typed}', not 'reset'; nothing was deleted.", "未确认，未删除任何内容。")
    for entry in sorted(settings.home.iterdir()) if settings.home.is_dir() else []:
        if entry.name not in KEPT:
            _remove(entry)
    console.print(f"Deleted everything in {settings.home} except {', '.join(KEPT)} / 已清空")


def _check_reset(settings: Settings) -> None:
    if not settings.database_url.startswith("sqlite"):
        raise ConflictError(
            "The database is not the embedded one; drop and create it yourself, then delete the folder's secrets.",
            "数据库不是内置的 SQLite，请自行删除并重建数据库。",
        )
    if settings.home.is_dir() and any(settings.home.iterdir()) and not (settings.home / "secrets").is_dir():
        known = KEPT | {"run"}
        if any(entry.name not in known for entry in settings.home.iterdir()):
            raise ConflictError(
                f"{settings.home} does not look like an installation (it has no secrets); nothing was deleted.",
                f"{settings.home} 不是莞模的安装目录，未删除任何内容。",
            )


def prepare_home(settings: Settings) -> None:
    """Create what is missing for a start: folder, secrets, database. Safe to repeat."""
    settings.home.mkdir(parents=True, exist_ok=True)
    made = make_secrets(settings.home)
    if made:
        console.print(f"Made {len(made)} secrets in {settings.home / 'secrets'} / 已生成密钥")
    secrets = read_secrets(settings.home)
    migrate_database(settings.database_url)
    sessions = open_sessions(settings.database_url)
    with sessions.write() as session:
        check_secrets(session, secrets, read_clock())
        living = count_keys(session, read_clock())
    sessions.close()
    _tell_of_peppers(living, secrets)


def _tell_of_peppers(living: dict[str, int], secrets: Secrets) -> None:
    """Say how many keys go on under the pepper before, and how many no longer work because theirs is gone."""
    living.pop(secrets.fingerprint("pepper"), 0)
    if PREVIOUS_PEPPER in secrets.values:
        older = living.pop(secrets.fingerprint(PREVIOUS_PEPPER), 0)
        console.print(f"API keys that live under the previous pepper: {older} / 仍使用旧 pepper 的密钥：{older}")
    if lost := sum(living.values()):
        console.print(
            f"API keys that no longer work, as their pepper is gone: {lost} / 因 pepper 已删除而失效的密钥：{lost}"
        )


def migrate_database(url: str) -> None:
    """Run all migrations on a database URL."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations"))
    configuration.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(configuration, "head")


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        for path in entry.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(entry)
    else:
        entry.unlink()
