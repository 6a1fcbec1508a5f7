"""Computes claims again from the transfers they name. It leaves redemptions to `redemptions`."""

from collections import Counter
from collections.abc import Iterator

from .days import check_days
from .reading import Export, Row
from .terms import Bills

FREEING = ("claim.withdrawn", "claim.refused")
"""Steps after which a transfer may be claimed again."""
_AFTER = {
    "claim.submitted": "claim.drafted",
    "claim.withdrawn": "claim.drafted",
    "claim.refused": "claim.submitted",
    "claim.paid": "claim.submitted",
    "claim.reconciled": "claim.paid",
}
"""What a claim became before each step of its life."""


def check_claims(export: Export) -> Iterator[str]:
    """Every transfer is claimed once and whole, a second person submits, the authority's money is what was said."""
    bills, grants = Bills(export), export.annexes("grants")
    drafts = {row["link"]: row["annex"] for row in export.rows("claims") if row["annex"]}
    transfers = {item["row"]["id"]: item["row"] for item in export.rows("transfers")}
    claimed: dict[str, str] = {}
    known: dict[str, Row] = {}
    standing: dict[str, Row] = {}
    became: dict[str, str] = {}
    for item in export.rows("events"):
        event = item["row"]
        if item["link"] in drafts:
            claim = drafts[item["link"]]
            yield from _check_draft(export, claim, grants, transfers, claimed)
            yield from check_days(claim, standing.values())
            known[claim["id"]] = standing[claim["id"]] = claim
            became[claim["id"]] = "claim.drafted"
        elif event["topic"].startswith("claim.") and event["subject"] in known:
            before, became[event["subject"]] = became[event["subject"]], event["topic"]
            if before != _AFTER.get(event["topic"], before):
                yield f"claim {event['subject']} became {event['topic'][6:]} after it was {before[6:]}"
            if event["topic"] in FREEING:
                standing.pop(event["subject"], None)
            yield from _check_step(bills, event, known[event["subject"]], claimed)
        elif event["topic"].startswith("claim.") and export.within(event["occurred_at"]):
            yield f"claim {event['subject']} became {event['topic'][6:]} and was never drafted"


def _check_draft(
    export: Export, claim: Row, grants: dict[str, Row], transfers: dict[str, Row], claimed: dict[str, str]
) -> Iterator[str]:
    name = f"claim {claim['id']}"
    total = sum(line["amount_fen"] for line in claim["lines"])
    if claim["amount_fen"] != total:
        yield f"{name} asks {claim['amount_fen']} fen, its lines give {total}"
    for line in claim["lines"]:
        grant, row = grants.get(line["grant_id"]), transfers.get(line["transfer_id"])
        if line["transfer_id"] in claimed:
            yield f"{name} claims transfer {line['transfer_id']}, which claim {claimed[line['transfer_id']]} has"
        claimed[line["transfer_id"]] = claim["id"]
        if grant is None or grant["programme_id"] != claim["programme_id"]:
            yield f"{name} claims money of grant {line['grant_id']}, which is not of its programme"
        elif row is not None or export.within(line["booked_at"]):
            yield from (f"{name}: {problem}" for problem in _check_line(line, grant, row))


def _check_line(line: Row, grant: Row, row: Row | None) -> Iterator[str]:
    if row is None or row["kind"] not in ("single", "post"):
        yield f"transfer {line['transfer_id']} is claimed and moved no money"
        return
    account = grant["account_id"]
    moved = row["amount_fen"] * {row["debit_id"]: 1, row["credit_id"]: -1}.get(account, 0)
    if moved != line["amount_fen"]:
        yield f"transfer {row['id']} is claimed with {line['amount_fen']} fen, it moved {moved} of that grant"
    if row["code"] in ("voucher_awarded", "grant_returned"):
        yield f"transfer {row['id']} ({row['code']}) is claimed, which no firm used"


def _check_step(bills: Bills, event: Row, claim: Row, claimed: dict[str, str]) -> Iterator[str]:
    topic, said = event["topic"], event["payload"]
    inside = bills.export.within(event["occurred_at"])
    if said["amount_fen"] != claim["amount_fen"]:
        yield f"claim {claim['id']} became {topic[6:]} with {said['amount_fen']} fen, it was drafted with another sum"
    if topic in FREEING:
        for line in claim["lines"]:
            claimed.pop(line["transfer_id"], None)
    if topic == "claim.submitted" and event["actor_id"] == claim["drafted_by"]:
        yield f"claim {claim['id']} was drafted and submitted by {event['actor_id']}"
    if topic == "claim.paid":
        claim["paid_fen"] = said["paid_fen"]
        moved = _sum_paid(bills, claim["id"])
        if inside and moved != said["paid_fen"]:
            yield f"claim {claim['id']} was paid {said['paid_fen']} fen, the ledger moved {moved}"
    if topic == "claim.reconciled" and "paid_fen" in claim:
        difference = claim["paid_fen"] - claim["amount_fen"]
        if said["difference_fen"] != difference or (difference and not said["reason"]):
            yield f"claim {claim['id']} is reconciled with a difference of {said['difference_fen']}, it is {difference}"


def _sum_paid(bills: Bills, claim_id: str) -> int:
    """Return what came from the bank for a claim, negative where it was repaid."""
    found: Counter[str] = Counter()
    for row in bills.of_business(claim_id):
        from_bank = bills.accounts[row["debit_id"]]["kind"] == "bank"
        found[row["code"]] += row["amount_fen"] if from_bank else -row["amount_fen"]
    return found["claim_paid"]
