"""The ledger alone on both databases, as the money tests have it."""

from tests.hub.money.conftest import both, postgresql

__all__ = ["both", "postgresql"]
