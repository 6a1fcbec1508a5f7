"""Computes quotes, orders and corrections again from the meter.

It leaves hosted calls to `calls`, and time that the platform pays to `elapsed`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from .charging import build_charge, compare, compare_group, compare_sums
from .elapsed import check_elapsed
from .reading import Export, Row
from .terms import Bills


def check_quotes(export: Export) -> Iterator[str]:
    """Every quote follows its pinned price and the rule in force when it was made, and its holds are what it says."""
    bills = Bills(export)
    for quote in bills.quotes.values():
        for line in quote["lines"]:
            where = f"quote {quote['id']} line {line['position']}"
            if (line["amount_fen"], line["per_units"]) != bills.price(line["price_version_id"], line["meter"]):
                yield f"{where} has another price than version {line['price_version_id']}"
            if line["list_fen"] != line["quantity"] * line["amount_fen"] // line["per_units"]:
                yield f"{where} lists {line['list_fen']} fen, quantity times price gives another sum"
            if line["list_fen"] != line["voucher_fen"] + line["self_paid_fen"]:
                yield f"{where}: {line['voucher_fen']} + {line['self_paid_fen']} is not {line['list_fen']} fen"
            for cover in line["covers"]:
                yield from (f"{where}: {problem}" for problem in _check_cover(bills, quote, line, cover))
    for event in export.events("order.accepted"):
        if export.within(event["occurred_at"]):
            yield from _check_holds(bills, event)


def _check_cover(bills: Bills, quote: Row, line: Row, cover: Row) -> Iterator[str]:
    rule = bills.rules[cover["rule_version_id"]]
    share, at = rule["body"]["share"], quote["created_at"]
    if (cover["share_num"], cover["share_den"]) != (share["num"], share["den"]):
        yield f"share {cover['share_num']}/{cover['share_den']} is not that of rule {rule['id']}"
    if at < rule["effective_from_at"] or (rule["effective_to_at"] is not None and at >= rule["effective_to_at"]):
        yield f"rule {rule['id']} was not in force when the quote was made"
    if cover["amount_fen"] > line["list_fen"] * cover["share_num"] // cover["share_den"]:
        yield f"voucher {cover['amount_fen']} fen is more than its share of {line['list_fen']} fen"
    if line["meter"] not in rule["body"]["eligible_meters"] + rule["body"]["fallback_meters"]:
        yield f"rule {rule['id']} does not pay for {line['meter']}"
    if rule["body"]["needs_filed_base"] and not bills.is_filed(quote["base_version_id"], at):
        yield f"rule {rule['id']} needs a filed base; this one had no valid filing"


def _check_holds(bills: Bills, event: Row) -> Iterator[str]:
    quote = bills.quotes[event["payload"]["quote_id"]]
    held = [row for row in bills.of_business(event["subject"]) if row["kind"] == "pending"]
    for code, wanted in (("voucher_held", quote["voucher_fen"]), ("cash_held", quote["self_paid_fen"])):
        found = sum(row["amount_fen"] for row in held if row["code"] == code)
        if found != wanted:
            yield f"order {event['subject']} holds {found} fen as {code}, its quote says {wanted}"


def check_orders(export: Export) -> Iterator[str]:
    """Every closed order charges its meter at the pinned terms, corrections too, and the ledger moved just that."""
    bills = Bills(export)
    metered: dict[str, Row] = {}
    left_ms: dict[str, int] = {}
    states: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for order in export.annexes("orders").values():
        expected = list(_settle(bills, bills.quotes[order["quote_id"]], order["metered"] or {}))
        yield from (f"order {order['id']}: {line}" for line in compare(expected, order["charges"]))
        if order["rental"] and not order["fault"]:
            yield from _check_rental(bills.quotes[order["quote_id"]], order, left_ms)
        metered[order["id"]] = order
        _add_charges(states, order["id"], order["charges"])
        if export.within(order["closed_at"]) and order["charges"]:
            yield from compare_group(bills, order["charges"], f"order {order['id']}")
    for version in sorted(export.annexes("corrections").values(), key=lambda row: (row["order_id"], row["number"])):
        yield from compare_sums(version)
        _add_charges(states, version["order_id"], version["charges"])
        quote = bills.quotes[metered[version["order_id"]]["quote_id"]]
        for line in quote["lines"]:
            yield from _check_corrected(line, version, states[version["order_id"], line["meter"]])
    yield from check_elapsed(bills)


def _settle(bills: Bills, quote: Row, metered: Row) -> Iterator[Row]:
    for line in quote["lines"]:
        quantity = min(metered.get(line["meter"], 0), line["quantity"])
        fee = quantity * line["amount_fen"] // line["per_units"]
        cover = line["covers"][0] if line["covers"] else None
        voucher = min(fee * cover["share_num"] // cover["share_den"], cover["amount_fen"]) if cover else 0
        if quantity:
            parts = bills.give_out(fee, line["price_version_id"], had=Counter())
            yield build_charge(line["meter"], fee, voucher, parts) | {"quantity": quantity}


def _check_rental(quote: Row, order: Row, left_ms: dict[str, int]) -> Iterator[str]:
    """The time billed is what the provider's readings count, at most what passed, the first order before the next."""
    rental, name = order["rental"], f"order {order['id']}"
    before = 0
    for reading in rental["readings"]:
        passed_ms = (min(reading["observed_at"], reading["received_at"]) - rental["allocated_at"]) // 1000
        if reading["counted_ms"] < before or (reading["counted_ms"] > passed_ms and not reading["resolved_by"]):
            yield f"{name}: reading {reading['seq']} counts {reading['counted_ms']} ms where {passed_ms} ms passed"
        before = reading["counted_ms"]
    counted = min(before, (rental["released_at"] - rental["allocated_at"]) // 1000)
    left = left_ms.get(rental["id"], counted)
    part = min(left, quote["lines"][0]["quantity"])
    left_ms[rental["id"]] = left - part
    if (order["metered"] or {}).get("device_ms") != part:
        yield f"{name} bills {order['metered']} of a rental whose readings give {part} ms"


def _check_corrected(line: Row, version: Row, state: Counter[str]) -> Iterator[str]:
    quantity = min(version["metered"].get(line["meter"], 0), line["quantity"])
    fee = quantity * line["amount_fen"] // line["per_units"]
    cover = line["covers"][0] if line["covers"] else None
    most = min(fee * cover["share_num"] // cover["share_den"], cover["amount_fen"]) if cover else 0
    found = (state["quantity"], state["fee_fen"], state["voucher_fen"] + state["cash_fen"])
    if found != (quantity, fee, fee) or not 0 <= state["voucher_fen"] <= most:
        yield (
            f"correction {version['id']} of {line['meter']} leaves {dict(state)}, "
            f"the meter gives {quantity} units, {fee} fen and at most {most} fen of voucher"
        )


def _add_charges(states: dict[tuple[str, str], Counter[str]], order_id: str, charges: list[Row]) -> None:
    for charge in charges:
        for name in ("quantity", "fee_fen", "voucher_fen", "cash_fen"):
            states[order_id, charge["meter"]][name] += charge[name]
