"""Checks rule versions, awards, caps and funds. It leaves what a rule pays of a bill to `orders` and `calls`."""

from collections import defaultdict
from collections.abc import Iterator

from .reading import Export, Row, digest


def check_rules(export: Export) -> Iterator[str]:
    """Rules are what was approved by a second person; awards stay within the firm's cap and the programme's fund."""
    rules = export.annexes("rules")
    for rule in rules.values():
        if rule["approved_by"] == rule["drafted_by"] or not rule["approved_by"]:
            yield f"rule version {rule['id']} was drafted and approved by {rule['approved_by']}"
        if digest(rule["body"]) != rule["sha256"]:
            yield f"rule version {rule['id']} has another body than its sha256 says"
    grants = export.annexes("grants")
    used: dict[tuple[str, str, str], int] = defaultdict(int)
    for item in export.rows("events"):
        event = item["row"]
        grant = grants.get(event["subject"], {})
        key = (grant.get("organisation_id", ""), grant.get("programme_id", ""), grant.get("period_key", ""))
        if event["topic"] == "grant.returned":
            used[key] -= event["payload"]["amount_fen"]
        if event["topic"] == "grant.awarded":
            used[key] += grant["amount_fen"]
            cap = rules[grant["rule_version_id"]]["body"]["per_firm_cap_fen"]
            if cap is not None and used[key] > cap:
                over = used[key] - cap
                yield f"grant {grant['id']} brings {key[0]} to {used[key]} fen in {key[2]}, {over} over the cap"
    yield from _check_funds(export, rules)


def _check_funds(export: Export, rules: dict[str, Row]) -> Iterator[str]:
    funds = {rule["programme"]["id"]: rule["programme"] for rule in rules.values()}
    released: dict[str, int] = defaultdict(int)
    for account in export.rows("accounts"):
        if account["kind"] == "appropriation":
            released[account["subject"]] += account["closing"][1]
    claims = export.annexes("claims")
    for event in export.events("claim.paid"):
        # What was repaid to the authority is a debit of the same account, and no release.
        released[claims[event["subject"]]["programme_id"]] += min(0, event["payload"]["paid_fen"])
    for programme_id, amount in sorted(released.items()):
        fund = funds.get(programme_id, {}).get("fund_fen")
        if fund is not None and amount > fund:
            yield f"programme {funds[programme_id]['code']} released {amount} fen of a fund of {fund} fen"
