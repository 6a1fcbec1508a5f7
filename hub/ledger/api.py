"""HTTP of the ledger: account statements for the owner, whole books for operator and auditor. Nothing writes.

It leaves bills in words to `hub.reports`.
"""

from dataclasses import asdict
from typing import Annotated, Any

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy import select
from typing_extensions import TypedDict

from hub.actor import READERS
from hub.answers import Items, ShapeOf
from hub.errors import NotFoundError
from hub.ledger import audit
from hub.ledger.tables import Account, AccountKind, Entry, Leg, Transfer, TransferKind
from hub.web import Query, context, current_actor

blueprint = APIBlueprint("ledger", __name__, url_prefix="/api/v1/ledger")


class AccountsQuery(Query):
    """Whose accounts; others' only for operator and auditor."""

    organisation_id: str | None = None


class AccountPath(Query):
    """One account."""

    account_id: str


class EntriesQuery(Query):
    """A page of entries, newest first: those below `before_version`."""

    before_version: int | None = None
    limit: int = Field(100, ge=1, le=1000)


class AccountView(TypedDict):
    """An account in fen: what its four sides hold, and what follows from them."""

    id: str
    organisation_id: str
    kind: AccountKind
    subject: str
    period: str
    limited: bool
    debits_pending_fen: int
    debits_posted_fen: int
    credits_pending_fen: int
    credits_posted_fen: int
    balance_fen: int
    available_fen: int
    version: int


class EntryView(TypedDict):
    """One leg of a transfer, and the account's balance after it."""

    version: int
    leg: Leg
    kind: TransferKind
    code: str
    amount_fen: int
    balance_fen: int
    held_fen: int
    transfer_id: str
    business_type: str
    business_id: str
    rule_version_id: str | None
    price_version_id: str | None
    recorded_at: str


class AccountEntries(TypedDict):
    """An account with a page of its entries."""

    account: AccountView
    items: list[EntryView]


class CheckedBooks(TypedDict):
    """Whether the books are sound, and what is not, in words."""

    sound: bool
    problems: list[str]


def present_account(account: Account) -> AccountView:
    """Return an account as JSON values, in fen."""
    return {
        "id": account.id,
        "organisation_id": account.organisation_id,
        "kind": account.kind,
        "subject": account.subject,
        "period": account.period_key,
        "limited": account.limited,
        "debits_pending_fen": account.debits_pending,
        "debits_posted_fen": account.debits_posted,
        "credits_pending_fen": account.credits_pending,
        "credits_posted_fen": account.credits_posted,
        "balance_fen": account.balance_fen,
        "available_fen": account.available_fen,
        "version": account.version,
    }


@blueprint.get("/accounts")
def list_accounts(query: AccountsQuery) -> Items[AccountView]:
    """Return the accounts of an organisation."""
    actor = current_actor()
    owner = query.organisation_id or actor.organisation_id
    if not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    with context().sessions.read() as session:
        rows = session.scalars(select(Account).where(Account.organisation_id == owner).order_by(Account.id))
        return {"items": [present_account(account) for account in rows]}


@blueprint.get("/accounts/<account_id>/entries")
def list_entries(path: AccountPath, query: EntriesQuery) -> AccountEntries:
    """Return a page of an account's statement."""
    actor = current_actor()
    with context().sessions.read() as session:
        account = session.get(Account, path.account_id)
        if account is None or not actor.may_read(account.organisation_id):
            raise NotFoundError.of("account", path.account_id)
        rows = audit.list_entries(session, account.id, before_version=query.before_version, limit=query.limit)
        return {
            "account": present_account(account),
            "items": [_present_entry(entry, transfer) for entry, transfer in rows],
        }


@blueprint.get("/trial-balance")
def read_trial_balance() -> Annotated[dict[str, Any], ShapeOf(audit.TrialBalance)]:
    """Return the totals by kind of account; both sums are zero."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return asdict(audit.trial_balance(session))


@blueprint.get("/check")
def check_books() -> CheckedBooks:
    """Recompute the books from every transfer and return what does not agree."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        problems = audit.check_books(session)
        return {"sound": not problems, "problems": problems}


def _present_entry(entry: Entry, transfer: Transfer) -> EntryView:
    return {
        "version": entry.account_version,
        "leg": entry.leg,
        "kind": transfer.kind,
        "code": transfer.code,
        "amount_fen": entry.amount_fen,
        "balance_fen": entry.credits_posted - entry.debits_posted,
        "held_fen": entry.debits_pending,
        "transfer_id": transfer.id,
        "business_type": transfer.business_type,
        "business_id": transfer.business_id,
        "rule_version_id": transfer.rule_version_id,
        "price_version_id": transfer.price_version_id,
        "recorded_at": entry.recorded_at.isoformat(),
    }
