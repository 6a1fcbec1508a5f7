"""What a statement is: a firm's month to the fen.

It leaves building one to `service` and showing it to `sheet` and the writers.
"""

from dataclasses import dataclass
from datetime import datetime

from hub.reports.balances import Balance
from hub.reports.carried import Carried
from hub.reports.lines import StatementLine


@dataclass(frozen=True)
class Closed:
    """When a month was closed, and the digest of the statement that was stored then."""

    at: datetime
    sha256: str


@dataclass(frozen=True)
class Statement:
    """A firm's month to the fen. `ledger_sum_fen` is the sum over all accounts of everybody and is zero.

    `carried` says which of the firm's cash moved in another month than the line that it belongs to. `closed` is None
    while the month is open. `demo` marks records of the demonstration, which carry a ribbon wherever they are shown.
    """

    organisation_id: str
    organisation_name: str
    uscc: str
    demo: bool
    month: str
    lines: list[StatementLine]
    list_fen: int
    voucher_fen: int
    self_paid_fen: int
    carried: Carried
    balances: list[Balance]
    ledger_sum_fen: int
    closed: Closed | None
