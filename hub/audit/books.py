"""Writes the posted books of an export for hledger and beancount, so that other people's programs check them.

Holds are not postings and stay out. Every account's balance is asserted at both ends of the period; dates are
Shanghai's. It leaves proofs to `verifier`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hub.audit.verifier.reading import Export
from hub.clock import from_us
from hub.ledger.periods import SHANGHAI

ROOTS = {
    "bank": "Assets",
    "authority_receivable": "Assets",
    "firm_receivable": "Assets",
    "platform_cost": "Expenses",
    "platform_income": "Income",
    "pool_income": "Income",
    "breakage": "Income",
    "appropriation": "Equity",
}
"""The first word of an account's name by its kind; what we owe to others is a liability."""


@dataclass(frozen=True)
class _Posting:
    day: date
    title: str
    debit: str
    credit: str
    amount_fen: int


def write_hledger(source: Path, target: Path) -> int:
    """Write a journal that `hledger check -s` passes, and return how many postings it has."""
    export = Export(source)
    names = _name_accounts(export)
    lines = ["commodity 1000.00 CNY", *(f"account {name}" for name in sorted(names.values())), ""]
    lines += _assert_hledger(export, names, "opening")
    postings = list(_list_postings(export, names))
    for posting in postings:
        lines += [f"{posting.day} {posting.title}", f"    {posting.debit}  {_yuan(posting.amount_fen)} CNY"]
        lines += [f"    {posting.credit}  {_yuan(-posting.amount_fen)} CNY", ""]
    lines += _assert_hledger(export, names, "closing")
    _write(target, lines)
    return len(postings)


def write_beancount(source: Path, target: Path) -> int:
    """Write a ledger that `bean-check` passes, and return how many postings it has."""
    export = Export(source)
    names = _name_accounts(export)
    postings = list(_list_postings(export, names))
    first, after = _days(export, postings)
    lines = ['option "operating_currency" "CNY"', ""]
    lines += [f"{first} open {name} CNY" for name in sorted(names.values())]
    opening = [(names[row["id"]], _balance(row["opening"])) for row in export.rows("accounts")]
    if any(balance for _, balance in opening):
        lines += ["", f'{first} * "opening balances"']
        lines += [f"  {name}  {_yuan(-balance)} CNY" for name, balance in opening if balance]
    for posting in postings:
        lines += ["", f'{posting.day} * "{posting.title}"', f"  {posting.debit}  {_yuan(posting.amount_fen)} CNY"]
        lines += [f"  {posting.credit}  {_yuan(-posting.amount_fen)} CNY"]
    lines.append("")
    for row in export.rows("accounts"):
        lines.append(f"{after} balance {names[row['id']]}  {_yuan(-_balance(row['closing']))} CNY")
    _write(target, lines)
    return len(postings)


def _name_accounts(export: Export) -> dict[str, str]:
    """Return a name for each account: its kind, then its id, since subjects may repeat over owners and periods."""
    return {
        row["id"]: f"{ROOTS.get(row['kind'], 'Liabilities')}:{_word(row['kind'])}:{_word(row['id'])}"
        for row in export.rows("accounts")
    }


def _word(text: str) -> str:
    joined = "".join(part.capitalize() for part in text.replace("_", "-").split("-"))
    return joined if joined[:1].isalnum() else f"X{joined}"


def _list_postings(export: Export, names: dict[str, str]) -> Iterator[_Posting]:
    """Yield the posted transfers of the period by day, in the order they were made."""
    rows = [item["row"] for item in export.rows("transfers")]
    posted = [row for row in rows if row["kind"] in ("single", "post") and export.within(row["recorded_at"])]
    for row in sorted(posted, key=lambda row: (_day(row["recorded_at"]), row["seq"])):
        title = f"{row['code']} {row['business_id']}".replace('"', "'").replace("|", "/").replace(";", ",")
        yield _Posting(
            _day(row["recorded_at"]), title, names[row["debit_id"]], names[row["credit_id"]], row["amount_fen"]
        )


def _assert_hledger(export: Export, names: dict[str, str], at: str) -> list[str]:
    """Return one transaction that sets the opening balances, or asserts every closing balance."""
    first, after = _days(export, list(_list_postings(export, names)))
    lines = [f"{first if at == 'opening' else after} {at} balances"]
    for row in export.rows("accounts"):
        balance = -_balance(row[at])
        moved = _yuan(balance) if at == "opening" else "0.00"
        lines.append(f"    {names[row['id']]}  {moved} CNY = {_yuan(balance)} CNY")
    return [*lines, ""]


def _days(export: Export, postings: list[_Posting]) -> tuple[date, date]:
    """Return the day of the opening balances and the day after the period: both tools assert at a day's beginning."""
    named = export.manifest
    first = _day(named["start_us"])
    if not named["from"] and postings:
        first = postings[0].day
    return first, _day(named["end_us"])


def _balance(sides: list[Any]) -> int:
    """Return posted credits minus posted debits in fen."""
    return int(sides[3] - sides[1])


def _day(moment: int) -> date:
    return from_us(moment).astimezone(SHANGHAI).date()


def _yuan(fen: int) -> str:
    sign = "-" if fen < 0 else ""
    return f"{sign}{abs(fen) // 100}.{abs(fen) % 100:02d}"


def _write(target: Path, lines: list[str]) -> None:
    with target.open("x", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
