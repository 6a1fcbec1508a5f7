"""HTTP of reports: the statement of a month as JSON, CSV, XLSX or PDF, and the raw records behind each line.

It leaves the trial balance to `hub.ledger.api` and pages to the user interface.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from hub.answers import ShapeOf
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
from hub.reports.workbook import write_xlsx
from hub.web import Body, Query, context, current_actor, request_language

blueprint = APIBlueprint("reports", __name__, url_prefix="/api/v1")
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


class StatementQuery(Query):
    """Month (the current one when left out) and organisation (others' only for operator and auditor)."""

    month: str | None = None
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
        return {
            "organisation_id": row.organisation_id,
            "month": row.month,
            "sha256": row.sha256,
            "closed_at": row.closed_at.isoformat(),
        }


def name_receivers(session: Session, report: Statement) -> dict[str, str]:
    """Return the names of the organisations that received parts of a statement's lines, by id."""
    ids = sorted({part.organisation_id for line in report.lines for part in line.parts if part.organisation_id})
    found = [session.get(Organisation, one) for one in ids]
    return {row.id: row.name for row in found if row is not None}


def _write(query: StatementQuery, write: Callable[[Sheet], bytes], ending: str, mime: str) -> Response:
    with context().sessions.read() as session:
        report = _build(session, query)
        sheet = lay_out(report, request_language(), name_receivers(session, report))
    response = Response(write(sheet), mimetype=mime)
    response.headers["Content-Disposition"] = f'attachment; filename="{sheet.name}.{ending}"'
    return response


def _build(session: Session, query: StatementQuery) -> Statement:
    actor = current_actor()
    owner = query.organisation_id or actor.organisation_id
    if not actor.may_read(owner):
        raise NotFoundError.of("organisation", owner)
    return statement(session, owner, query.month or month_key(context().clock()))
