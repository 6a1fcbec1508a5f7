"""Statements as JSON values and back, so that a closed month is read from what was stored.

It leaves when a month closes to `closing`.
"""

import hashlib
from dataclasses import asdict
from datetime import datetime
from typing import Any

from hub.columns import write_json
from hub.errors import GuanmoError
from hub.reports.balances import Balance
from hub.reports.carried import Carried
from hub.reports.lines import Part, StatementLine, UnitPrice, VoucherShare
from hub.reports.statement import Closed, Statement
from hub.reports.tables import ClosedStatement


class StatementDamagedError(GuanmoError):
    """What was stored of a closed month is no longer what was digested."""

    code = "statement_damaged"
    status = 500


def present_statement(report: Statement) -> dict[str, Any]:
    """Return a statement as JSON values: times as ISO text, amounts as whole fen."""
    body = asdict(report)
    for line in body["lines"]:
        line["at"] = line["at"].isoformat()
    if report.closed is not None:
        body["closed"]["at"] = report.closed.at.isoformat()
    return body


def digest(body: dict[str, Any]) -> str:
    """Return the sha256 of a statement's canonical JSON."""
    return hashlib.sha256(write_json(body).encode()).hexdigest()


def restore(row: ClosedStatement) -> Statement:
    """Return the statement of a closed month as it was.

    Raises:
        StatementDamagedError: the stored text does not have its digest.
    """
    if digest(row.body) != row.sha256:
        raise StatementDamagedError(
            f"The stored statement of {row.month} does not have its digest {row.sha256}; tell the operator.",
            f"账期 {row.month} 的存档与摘要 {row.sha256} 不符，请联系运营方。",
        )
    body = dict(row.body)
    body["lines"] = [_read_line(line) for line in body["lines"]]
    body["carried"] = Carried(**body["carried"])
    body["balances"] = [Balance(**balance) for balance in body["balances"]]
    body["closed"] = Closed(row.closed_at, row.sha256)
    return Statement(**body)


def _read_line(line: dict[str, Any]) -> StatementLine:
    return StatementLine(
        **{
            **line,
            "at": datetime.fromisoformat(line["at"]),
            "prices": [UnitPrice(**price) for price in line["prices"]],
            "voucher": VoucherShare(**line["voucher"]) if line["voucher"] else None,
            "parts": [Part(**part) for part in line["parts"]],
        }
    )
