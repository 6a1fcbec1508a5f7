"""The statement of a month to the fen, with balances before and after; the trial balance for operator and auditor.

It leaves the arithmetic to `hub.reports` and `hub.ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.audit import KindTotal
from hub.ledger.periods import month_bounds, month_key
from hub.organisations.service import list_organisations
from hub.organisations.tables import Organisation
from hub.reports.service import Statement, statement, trial_balance
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import translate

blueprint = Blueprint("statement", __name__)
READERS = (Role.OPERATOR, Role.AUDITOR)
MONTHS_SHOWN = 12


@dataclass(frozen=True)
class Books:
    """The trial balance as a page shows it."""

    totals: list[KindTotal]
    posted_sum_fen: int
    pending_sum_fen: int


@blueprint.get("/statement")
def show_statement() -> tuple[str, int]:
    actor, now = current_actor(), context().clock()
    form = Form({name: request.args[name] for name in ("month", "organisation_id") if request.args.get(name)})
    month = _read_month(form, now)
    form.values.setdefault("month", month)
    with context().sessions.read() as session:
        owner = _read_owner(actor, form)
        form.values["organisation_id"] = owner
        report = statement(session, owner, month)
        page = render_template(
            "statement/statement.html",
            form=form,
            report=report,
            rows=list_organisations(session) if actor.role in READERS else [],
            names=_name_parties(session, report),
            months=_list_months(now, month),
            csv=_address_of_csv(actor, owner, month),
            books=_read_books(session) if actor.role in READERS else None,
        )
    return page, 200 if form.ok else 422


def _read_month(form: Form, now: datetime) -> str:
    """Return the month asked for; the current one, with a message at the field, for what is none."""
    asked = form.value("month") or month_key(now)
    try:
        month_bounds(asked)
    except InvalidValueError as error:
        form.refuse("month", error.zh, error.en)
        return month_key(now)
    return asked


def _read_owner(actor: Actor, form: Form) -> str:
    asked = form.value("organisation_id") or actor.organisation_id
    if asked != actor.organisation_id and actor.role not in READERS:
        raise NotFoundError.of("organisation", asked)
    return asked


def _list_months(now: datetime, chosen: str) -> list[str]:
    year, number = (int(part) for part in month_key(now).split("-"))
    back = [(year * 12 + number - 1 - step) for step in range(MONTHS_SHOWN)]
    months = [f"{count // 12}-{count % 12 + 1:02d}" for count in back]
    return months if chosen in months else [chosen, *months]


def _name_parties(session: Session, report: Statement) -> Mapping[str, str]:
    """Return the names of those who received parts of the lines; the platform's own books have none."""
    ids = {part.organisation_id for line in report.lines for part in line.parts if part.organisation_id}
    found = [session.get(Organisation, one) for one in sorted(ids)]
    return {row.id: row.name for row in found if row is not None} | {"": translate("平台", "the platform")}


def _read_books(session: Session) -> Books:
    balance = trial_balance(session)
    return Books(balance.totals, balance.posted_sum_fen, balance.pending_sum_fen)


def _address_of_csv(actor: Actor, owner: str, month: str) -> str:
    query = {"month": month} | ({} if owner == actor.organisation_id else {"organisation_id": owner})
    return f"/api/v1/statement.csv?{urlencode(query)}"
