"""Runs every check over an export and says in plain lines what holds and what does not.

It leaves each check to its own file.
"""

import argparse
import base64
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .books import check_books
from .calls import check_calls
from .claims import check_claims
from .orders import check_orders, check_quotes
from .reading import Export
from .redemptions import check_redemptions
from .rules import check_rules
from .signatures import check_signatures
from .trail import check_files, check_rows, check_tree

SHOWN = 10
"""Problems of one kind that are printed; the rest is counted."""
BROKEN = (KeyError, ValueError, IndexError, TypeError, AttributeError, StopIteration, ArithmeticError)
"""What a check runs into where the export lacks or twists something that it needs."""


def verify(place: Path, *, key: str | None = None, notes: list[str] | None = None) -> tuple[bool, list[str]]:
    """Return whether an export holds, and the lines that say so. `key` and `notes` are the authority's own copies."""
    export = Export(place)
    checks: list[tuple[str, Callable[[Export], Iterator[str]]]] = [
        ("files are those of the manifest", check_files),
        ("rows are those that were chained, none left out", check_rows),
        ("chain and tree end in every checkpoint", check_tree),
        ("checkpoints are signed", lambda given: check_signatures(given, key, notes or [])),
        ("double entry: limits at every step, closing balances", check_books),
        ("rules, awards, caps and funds", check_rules),
        ("quotes and holds follow prices and rules", check_quotes),
        ("orders computed again from the meter", check_orders),
        ("hosted calls rated and billed again from the meter", check_calls),
        ("redemptions computed again from their charges", check_redemptions),
        ("claims computed again from their transfers", check_claims),
    ]
    lines, whole = [_describe(export)], True
    for title, check in checks:
        problems = _run(check, export)
        whole = whole and not problems
        lines.append(f"{'FAIL' if problems else 'ok  '}  {title}")
        lines += [f"      {problem}" for problem in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"      and {len(problems) - SHOWN} more")
    if key is None:
        named = export.manifest.get("public_key", "none")
        lines.append(f"note  the key is the export's own: compare it with the authority's copy: {named}")
    if not notes:
        lines.append(
            "note  no checkpoints of the authority were given: a tree rewritten and signed anew would not show"
        )
    lines.append("VERIFIED" if whole else "NOT VERIFIED")
    return whole, lines


def main(arguments: list[str] | None = None) -> int:
    """Verify one export; 0 where everything holds."""
    parser = argparse.ArgumentParser(prog="verify", description="checks an audit export without a database")
    parser.add_argument("export", type=Path, help="folder or .zip")
    parser.add_argument("--key", help="the installation's public key as the authority has it")
    parser.add_argument("--checkpoints", type=Path, help="the authority's copy of the checkpoints file")
    chosen = parser.parse_args(arguments)
    notes = read_copy(chosen.checkpoints) if chosen.checkpoints else None
    whole, lines = verify(chosen.export, key=chosen.key, notes=notes)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if whole else 1


def read_copy(path: Path) -> list[str]:
    """Return the notes of a checkpoints file, one in base64 on each line."""
    return [base64.b64decode(line).decode() for line in path.read_text(encoding="ascii").split()]


def _run(check: Callable[[Export], Iterator[str]], export: Export) -> list[str]:
    problems: list[str] = []
    try:
        for problem in check(export):
            problems.append(problem)  # one by one: what was found before the check broke is kept
    except BROKEN as error:
        problems.append(f"cannot be checked: the export lacks or twists {type(error).__name__} {error}")
    return problems


def _describe(export: Export) -> str:
    named = export.manifest
    counts = ", ".join(f"{len(export.rows(name))} {name}" for name in ("transfers", "accounts", "events"))
    calls = sum(len(row["annex"]["usage"]) for row in export.rows("usage"))
    return f"Export {named.get('from') or 'from the beginning'} to {named.get('to')}: {counts}, {calls} metered calls"
