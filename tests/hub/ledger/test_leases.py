"""Holds with a lease: renewed by their holder, unusable when expired, released by the sweeper, once."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hub.database import Sessions
from hub.errors import NotFoundError
from hub.ledger.leases import expire_hold, list_expired, renew_holds
from hub.ledger.movements import hold, resolve
from hub.ledger.rules import HoldExpiredError, HoldResolvedError
from hub.ledger.service import post_group
from hub.ledger.tables import HoldLease, Transfer
from tests.hub.ledger.books import Books, by, open_books

MINUTE = timedelta(minutes=1)


def place(session: Session, now: datetime, lease_s: int | None = 60) -> tuple[Books, Transfer]:
    books = open_books(session, now)
    wanted = hold("h", books.cash, books.clearing, amount_fen=60, code="c", lease_s=lease_s)
    return books, post_group(session, "g1", [wanted], by(now))[0]


def test_an_expired_hold_cannot_be_posted_but_voided(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, held = place(session, now)
        with pytest.raises(HoldExpiredError):
            post_group(session, "g2", [resolve("p", held, amount_fen=60, code="c")], by(now + MINUTE))
        post_group(session, "g3", [resolve("v", held, amount_fen=0, code="c")], by(now + MINUTE))
        assert books.cash.available_fen == 100


def test_a_hold_is_posted_until_its_last_microsecond(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, held = place(session, now)
        last = now + MINUTE - timedelta(microseconds=1)
        post_group(session, "g2", [resolve("p", held, amount_fen=60, code="c")], by(last))
        assert books.clearing.balance_fen == 60
        assert session.scalar(select(func.count()).select_from(HoldLease)) == 0


def test_a_heartbeat_renews_even_a_lapsed_lease(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        _, held = place(session, now)
        later = now + 5 * MINUTE
        assert list_expired(session, later)[0].id == "h"
        assert renew_holds(session, ["h"], lease_s=60, now=later) == later + MINUTE
        assert list_expired(session, later) == []
        with pytest.raises(HoldExpiredError, match="has not run out"):
            expire_hold(session, held, later)
        post_group(session, "g2", [resolve("p", held, amount_fen=1, code="c")], by(later))


def test_the_sweeper_releases_once(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        books, held = place(session, now)
        void = expire_hold(session, held, now + MINUTE)
        assert (void.code, books.cash.available_fen) == ("expired", 100)
        assert expire_hold(session, held, now + 2 * MINUTE).id == void.id
        assert list_expired(session, now + 2 * MINUTE) == []
        with pytest.raises(HoldResolvedError):
            post_group(session, "g2", [resolve("p", held, amount_fen=1, code="c")], by(now))
        with pytest.raises(HoldResolvedError, match="expired"):
            renew_holds(session, ["h"], lease_s=60, now=now + MINUTE)


def test_a_hold_without_a_lease_never_expires(both: Sessions, now: datetime) -> None:
    with both.write() as session:
        _, held = place(session, now, lease_s=None)
        later = now + timedelta(days=4000)
        assert list_expired(session, later) == []
        with pytest.raises(HoldExpiredError):
            expire_hold(session, held, later)
        with pytest.raises(NotFoundError):
            renew_holds(session, ["h"], lease_s=60, now=now)
        post_group(session, "g2", [resolve("p", held, amount_fen=60, code="c")], by(later))
