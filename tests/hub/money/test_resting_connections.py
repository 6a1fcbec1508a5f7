"""A connection that the server closed while it rested reaches nobody, in whatever way it rested."""

from time import monotonic

import pytest
from sqlalchemy import text

from hub.database import Sessions


def test_one_that_died_at_rest_reaches_nobody(both: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    if both.engine.dialect.name == "postgresql":  # a file does not hang up
        with both.write() as session:
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with both.read() as session:
            session.execute(text(f"SELECT pg_terminate_backend({pid})"))
    later_s = monotonic() + 60
    for module in ("hub.spare", "hub.database"):
        monkeypatch.setattr(f"{module}.monotonic", lambda: later_s)
    for _ in range(3):
        with both.write() as session:
            session.execute(text("SELECT 1"))
        with both.read() as session:
            session.execute(text("SELECT 1"))
