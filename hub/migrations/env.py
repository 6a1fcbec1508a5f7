"""Runs migrations on the configured database; one connection, one transaction."""

from alembic import context

from hub.database import open_sessions
from hub.tables import import_tables, metadata

import_tables()
sessions = open_sessions(context.config.get_main_option("sqlalchemy.url") or "")
with sessions.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=False, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
sessions.close()
