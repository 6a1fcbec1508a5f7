"""Rates every hosted call again and resolves every tranche again. It leaves orders to `orders`."""

from collections import Counter
from collections.abc import Iterator

from .call_corrections import Costs, check_line_correction
from .charging import build_charge, compare, compare_group
from .reading import Export, Row
from .terms import Bills


def check_calls(export: Export) -> Iterator[str]:
    """Every call is rated again, every tranche resolved again on its bill lines, every fen found in the ledger."""
    bills = Bills(export)
    lines = {
        row["id"]: row | {"had": Counter({(p, o): a for p, o, a in row["parts"]})} for row in export.rows("bill_lines")
    }
    tranches = {row["link"]: row["annex"] for row in export.rows("usage")}
    corrections = {row["link"]: row["annex"] for row in export.rows("call_corrections")}
    costs: Costs = {}
    for item in export.rows("events"):
        event = item["row"]
        if event["topic"] == "bill_line.topped_up" and export.within(event["occurred_at"]):
            yield from _check_top_up(bills, lines[event["subject"]], event)
        version = corrections.get(item["link"])
        if version is not None and export.within(event["occurred_at"]):
            yield from check_line_correction(bills, version, lines[event["subject"]], costs)
        tranche = tranches.get(item["link"])
        if tranche is not None:
            yield from _check_usage(bills, tranche, lines, costs)
            expected = list(_resolve(bills, tranche, lines))
            yield from (f"tranche {tranche['id']}: {line}" for line in compare(expected, tranche["charges"]))
            yield from compare_group(bills, tranche["charges"], f"tranche {tranche['id']}")


def _check_usage(bills: Bills, tranche: Row, lines: dict[str, Row], costs: Costs) -> Iterator[str]:
    rule = bills.rules.get(tranche["rule_version_id"] or "")
    for usage in tranche["usage"]:
        name = f"call {usage['request_id']}/{usage['attempt']}"
        if (usage["request_id"], usage["attempt"]) in costs:
            yield f"{name} is billed twice"
        costs[usage["request_id"], usage["attempt"]] = usage["cost_ufen"]
        cost = bills.cost_ufen(usage)
        if usage["cost_ufen"] != cost:
            yield f"{name} was rated {usage['cost_ufen']} µfen, its tokens give {cost}"
        version = bills.versions.get(usage["version_id"])
        derived = version is not None and version["base_version_id"] is not None
        filed = rule is not None and derived and _rule_pays(bills, rule, usage["version_id"], tranche["opened_at"])
        if bool(usage["subsidised"]) != filed or filed != (lines[usage["bill_line_id"]]["rule_version_id"] is not None):
            yield f"{name} is {'not ' if filed else ''}subsidised, rule and filing say otherwise"


def _rule_pays(bills: Bills, rule: Row, version_id: str, moment: int) -> bool:
    return not rule["body"]["needs_filed_base"] or bills.is_filed(version_id, moment)


def _resolve(bills: Bills, tranche: Row, lines: dict[str, Row]) -> Iterator[Row]:
    """Yield what a tranche charges on each line: F = floor(exact) - posted, S = min(due share, S_q, F)."""
    used: Counter[str] = Counter()
    for usage in tranche["usage"]:
        used[usage["bill_line_id"]] += usage["cost_ufen"]
    left, voucher_left = tranche["held_fen"], tranche["voucher_held_fen"]
    for key in sorted(used, key=lambda key: (lines[key]["rule_version_id"] is None, key)):
        line = lines[key]
        line["exact_ufen"] += used[key]
        fee = min(line["exact_ufen"] // 1_000_000 - line["posted_fen"], left)
        due = (line["posted_fen"] + fee) * line["share_num"] // line["share_den"] - line["subsidised_fen"]
        voucher = min(due, voucher_left, fee) if line["rule_version_id"] else 0
        payer, price = line["organisation_id"], line["price_version_id"]
        parts = bills.give_out(fee, price, payer=payer, before=sum(line["had"].values()), had=line["had"])
        line["posted_fen"] += fee
        line["subsidised_fen"] += voucher
        line["had"].update(parts)
        left, voucher_left = left - fee, voucher_left - voucher
        if fee:
            yield build_charge(key, fee, voucher, parts)


def _check_top_up(bills: Bills, line: Row, event: Row) -> Iterator[str]:
    paid = event["payload"]["paid_fen"]
    line["subsidised_fen"] += paid
    moved = sum(
        row["amount_fen"]
        for row in bills.of_business(line["id"])
        if row["recorded_at"] == event["occurred_at"] and row["code"] == "voucher_topped_up"
    )
    if line["subsidised_fen"] > line["posted_fen"] * line["share_num"] // line["share_den"] or moved != paid:
        yield f"bill line {line['id']} was topped up by {paid} fen beyond its share, or the ledger moved {moved}"
