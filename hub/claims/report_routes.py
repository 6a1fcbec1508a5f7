"""HTTP of the authority report: preview, issue, the bytes as issued, what changed.

It leaves counting to the service; operator and auditor read, the operator issues.
"""

from typing import Annotated

from flask import Response

from hub.actor import READERS
from hub.answers import Items, ShapeOf
from hub.claims import service
from hub.claims.answers import AuthorityReportFile, AuthorityReportView, FigureChanges
from hub.claims.blueprint import blueprint
from hub.claims.tables import AuthorityReport
from hub.web import Body, Query, context, current_actor


class PeriodPath(Query):
    """A period: 2026-11, 2026-Q4, 2026, or both days of a range as in 2026-11-03--2026-12-15."""

    period: str


class PeriodBody(Body):
    """The period to report on."""

    period: str


@blueprint.get("/authority-reports")
def list_reports() -> Items[AuthorityReportView]:
    """Return the issued reports."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        return {"items": [present_report(report) for report in service.list_reports(session)]}


@blueprint.post("/authority-reports")
def issue_report(body: PeriodBody) -> tuple[AuthorityReportView, int]:
    """Issue the report of a period that is over; its months are closed for good."""
    actor = current_actor()
    with context().sessions.write() as session:
        return present_report(service.issue_report(session, actor, body.period, now=context().clock())), 201


@blueprint.get("/authority-reports/<period>/preview.json")
def preview_report(path: PeriodPath) -> Annotated[Response, ShapeOf(AuthorityReportFile)]:
    """Return the figures of any period as they are now."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        shown, _ = service.build_report(session, path.period)
    return Response(shown, mimetype="application/json")


@blueprint.get("/authority-reports/<period>/report.json")
def read_report_json(path: PeriodPath) -> Annotated[Response, ShapeOf(AuthorityReportFile)]:
    """Return the JSON as issued."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        report = service.find_report(session, path.period)
        return _attach(report, report.json_text, "json", "application/json")


@blueprint.get("/authority-reports/<period>/report.csv")
def read_report_csv(path: PeriodPath) -> Response:
    """Return the CSV as issued."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        report = service.find_report(session, path.period)
        return _attach(report, report.csv_text, "csv", "text/csv")


@blueprint.get("/authority-reports/<period>/changes")
def list_changes(path: PeriodPath) -> FigureChanges:
    """Return what changed against the last report, and whether the records still give the issued bytes."""
    current_actor(*READERS)
    with context().sessions.read() as session:
        report = service.find_report(session, path.period)
        return {
            "recounted_equal": service.check_report(session, report),
            "items": [
                {
                    "programme": change.programme,
                    "uscc": change.uscc,
                    "figure": change.figure,
                    "before": change.before,
                    "after": change.after,
                    "difference": change.difference,
                }
                for change in service.diff_against_last(session, report)
            ],
        }


def present_report(report: AuthorityReport) -> AuthorityReportView:
    """Return a report's particulars as JSON values."""
    return {
        "period": report.period,
        "number": report.number,
        "json_sha256": report.json_sha256,
        "csv_sha256": report.csv_sha256,
        "issued_by": report.issued_by,
        "issued_at": report.created_at.isoformat(),
    }


def _attach(report: AuthorityReport, text: str, ending: str, mime: str) -> Response:
    response = Response(text, mimetype=mime)
    response.headers["Content-Disposition"] = f"attachment; filename=authority-report-{report.period}.{ending}"
    return response
