"""The statement of a month to the fen, each line down to its raw records; the trial balance for operator and auditor.

It leaves the arithmetic to `hub.reports` and `hub.ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from flask import Blueprint, render_template, request
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import InvalidValueError, NotFoundError
from hub.ledger.audit import KindTotal
from hub.ledger.periods import month_bounds, month_key
from hub.organisations.service import list_organisations
from hub.reports.api import name_receivers
from hub.reports.records import list_records
from hub.reports.service import Statement, statement, trial_balance
from hub.web import context, current_actor
from marketplace_ui.forms import Form
from marketplace_ui.layout import translate

blueprint = Blueprint("statement", __name__)
MONTHS_SHOWN = 12
RECORDS_SHOWN = 100


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
            rows=list_organisations(session) if actor.reads_all else [],
            names=_name_parties(session, report),
            months=_list_months(now, month),
            files=_list_files(actor, owner, month),
            books=_read_books(session) if actor.reads_all else None,
        )
    return page, 200 if form.ok else 422


@blueprint.get("/statement/lines/<line_id>")
def show_records(line_id: str) -> str:
    actor, here = current_actor(), f"/statement/lines/{line_id}"
    with context().sessions.read() as session:
        page = list_records(session, actor, line_id, after=request.args.get("after", ""), limit=RECORDS_SHOWN)
        return render_template(
            "statement/records.html",
            page=page,
            forward=f"{here}?{urlencode({'after': page.next_after})}" if page.next_after else "",
            first=here if request.args.get("after") else "",
            back=f"/statement?{urlencode({'month': page.month, 'organisation_id': page.organisation_id})}",
        )


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
    if not actor.may_read(asked):
        raise NotFoundError.of("organisation", asked)
    return asked


def _list_months(now: datetime, chosen: str) -> list[str]:
    year, number = (int(part) for part in month_key(now).split("-"))
    back = [(year * 12 + number - 1 - step) for step in range(MONTHS_SHOWN)]
    months = [f"{count // 12}-{count % 12 + 1:02d}" for count in back]
    return months if chosen in months else [chosen, *months]


def _name_parties(session: Session, report: Statement) -> Mapping[str, str]:
    """Return the names of those who received parts of the lines; the platform's own books have none."""
    return name_receivers(session, report) | {"": translate("平台", "the platform")}


def _read_books(session: Session) -> Books:
    balance = trial_balance(session)
    return Books(balance.totals, balance.posted_sum_fen, balance.pending_sum_fen)


def _list_files(actor: Actor, owner: str, month: str) -> list[tuple[str, str]]:
    """Return the statement's formats with their addresses."""
    query = {"month": month} | ({} if owner == actor.organisation_id else {"organisation_id": owner})
    return [(ending.upper(), f"/api/v1/statement.{ending}?{urlencode(query)}") for ending in ("pdf", "xlsx", "csv")]
