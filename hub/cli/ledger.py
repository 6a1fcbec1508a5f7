"""`guanmo ledger check`: runs the invariants of the money over the whole database and says what breaks them.

It leaves the invariants to `hub.ledger.invariants`.
"""

import json
import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hub.database import open_sessions
from hub.ledger.invariants import Finding, check_invariants
from hub.settings import read_settings

ledger = typer.Typer(no_args_is_help=True)


@ledger.callback()
def describe() -> None:
    """The books."""


@ledger.command("check")
def check(
    only: Annotated[list[str] | None, typer.Argument(help="ids such as I3; all when left out")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Check the invariants I1 to I24; exits 1 where one is broken."""
    sessions = open_sessions(read_settings(os.environ).database_url)
    with sessions.read() as session:
        findings = check_invariants(session, only or None)
    sessions.close()
    if as_json:
        print(json.dumps({found.invariant.id: found.broken for found in findings}))
    else:
        _show(findings)
    if any(found.broken for found in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    chinese = os.environ.get("LANG", "").startswith("zh")
    table = Table("", "invariant 恒等式", "broken 违反", "first 示例", box=None)
    for found in findings:
        law = found.invariant
        sentence = law.sentence_zh if chinese else law.sentence
        table.add_row(law.id, sentence, str(found.broken), "; ".join(found.examples))
    Console(highlight=False).print(table)
