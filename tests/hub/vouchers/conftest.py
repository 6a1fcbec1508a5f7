"""The money tests' market, for everything about vouchers and claims."""

from tests.hub.money.conftest import built_market, market, postgresql

__all__ = ["built_market", "market", "postgresql"]
