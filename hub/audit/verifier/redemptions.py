"""Computes redemptions again from their charges, and what corrections took back. It leaves claims to `claims`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from .reading import Export, Row
from .terms import Bills


def check_redemptions(export: Export) -> Iterator[str]:
    """Every fee is redeemed once, its share floored on the sum, paid by two persons, and taken back where it fell."""
    bills = Bills(export)
    charges = {charge["id"]: charge for charge in list_charges(export)}
    wanted = {row["link"]: row["annex"] for row in export.rows("redemptions") if row["annex"]}
    redeemed: dict[str, str] = {}
    known: dict[str, Row] = {}
    for item in export.rows("events"):
        event = item["row"]
        if item["link"] in wanted:
            annex = wanted[item["link"]]
            known[annex["id"]] = annex | {"lost": 0, "back": 0}
            yield from _check_request(bills, annex, charges, redeemed)
        if event["topic"] in ("redemption.refused", "redemption.withdrawn"):
            _free(known.get(event["subject"]), redeemed)
        if event["topic"] == "redemption.checked":
            known.get(event["subject"], {})["checked_by"] = event["actor_id"]
        if event["topic"] == "redemption.paid" and export.within(event["occurred_at"]):
            yield from _check_paid(bills, event, known.get(event["subject"]))
        if event["topic"] == "redemption.taken_back":
            yield from _check_back(
                bills, event, known.get(event["subject"]), inside=export.within(event["occurred_at"])
            )
    if not export.manifest.get("from"):
        yield from _check_bases(charges, known.values())


def list_charges(export: Export) -> Iterator[Row]:
    """Yield every charge of the export: first bills and corrections, of orders and of calls."""
    for name in ("orders", "corrections", "usage", "call_corrections"):
        for annex in export.annexes(name).values():
            yield from annex["charges"]


def _check_request(bills: Bills, annex: Row, charges: dict[str, Row], redeemed: dict[str, str]) -> Iterator[str]:
    name, rule = f"redemption {annex['id']}", bills.rules[annex["rule_version_id"]]
    if rule["body"]["mode"] != "reimburse":
        yield f"{name} rests on rule {rule['id']}, which reimburses nothing"
    for line in annex["lines"]:
        charge = charges.get(line["charge_id"])
        if line["charge_id"] in redeemed:
            yield f"{name} redeems charge {line['charge_id']}, which {redeemed[line['charge_id']]} has"
        redeemed[line["charge_id"]] = annex["id"]
        if charge is None:
            continue  # charged before the period
        if charge["organisation_id"] != annex["organisation_id"] or charge["voucher_fen"]:
            yield f"{name} redeems charge {charge['id']} of another firm, or one that a voucher paid a part of"
        if not 0 < line["fee_fen"] <= charge["fee_fen"]:
            yield f"{name} counts {line['fee_fen']} fen of charge {charge['id']}, which is {charge['fee_fen']} fen"
    total = sum(line["fee_fen"] for line in annex["lines"])
    if rule["body"]["share"] is None:
        # A sum that two persons granted: the ledger keeps it within the grant.
        total = annex["amount_fen"]
    if annex["eligible_fen"] != total:
        yield f"{name} says {annex['eligible_fen']} fen are eligible, its charges give {total}"
    if annex["amount_fen"] > _share(rule, total):
        yield f"{name} asks {annex['amount_fen']} fen, the rule's share of its charges is {_share(rule, total)}"


def _check_paid(bills: Bills, event: Row, annex: Row | None) -> Iterator[str]:
    if annex is None:
        yield f"redemption {event['subject']} was paid and never asked for"
        return
    if event["actor_id"] in (annex.get("checked_by"), annex["requested_by"]):
        yield f"redemption {annex['id']} was checked or asked for, and approved, by {event['actor_id']}"
    annex["paid"] = True
    moved = sum(row["amount_fen"] for row in bills.of_business(annex["id"]) if row["code"] == "voucher_redeemed")
    if not moved == annex["amount_fen"] == event["payload"]["amount_fen"]:
        yield f"redemption {annex['id']} asks {annex['amount_fen']} fen, the ledger moved {moved}"


def _check_back(bills: Bills, event: Row, annex: Row | None, *, inside: bool) -> Iterator[str]:
    if annex is None:
        yield f"redemption {event['subject']} was taken back and never asked for"
        return
    said = event["payload"]
    annex["lost"] += said["fee_fen"]
    paid = annex["amount_fen"] - annex["back"]
    remaining = annex["eligible_fen"] - annex["lost"]
    due = paid - min(paid, _share(bills.rules[annex["rule_version_id"]], remaining))
    annex["back"] += said["amount_fen"]
    annex.setdefault("bases", Counter())[said["charge_id"]] += said["fee_fen"]
    moved = sum(row["amount_fen"] for row in bills.groups[said["group_id"]] if row["code"] == "redeemed_back")
    if said["amount_fen"] != due or (inside and moved != due):
        yield f"redemption {annex['id']} gave back {said['amount_fen']} fen (moved {moved}), its charges give {due}"


def _check_bases(charges: dict[str, Row], redemptions: Iterable[Row]) -> Iterator[str]:
    """Of no meter of an order and no bill line more is redeemed than it costs after its corrections."""
    net: Counter[str] = Counter()
    for charge in charges.values():
        net[_base(charge)] += charge["fee_fen"]
    taken: dict[str, int] = defaultdict(int)
    for annex in redemptions:
        if annex.get("paid"):
            for line in annex["lines"]:
                if line["charge_id"] in charges:
                    taken[_base(charges[line["charge_id"]])] += line["fee_fen"]
            for charge_id, fee in annex.get("bases", {}).items():
                taken[_base(charges[charge_id])] -= fee
    for base, fee in sorted(taken.items()):
        if fee > net[base]:
            yield f"{fee} fen of {base} are redeemed, after corrections it costs {net[base]}"


def _base(charge: Row) -> str:
    return str(charge["bill_line_id"] or f"{charge['order_id']}/{charge['meter']}")


def _free(annex: Row | None, redeemed: dict[str, str]) -> None:
    for line in annex["lines"] if annex else ():
        redeemed.pop(line["charge_id"], None)


def _share(rule: Row, fee: int) -> int:
    """Return the rule's share of a fee that contains tax, floored once."""
    body = rule["body"]
    if body["share"] is None:
        return fee
    num, den = body["share"]["num"], body["share"]["den"]
    if body["tax"] == "excl" and body.get("vat_bp") is not None:
        num, den = num * 10_000, den * (10_000 + body["vat_bp"])
    return int(fee * num // den)
