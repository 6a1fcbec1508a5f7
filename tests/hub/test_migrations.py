"""Migrations on both databases: up, nothing left to generate, append-only triggers, and down to nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, inspect, text

import hub.migrations
from hub.append_only import trigger_statements
from hub.cli.home import migrate_database
from hub.database import open_sessions
from hub.tables import import_tables, metadata
from tests.hub.money.postgres import run_server

TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database that the migrations brought to the newest version."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path_factory.mktemp('migrated') / 'hub 100%.sqlite3'}"
        migrate_database(address)
        yield address
        return
    with run_server() as template:
        address = template.format(database="postgres")
        migrate_database(address)
        yield address


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = create_engine(url)
    yield opened
    opened.dispose()


def test_there_is_one_line_of_migrations() -> None:
    scripts = ScriptDirectory.from_config(configure("sqlite://"))
    assert len(scripts.get_heads()) == 1
    assert scripts.get_bases() == ["0001"]


def test_newest_version_has_every_table_and_nothing_is_left_to_generate(url: str, engine: Engine) -> None:
    import_tables()
    assert len(metadata.tables) > 40
    assert set(metadata.tables) == set(inspect(engine).get_table_names()) - {"alembic_version"}
    command.check(configure(url))


def test_migrated_constraints_are_those_of_the_tables(engine: Engine, tmp_path: Path) -> None:
    """CHECKs are invisible to Alembic's comparison; a database made from the tables is the measure."""
    import_tables()
    if engine.dialect.name == "postgresql":
        found = read_checks(engine)
        with engine.begin() as connection:
            connection.execute(text("CREATE SCHEMA measure"))
            connection.execute(text("SET LOCAL search_path TO measure, public"))
            copy_tables().create_all(connection, checkfirst=False)
        wanted = read_checks(engine, schema="measure")
    else:
        sessions = open_sessions(f"sqlite:///{tmp_path / 'measure.sqlite3'}")
        with sessions.engine.begin() as connection:
            metadata.create_all(connection)
        found, wanted = read_checks(engine), read_checks(sessions.engine)
        sessions.close()
    assert len(wanted) > 40
    assert found == wanted


def test_append_only_rows_are_guarded_by_the_migration(engine: Engine) -> None:
    import_tables()
    statements = trigger_statements(metadata, engine.dialect.name, set(metadata.tables))
    wanted = {statement.split("TRIGGER ")[1].replace("IF NOT EXISTS ", "").split()[0] for statement in statements
              if "TRIGGER " in statement and "FUNCTION guanmo_refuse_change() RETURNS" not in statement}  # fmt: skip
    with engine.connect() as connection:
        found = set(connection.scalars(text(TRIGGERS[engine.dialect.name])))
    assert {"events_refuse_update", "events_refuse_delete"} <= wanted
    assert len(wanted) > 10
    assert wanted <= found


def test_guarded_row_cannot_change_or_go(engine: Engine) -> None:
    insert = (
        "INSERT INTO events (seq, id, topic, subject, organisation_id, actor_id, occurred_at, schema_version, payload,"
        " txid) VALUES (1, 'evt_1', 'topic', 'subject', 'org_1', 'usr_1', 0, 1, '{}', 1)"
    )
    with engine.begin() as connection:
        connection.execute(text(insert))
    for change in ("UPDATE events SET topic = 'other'", "DELETE FROM events"):
        with engine.connect() as connection, pytest.raises(Exception, match="events is append-only"):
            connection.execute(text(change))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT topic FROM events")) == "topic"


def test_repeating_the_upgrade_changes_nothing(url: str, engine: Engine) -> None:
    before = set(inspect(engine).get_table_names())
    migrate_database(url)
    assert set(inspect(engine).get_table_names()) == before


def test_downgrade_to_base_leaves_no_table(url: str, engine: Engine) -> None:
    """The last test on this database: down to nothing and up again."""
    command.downgrade(configure(url), "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    inspect(engine).clear_cache()
    migrate_database(url)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}


def configure(url: str) -> Config:
    """Return Alembic's configuration for our scripts on a database."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(hub.migrations.__file__).parent))
    configuration.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return configuration


def read_checks(engine: Engine, schema: str | None = None) -> set[tuple[str, str, str]]:
    """Return (table, name, text) of every CHECK, blanks evened out."""
    inspector = inspect(engine)
    return {
        (table, str(check["name"]), " ".join(check["sqltext"].split()))
        for table in inspector.get_table_names(schema=schema)
        for check in inspector.get_check_constraints(table, schema=schema)
    }


def copy_tables() -> MetaData:
    """Return the tables without the listeners that guard rows: triggers are compared elsewhere."""
    copied = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        for constraint in table.to_metadata(copied).constraints:
            if "only_on" in constraint.info:
                constraint.ddl_if(dialect=constraint.info["only_on"])
    return copied
