"""HTTP of reports: the statement of a month as JSON or CSV.

It leaves the trial balance to `hub.ledger.api` and pages to the user interface.
"""

from dataclasses import asdict
from typing import Any

from flask import Response
from flask_openapi3.blueprint import APIBlueprint

from hub.actor import Role
from hub.errors import NotFoundError
from hub.ledger.periods import month_key
from hub.reports.service import Statement, statement
from hub.reports.table import write_csv
from hub.web import Query, context, current_actor

blueprint = APIBlueprint("reports", __name__, url_prefix="/api/v1")


class StatementQuery(Query):
    """Month (the current one when left out) and organisation (others' only for operator and auditor)."""

    month: str | None = None
    organisation_id: str | None = None


def present_statement(report: Statement) -> dict[str, Any]:
    """Return a statement as JSON values."""
    body = asdict(report)
    for line in body["lines"]:
        line["at"] = line["at"].isoformat()
    return body


@blueprint.get("/statement")
def read_statement(query: StatementQuery) -> dict[str, Any]:
    """Return the statement as JSON."""
    return present_statement(_build(query))


@blueprint.get("/statement.csv")
def read_statement_csv(query: StatementQuery) -> Response:
    """Return the statement as a CSV file."""
    report = _build(query)
    response = Response(write_csv(report), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="statement-{report.month}.csv"'
    return response


def _build(query: StatementQuery) -> Statement:
    actor = current_actor()
    owner = query.organisation_id or actor.organisation_id
    if owner != actor.organisation_id and actor.role not in (Role.OPERATOR, Role.AUDITOR):
        raise NotFoundError.of("organisation", owner)
    with context().sessions.read() as session:
        return statement(session, owner, query.month or month_key(context().clock()))
