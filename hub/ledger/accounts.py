"""Opens and finds accounts, one for each owner, kind, subject and period.

It leaves moving money between them to `hub.ledger.service`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from hub.errors import NotFoundError
from hub.ids import new_id
from hub.ledger.tables import CREDIT_LIMITED, LIMITED, Account, AccountKind


def open_account(
    session: Session,
    *,
    organisation_id: str,
    kind: AccountKind,
    subject: str = "",
    period_key: str = "",
    now: datetime,
) -> Account:
    """Return the account of that kind, subject and period, made on first use; safe under races."""
    # Looked for first: nearly every account is there already, and a write that changes nothing is not free.
    found = find_account(session, organisation_id=organisation_id, kind=kind, subject=subject, period_key=period_key)
    if found is not None:
        return found
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement: Any = insert(Account).values(
        id=new_id("acc"),
        organisation_id=organisation_id,
        kind=kind,
        subject=subject,
        period_key=period_key,
        currency="CNY",
        limited=kind in LIMITED,
        credit_limited=kind in CREDIT_LIMITED,
        debits_pending=0,
        debits_posted=0,
        credits_pending=0,
        credits_posted=0,
        version=0,
        created_at=now,
    )
    session.execute(statement.on_conflict_do_nothing())
    found = find_account(session, organisation_id=organisation_id, kind=kind, subject=subject, period_key=period_key)
    if found is None:
        raise NotFoundError.of("account", f"{organisation_id}/{kind}/{subject}/{period_key}")
    return found


def find_account(
    session: Session, *, organisation_id: str, kind: AccountKind, subject: str = "", period_key: str = ""
) -> Account | None:
    """Return an account without making one."""
    return session.scalar(
        select(Account).where(
            Account.organisation_id == organisation_id,
            Account.kind == kind,
            Account.subject == subject,
            Account.period_key == period_key,
        )
    )
