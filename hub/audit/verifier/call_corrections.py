"""Computes corrections of hosted calls again from their tokens. It leaves first bills to `calls`."""

from collections import Counter
from collections.abc import Iterator

from .charging import build_charge, compare, compare_sums
from .reading import Row
from .terms import Bills

Costs = dict[tuple[str, int], int]
"""What each call of the period costs so far, in µfen, by request and attempt."""


def check_line_correction(bills: Bills, version: Row, line: Row, costs: Costs) -> Iterator[str]:
    """Every corrected call is rated again; the line then has posted its exact sum, no more of it from vouchers."""
    name = f"correction {version['id']}"
    for call in version["calls"]:
        yield from (f"{name}: {problem}" for problem in _check_call(bills, line, call, costs))
        line["exact_ufen"] += call["cost_ufen"] - call["was_ufen"]
    fee = line["exact_ufen"] // 1_000_000 - line["posted_fen"]
    most = (line["posted_fen"] + fee) * line["share_num"] // line["share_den"]
    voucher = min(0, most - line["subsidised_fen"])
    parts = _share_out(bills, version, line, fee)
    expected = [build_charge(line["id"], fee, voucher, parts)] if fee else []
    yield from (f"{name}: {problem}" for problem in compare(expected, version["charges"]))
    yield from compare_sums(version)
    if version.get("elapsed_fen"):
        yield f"{name} says {version['elapsed_fen']} fen for time that is not billed, a call has none"
    yield from (f"{name}: {problem}" for problem in _check_moved(bills, version, fee=fee, voucher=voucher))
    line["posted_fen"] += fee
    line["subsidised_fen"] += voucher
    if version["fault"] != "platform":
        line["had"].update(parts)


def _check_call(bills: Bills, line: Row, call: Row, costs: Costs) -> Iterator[str]:
    key = (call["request_id"], call["attempt"])
    cost = bills.cost_ufen(call | {"price_version_id": line["price_version_id"]})
    if call["cost_ufen"] != cost:
        yield f"call {key[0]}/{key[1]} is corrected to {call['cost_ufen']} µfen, its tokens give {cost}"
    if call["was_ufen"] != costs.get(key, 0 if call["late"] else call["was_ufen"]):
        yield f"call {key[0]}/{key[1]} is corrected from {call['was_ufen']} µfen, it was billed {costs.get(key, 0)}"
    costs[key] = call["cost_ufen"]


def _share_out(bills: Bills, version: Row, line: Row, fee: int) -> Counter[tuple[str, str]]:
    """Return each party's difference; on the platform's fault the receivers keep what they have."""
    if version["fault"] == "platform":
        return Counter({("platform", ""): fee})
    total = sum(line["had"].values()) + fee
    due = bills.give_out(total, line["price_version_id"], payer=line["organisation_id"], had=Counter())
    due.subtract(line["had"])
    return due


def _check_moved(bills: Bills, version: Row, *, fee: int, voucher: int) -> Iterator[str]:
    rows = bills.groups[version["group_id"]]
    moved = {purse: sum(_signed(row, purse) for row in rows) for purse in ("voucher", "cash")}
    for purse, wanted in (("voucher", voucher), ("cash", fee - voucher)):
        if moved[purse] != wanted:
            yield f"the ledger moved {moved[purse]} fen of {purse}, the calls give {wanted}"


def _signed(row: Row, purse: str) -> int:
    return int(row["amount_fen"]) * {f"{purse}_corrected": 1, f"{purse}_returned": -1}.get(row["code"], 0)
