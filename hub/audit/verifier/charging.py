"""Compares what a bill must say with what it says and with what the ledger moved. It leaves computing to callers."""

from collections import Counter
from collections.abc import Iterator

from .reading import Row
from .terms import Bills


def build_charge(place: str, fee: int, voucher: int, parts: Counter[tuple[str, str]]) -> Row:
    """Return what a charge must say; `place` is its meter or bill line."""
    return {
        "place": place,
        "fee_fen": fee,
        "voucher_fen": voucher,
        "cash_fen": fee - voucher,
        "parts": sorted([party, owner, amount] for (party, owner), amount in parts.items() if amount),
    }


def compare(expected: list[Row], charges: list[Row]) -> Iterator[str]:
    """Yield where charges differ from what they must say."""
    found: dict[str, Row] = {}
    for charge in charges:
        place = charge["bill_line_id"] or charge["meter"]
        parts = sorted([part["party"], part["organisation_id"], part["amount_fen"]] for part in charge["parts"])
        found[place] = charge | {"place": place, "parts": parts}
    for wanted in expected:
        charge = found.pop(wanted["place"], {})
        for name, value in wanted.items():
            if charge.get(name) != value:
                yield f"{wanted['place']} is charged {name} {charge.get(name)}, the meter gives {value}"
    yield from (f"{place} is charged without a meter behind it" for place in sorted(found))


def compare_sums(version: Row) -> Iterator[str]:
    """A correction says of itself what its charges come to."""
    for name in ("fee_fen", "voucher_fen", "cash_fen"):
        total = sum(charge[name] for charge in version["charges"])
        if version[name] != total:
            yield f"correction {version['id']} says {name} {version[name]}, its charges give {total}"


def compare_group(bills: Bills, charges: list[Row], name: str) -> Iterator[str]:
    """The ledger group of a bill moves what its charges say, to whom they say."""
    rows = [row for row in bills.groups[charges[0]["group_id"]] if row["kind"] in ("single", "post")] if charges else []
    found: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row["code"] != "elapsed_time_paid":
            found[row["code"], _payee(bills, row)] += row["amount_fen"]
    wanted: Counter[tuple[str, str]] = Counter()
    for charge in charges:
        wanted["voucher_settled", ""] += charge["voucher_fen"]
        wanted["cash_settled", ""] += charge["cash_fen"]
        for part in charge["parts"]:
            # The operator's own sales are platform income, which belongs to no firm.
            key = (f"income_{part['party']}", part["organisation_id"])
            wanted[key if key in found else (key[0], "")] += part["amount_fen"]
    for key in sorted(set(wanted) | set(found)):
        if wanted[key] != found[key]:
            yield f"{name}: the bill says {wanted[key]} fen of {' '.join(key).strip()}, the ledger moved {found[key]}"


def _payee(bills: Bills, row: Row) -> str:
    """Return the firm that a movement is owed to, empty where it goes to the platform's books."""
    account = bills.accounts[row["credit_id"]]
    return str(account["organisation_id"]) if account["kind"] == "payable" else ""
