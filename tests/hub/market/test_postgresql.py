"""The same market on PostgreSQL: tests of the other files, collected again here with a database of that kind."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from hub.database import Sessions, open_sessions
from hub.tables import import_tables, metadata
from tests.hub.market.test_filings import test_withdrawal_and_expiry_end_it
from tests.hub.market.test_isolation import test_lists_show_only_the_own_things, things
from tests.hub.market.test_people_and_keys import test_keys_end_by_revocation_and_by_time
from tests.hub.market.test_reviews import (
    test_access_by_list_lets_the_named_firms_in_only,
    test_quarantine_of_a_base_stops_everything_made_from_it,
)
from tests.hub.market.test_search import (
    market,
    test_facets_count_what_the_text_matches,
    test_pages_lose_and_repeat_nothing,
    test_text_and_facets,
)
from tests.hub.market.test_sign_in import (
    test_a_second_sign_up_with_the_same_code_slug_or_address_changes_nothing,
    test_after_ten_failures_even_the_right_password_waits,
)
from tests.hub.money.postgres import run_server

SHARED = (
    market,
    things,
    test_a_second_sign_up_with_the_same_code_slug_or_address_changes_nothing,
    test_access_by_list_lets_the_named_firms_in_only,
    test_after_ten_failures_even_the_right_password_waits,
    test_facets_count_what_the_text_matches,
    test_keys_end_by_revocation_and_by_time,
    test_lists_show_only_the_own_things,
    test_pages_lose_and_repeat_nothing,
    test_quarantine_of_a_base_stops_everything_made_from_it,
    test_text_and_facets,
    test_withdrawal_and_expiry_end_it,
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with run_server() as template:
        yield template


@pytest.fixture
def sessions(server: str, request: pytest.FixtureRequest) -> Iterator[Sessions]:
    """A database of its own for each test, named after it."""
    name = f"market_{abs(hash(request.node.name)):x}"
    admin = create_engine(server.format(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    import_tables()
    opened = open_sessions(server.format(database=name))
    with opened.engine.begin() as connection:
        metadata.create_all(connection)
    yield opened
    opened.close()
