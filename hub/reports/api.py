"""HTTP of reports: a month's statement as JSON and as files, the closed months, the raw records behind each line.

It leaves the trial balance to `hub.ledger.api` and pages to the user interface.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session, defer
from typing_extensions import TypedDict

from hub.answers import Items, ShapeOf
from hub.errors import NotFoundError
from hub.ledger.periods import month_key
from hub.organisations.tables import Organisation
from hub.reports.closing import close_statement
from hub.reports.comma_separated import write_csv
from hub.reports.paper import write_pdf
from hub.reports.records import RecordPage, list_records
from hub.reports.service import Statement, statement
from hub.reports.sheet import Sheet, lay_out
from hub.reports.stored import present_statement
from hub.reports.tables import ClosedStatement
from hub.reports.web_page import write_page
from hub.reports.workbook import write_xlsx
from hub.web import Body, Query, context, current_actor, request_language

blueprint = APIBlueprint("reports", __name__, url_prefix="/api/v1")
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MONTHS_LISTED = 500


class StatementQuery(Query):
    """Month (the current one when left out) and organisation (others' only for operator and auditor)."""

    month: str | None = None
    organisation_id: str | None = None


class StatementsQuery(Query):
    """Whose months; operator and auditor see every firm's unless they name one."""

    organisation_id: str | None = None


class LinePath(Query):
    """One line of a statement, by its `line_id`."""

    line_id: str


class RecordsQuery(Query):
    """A page of raw records, oldest first: those after `after`."""

    after: str = Field("", max_length=300)
    limit: int = Field(100, ge=1, le=500)


class CloseBody(Body):
    """One firm's month."""

    organisation_id: str
    month: str


class ClosedMonth(TypedDict):
    """A firm's month that is closed, with the digest of its stored statement."""

    organisation_id: str
    month: str
    sha256: str
    closed_at: str


@blueprint.get("/statement")
def read_statement(query: StatementQuery) -> Annotated[dict[str, Any], ShapeOf(Statement)]:
    """Return the statement as JSON."""
    with context().sessions.read() as session:
        return present_statement(_build(session, query))


@blueprint.get("/statements")
def list_statements(query: StatementsQuery) -> Items[ClosedMonth]:
    """Return the closed months, newest first."""
    actor = current_actor()
    owner = query.organisation_id or (None if actor.reads_all else actor.organisation_id)
    if owner is not None and not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    with context().sessions.read() as session:
        return {"items": [_present_closed(row) for row in _list_closed(session, owner)]}


@blueprint.get("/statement.html")
def read_statement_page(query: StatementQuery) -> Response:
    """Return the statement as a web page that needs no other file."""
    return _write(query, lambda sheet: write_page(sheet, request_language()), "html", "text/html")


@blueprint.get("/statement.csv")
def read_statement_csv(query: StatementQuery) -> Response:
    """Return the statement as a CSV file."""
    return _write(query, write_csv, "csv", "text/csv")


@blueprint.get("/statement.xlsx")
def read_statement_xlsx(query: StatementQuery) -> Response:
    """Return the statement as a spreadsheet."""
    return _write(query, write_xlsx, "xlsx", XLSX)


@blueprint.get("/statement.pdf")
def read_statement_pdf(query: StatementQuery) -> Response:
    """Return the statement as a PDF."""
    return _write(query, write_pdf, "pdf", "application/pdf")


@blueprint.get("/statement/lines/<line_id>/records")
def read_records(path: LinePath, query: RecordsQuery) -> Annotated[dict[str, Any], ShapeOf(RecordPage)]:
    """Return the raw meter records behind a line."""
    actor = current_actor()
    with context().sessions.read() as session:
        page = asdict(list_records(session, actor, path.line_id, after=query.after, limit=query.limit))
    for item in page["items"]:
        item["at"] = item["at"].isoformat()
    return page


@blueprint.post("/statement/close")
def post_close(body: CloseBody) -> ClosedMonth:
    """Close a firm's month by hand (operator); the worker does it a day after the month's end."""
    actor = current_actor()
    with context().sessions.write() as session:
        row = close_statement(session, actor, body.organisation_id, body.month, now=context().clock())
        return _present_closed(row)


def name_receivers(session: Session, report: Statement) -> dict[str, str]:
    """Return the names of the organisations that received parts of a statement's lines, by id."""
    ids = sorted({part.organisation_id for line in report.lines for part in line.parts if part.organisation_id})
    found = [session.get(Organisation, one) for one in ids]
    return {row.id: row.name for row in found if row is not None}


def _list_closed(session: Session, owner: str | None) -> Sequence[ClosedStatement]:
    """Return closed months without what is stored of them, newest first."""
    query = select(ClosedStatement).options(defer(ClosedStatement.body))
    if owner is not None:
        query = query.where(ClosedStatement.organisation_id == owner)
    newest = query.order_by(ClosedStatement.month.desc(), ClosedStatement.organisation_id)
    return session.scalars(newest.limit(MONTHS_LISTED)).all()


def _present_closed(row: ClosedStatement) -> ClosedMonth:
    return {
        "organisation_id": row.organisation_id,
        "month": row.month,
        "sha256": row.sha256,
        "closed_at": row.closed_at.isoformat(),
    }


def _write(query: StatementQuery, write: Callable[[Sheet], bytes], ending: str, mime: str) -> Response:
    with context().sessions.read() as session:
        report = _build(session, query)
        sheet = lay_out(report, request_language(), name_receivers(session, report))
        name = sheet.name + _name_other(session, report.organisation_id)
    response = Response(write(sheet), mimetype=mime)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{ending}"'
    return response


def _name_other(session: Session, owner: str) -> str:
    """Return what tells the file of another firm from that of the next: its short name; empty for the own firm."""
    return "" if owner == current_actor().organisation_id else f"-{session.get_one(Organisation, owner).slug}"


def _build(session: Session, query: StatementQuery) -> Statement:
    actor = current_actor()
    owner = query.organisation_id or actor.organisation_id
    if not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    return statement(session, owner, query.month or month_key(context().clock()))
