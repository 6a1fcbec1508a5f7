"""The authority report: JSON and CSV of a period, issued once with its bytes, and what changed against another.

Issuing closes the period's months in the ledger, so that nothing can be dated in them afterwards. It leaves counting to
`figures`.
"""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.claims.figures import FIRM_FIGURES, FUND_FIGURES, ProgrammeFigures, count_figures
from hub.claims.rules import Period, PeriodRunningError, read_period
from hub.claims.tables import AuthorityReport
from hub.errors import NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.closing import close_month
from hub.ledger.tables import PLATFORM
from hub.orders.usage_tables import TrancheState, UsageTranche
from hub.organisations.rules import is_demo_uscc

COLUMNS = ("programme", "uscc", "figure", "value")
FUND = "fund"
"""Stands in the place of a credit code where a figure is the programme's fund's."""


@dataclass(frozen=True)
class Change:
    """One figure that differs between two reports; a figure that is not there counts as 0."""

    programme: str
    uscc: str
    figure: str
    before: int
    after: int

    @property
    def difference(self) -> int:
        """After minus before."""
        return self.after - self.before


def build_report(session: Session, period: str) -> tuple[str, str]:
    """Return the JSON and the CSV of a period, whether it is over or not; equal records give equal bytes."""
    asked = read_period(period)
    figures = count_figures(session, asked.start, asked.end)
    shown = {
        "format": "guanmo-authority-report-1",
        "period": period,
        "from_at": asked.start.isoformat(),
        "until_at": asked.end.isoformat(),
        "zone": "Asia/Shanghai",
        "demonstration": any(is_demo_uscc(code) for item in figures for code in item.firms),
        "programmes": [_show(item) for item in figures],
    }
    text = json.dumps(shown, ensure_ascii=False, sort_keys=True, indent=1) + "\n"
    return text, _write_csv(figures)


def issue_report(session: Session, actor: Actor, period: str, *, now: datetime) -> AuthorityReport:
    """Issue the report of a period that is over and close the months that it touches; again returns the one issued.

    A range of days waits for the end of its last month: until then something could still be dated in its days.

    Raises:
        PeriodRunningError: the last month has not ended, or money of hosted calls is still held.
        InvalidValueError: no such period.
    """
    actor.require(Role.OPERATOR)
    asked = read_period(period)
    if now < asked.closes_at:
        raise PeriodRunningError(
            f"Month {asked.months[-1]} of period {period} runs until {asked.closes_at.isoformat()}; issue the report "
            "after that. A preview is possible now.",
            f"期间 {period} 所在的 {asked.months[-1]} 月份至 {asked.closes_at.isoformat()} 结束，届时方可出具报告；"
            "现在可以预览。",
            field="period",
        )
    found = _find_issued(session, period)
    if found is not None:
        return found
    for month in asked.months:
        close_month(session, month, closed_by=actor.user_id, now=now)
    _check_rest(session, asked)
    # Asked again: closing waits for whoever is issuing the same report just now.
    found = _find_issued(session, period)
    if found is not None:
        return found
    shown, table = build_report(session, period)
    previous = _find_previous(session, asked)
    last = session.scalar(select(AuthorityReport.number).order_by(AuthorityReport.number.desc()).limit(1))
    report = AuthorityReport(
        id=new_id("rep"),
        number=(last or 0) + 1,
        period=period,
        json_text=shown,
        json_sha256=hashlib.sha256(shown.encode()).hexdigest(),
        csv_text=table,
        csv_sha256=hashlib.sha256(table.encode()).hexdigest(),
        previous_id=previous.id if previous else None,
        issued_by=actor.user_id,
        created_at=now,
    )
    session.add(report)
    session.flush()
    record_event(
        session,
        "authority_report.issued",
        report.id,
        organisation_id=PLATFORM,
        actor_id=actor.user_id,
        now=now,
        period=period,
        json_sha256=report.json_sha256,
        csv_sha256=report.csv_sha256,
    )
    return report


def _check_rest(session: Session, asked: Period) -> None:
    """Pass a period whose hosted calls are settled: what a slice still holds would be charged in a month closed."""
    query = select(UsageTranche.id).where(UsageTranche.month.in_(asked.months), UsageTranche.state == TrancheState.OPEN)
    held = session.scalar(query.limit(1))
    if held is not None:
        raise PeriodRunningError(
            f"Usage tranche '{held}' of {asked.text} is still open; issue the report once its allowances are closed, "
            "which takes some minutes.",
            f"期间 {asked.text} 的用量批次“{held}”尚未了结，其额度关闭后（通常数分钟）方可出具报告。",
            field="period",
        )


def list_reports(session: Session) -> list[AuthorityReport]:
    """Return the issued reports, newest first."""
    return list(session.scalars(select(AuthorityReport).order_by(AuthorityReport.number.desc())))


def find_report(session: Session, period: str) -> AuthorityReport:
    """Return the report of a period. Raises: NotFoundError: not issued."""
    found = _find_issued(session, period)
    if found is None:
        raise NotFoundError.of("authority report", period)
    return found


def check_report(session: Session, report: AuthorityReport) -> bool:
    """Say whether the report, counted again from the records, has the bytes that were issued."""
    return build_report(session, report.period) == (report.json_text, report.csv_text)


def compare_reports(before: str, after: str) -> list[Change]:
    """Return what differs between two CSV reports, in order of programme, code and figure."""
    first, second = _read_csv(before), _read_csv(after)
    return [
        Change(*key, before=first.get(key, 0), after=second.get(key, 0))
        for key in sorted({*first, *second})
        if first.get(key, 0) != second.get(key, 0)
    ]


def diff_against_last(session: Session, report: AuthorityReport) -> list[Change]:
    """Return what changed against the report before it of the same kind of period; everything if there was none."""
    before = session.get(AuthorityReport, report.previous_id) if report.previous_id else None
    return compare_reports(before.csv_text if before else "", report.csv_text)


def _find_issued(session: Session, period: str) -> AuthorityReport | None:
    return session.scalar(select(AuthorityReport).where(AuthorityReport.period == period))


def _find_previous(session: Session, asked: Period) -> AuthorityReport | None:
    """Return the latest report of an earlier period of the same kind; of two that end together the shorter is later."""
    issued = [(read_period(row.period), row) for row in session.scalars(select(AuthorityReport))]
    earlier = [
        (period.end, period.start, row)
        for period, row in issued
        if period.kind == asked.kind and (period.end, period.start) < (asked.end, asked.start)
    ]
    return max(earlier, key=lambda found: found[:2])[2] if earlier else None


def _show(item: ProgrammeFigures) -> dict[str, Any]:
    return {
        "code": item.programme.code,
        "title": {"zh": item.programme.title_zh, "en": item.programme.title_en},
        "authority": item.programme.authority,
        "source": item.programme.source,
        "fund": item.fund,
        "firms": [{"uscc": code, **figures} for code, figures in item.firms.items()],
        "total": {name: sum(figures[name] for figures in item.firms.values()) for name in FIRM_FIGURES},
    }


def _write_csv(figures: list[ProgrammeFigures]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in figures:
        writer.writerows((item.programme.code, FUND, name, item.fund[name]) for name in FUND_FIGURES)
        for code, firm in item.firms.items():
            writer.writerows((item.programme.code, code, name, firm[name]) for name in FIRM_FIGURES)
    return table.getvalue()


def _read_csv(text: str) -> dict[tuple[str, str, str], int]:
    rows = csv.DictReader(io.StringIO(text))
    return {(row["programme"], row["uscc"], row["figure"]): int(row["value"]) for row in rows}
