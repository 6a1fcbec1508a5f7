"""Plays every transfer through both its accounts. It leaves why money moved to the checks of rules and bills."""

from collections.abc import Iterator

from .reading import Export, Row


def check_books(export: Export) -> Iterator[str]:
    """Every transfer moves the same on two accounts, no limit is passed at any step, every closing balance is right."""
    accounts = {row["id"]: row for row in export.rows("accounts")}
    sides = {key: list(row["opening"]) for key, row in accounts.items()}
    holds: dict[str, Row] = {}
    ended: set[str] = set()
    for item in export.rows("transfers"):
        row = item["row"]
        if row["debit_id"] not in accounts or row["credit_id"] not in accounts or row["debit_id"] == row["credit_id"]:
            yield f"transfer {row['id']} does not name two accounts of the export"
            continue
        if not isinstance(row["amount_fen"], int) or row["amount_fen"] < 1:
            yield f"transfer {row['id']} moves {row['amount_fen']!r} fen"
            continue
        if row["kind"] == "pending":
            holds[row["id"]] = row
        if not export.within(row["recorded_at"]):
            continue  # a hold from before: it is in the opening balances
        held = holds.get(row["pending_id"] or "")
        yield from _check_end(row, held, ended)
        _apply(row, held["amount_fen"] if held else 0, sides)
        yield from _check_limits(row, accounts, sides)
    for key, row in sorted(accounts.items()):
        if sides[key] != row["closing"]:
            name = f"{row['kind']} of {row['organisation_id']}"
            yield f"account {key} ({name}) closes at {row['closing']}, its transfers give {sides[key]}"
    for title, at in (("opening", "opening"), ("closing", "closing")):
        pending = sum(row[at][2] - row[at][0] for row in accounts.values())
        posted = sum(row[at][3] - row[at][1] for row in accounts.values())
        if pending or posted:
            yield f"{title} balances add up to {posted} posted and {pending} pending fen, not 0"


def _check_end(row: Row, held: Row | None, ended: set[str]) -> Iterator[str]:
    if row["kind"] not in ("post", "void"):
        return
    if held is None or row["pending_id"] in ended:
        yield f"transfer {row['id']} ends hold {row['pending_id']}, which is {'over' if held else 'not there'}"
        return
    ended.add(row["pending_id"])
    same = (row["debit_id"], row["credit_id"]) == (held["debit_id"], held["credit_id"])
    if not same or row["amount_fen"] > held["amount_fen"]:
        yield f"transfer {row['id']} of {row['amount_fen']} fen does not fit its hold of {held['amount_fen']} fen"


def _apply(row: Row, held_fen: int, sides: dict[str, list[int]]) -> None:
    pending = row["amount_fen"] if row["kind"] == "pending" else -held_fen
    posted = row["amount_fen"] if row["kind"] in ("single", "post") else 0
    for key, offset in ((row["debit_id"], 0), (row["credit_id"], 2)):
        sides[key][offset] += pending
        sides[key][offset + 1] += posted


def _check_limits(row: Row, accounts: dict[str, Row], sides: dict[str, list[int]]) -> Iterator[str]:
    for key in (row["debit_id"], row["credit_id"]):
        debits_pending, debits_posted, credits_pending, credits_posted = sides[key]
        over = accounts[key]["limited"] and debits_pending + debits_posted > credits_posted
        paid = accounts[key]["credit_limited"] and credits_pending + credits_posted > debits_posted
        if over or paid or min(sides[key]) < 0:
            yield f"transfer {row['id']} takes {accounts[key]['kind']} account {key} beyond its limit: {sides[key]}"
