"""Computes again what the platform paid providers for time that no customer pays. It leaves bills to `orders`."""

from collections import Counter
from collections.abc import Iterator

from .reading import Row
from .terms import Bills

METER = "device_ms"


def check_elapsed(bills: Bills) -> Iterator[str]:
    """The platform adds to each device line what pays for all the time that passed, after corrections too, and once."""
    export = bills.export
    orders = export.annexes("orders")
    posted = {row["payload"]["bill_version_id"]: row for row in export.events("bill.corrected")}
    fees: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    for order in orders.values():
        fees[order["id"]] = _sum_fees(order["charges"])
        paid[order["id"]] = _find_due(bills, order, fees[order["id"]])
        if export.within(order["closed_at"]):
            rows = [row for row in bills.of_business(order["id"]) if row["code"] == "elapsed_time_paid"]
            yield from _compare(bills, f"order {order['id']}", rows, paid[order["id"]])
    for version in sorted(export.annexes("corrections").values(), key=lambda row: (row["order_id"], row["number"])):
        order_id = version["order_id"]
        before = paid[order_id]
        fees[order_id] += _sum_fees(version["charges"])
        if version["fault"] != "platform":  # on its own fault the platform leaves the provider what it has
            paid[order_id] = 0 if version["fault"] else _find_due(bills, orders[order_id], fees[order_id])
        yield from _check_said(version, posted[version["id"]], paid[order_id] - before)
        if export.within(posted[version["id"]]["occurred_at"]):
            rows = [row for row in bills.groups.get(version["group_id"], []) if row["code"] == "elapsed_time_corrected"]
            yield from _compare(bills, f"correction {version['id']}", rows, paid[order_id] - before)


def _sum_fees(charges: list[Row]) -> int:
    return sum(charge["fee_fen"] for charge in charges if charge["meter"] == METER)


def _find_due(bills: Bills, order: Row, charged_fen: int) -> int:
    line = next(line for line in bills.quotes[order["quote_id"]]["lines"] if line["meter"] == METER)
    elapsed_ms = (order["metered"] or {}).get("elapsed_device_ms", 0)
    return max(0, int(elapsed_ms * line["amount_fen"] // line["per_units"]) - charged_fen)


def _check_said(version: Row, event: Row, wanted: int) -> Iterator[str]:
    """A correction and its event say the same of such time; behind an event of version 1 the row says nothing."""
    said = {event["payload"].get("elapsed_fen", wanted)}
    if event["schema_version"] > 1:
        said.add(version["elapsed_fen"])
    for found in sorted(said - {wanted}):
        yield f"correction {version['id']} says {found} fen for time that is not billed, the meter gives {wanted}"


def _compare(bills: Bills, name: str, rows: list[Row], wanted: int) -> Iterator[str]:
    costs = {row["id"] for row in bills.accounts.values() if row["kind"] == "platform_cost"}
    found = sum(row["amount_fen"] if row["debit_id"] in costs else -row["amount_fen"] for row in rows)
    if found != wanted:
        yield f"{name}: the platform paid {found} fen for time that is not billed, the meter gives {wanted}"
