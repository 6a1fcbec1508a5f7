"""The empty database of the hub's tests."""

from tests.hub.conftest import empty_database, sessions

__all__ = ["empty_database", "sessions"]
