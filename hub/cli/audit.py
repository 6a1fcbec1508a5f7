"""`guanmo audit …` and `guanmo verify`: sign, check, export and verify the audit trail.

It leaves the doing to `hub.audit`; `verify` needs neither database nor settings.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from hub.audit.books import write_beancount, write_hledger
from hub.audit.chain import chain_all
from hub.audit.checking import check_audit
from hub.audit.checkpoints import make_checkpoint, read_notes
from hub.audit.export import read_period, write_export
from hub.audit.packing import pack_verifier
from hub.audit.service import read_key
from hub.audit.signing import verifier_key
from hub.audit.verifier.report import read_copy
from hub.audit.verifier.report import verify as verify_export
from hub.clock import read_clock
from hub.database import Sessions, open_sessions
from hub.errors import InvalidValueError
from hub.ledger.periods import month_key
from hub.settings import Settings, read_settings

console = Console(highlight=False, soft_wrap=True, markup=False)
audit = typer.Typer(no_args_is_help=True)
WRITERS = {"hledger": write_hledger, "beancount": write_beancount}


@audit.callback()
def describe() -> None:
    """The audit trail: chain, signed checkpoints, exports."""


@audit.command("checkpoint")
def checkpoint() -> None:
    """Chain everything and sign it now; the worker does so every minute by itself."""
    with _opened() as (settings, sessions):
        made = chain_all(sessions)
        key = read_key(settings.home)
        row = make_checkpoint(sessions, key, settings.home, now=read_clock())
        console.print(f"{made} links added; " + (f"signed at size {row.size}" if row else "nothing new to sign"))
        console.print(f"public key {verifier_key(key.public)}")


@audit.command("check")
def check() -> None:
    """Prove every row against the chain and every checkpoint in the file outside the database."""
    with _opened() as (settings, sessions):
        notes = read_notes(settings.home)
        with sessions.read() as session:
            problems = check_audit(session, notes, read_key(settings.home).public)
    for problem in problems:
        console.print(problem)
    console.print("NOT WHOLE" if problems else f"whole, {len(notes)} checkpoints / 审计链完整")
    raise typer.Exit(1 if problems else 0)


@audit.command("export")
def export(
    target: Annotated[Path, typer.Argument(help="new folder, or new file ending in .zip")],
    last: Annotated[str | None, typer.Option("--to", help="last month, for example 2026-11; now's if left out")] = None,
    first: Annotated[str | None, typer.Option("--from", help="first month; the beginning if left out")] = None,
) -> None:
    """Write a period's books, meters, bills, rules and proofs; the same period gives the same bytes."""
    with _opened() as (settings, sessions):
        now = read_clock()
        period = read_period(first, last or month_key(now))
        key = read_key(settings.home)
        chain_all(sessions)
        make_checkpoint(sessions, key, settings.home, now=now)
        with sessions.read() as session:
            manifest = write_export(session, target, period, public=key.public)
    console.print(f"{target}: {len(manifest['files'])} files, tree {manifest['tree_size']}, root {manifest['root']}")


@audit.command("books")
def books(
    source: Annotated[Path, typer.Argument(help="an export, folder or .zip")],
    target: Annotated[Path, typer.Argument(help="new text file")],
    form: Annotated[str, typer.Option("--format", help="hledger or beancount")] = "hledger",
) -> None:
    """Write an export's books for hledger or beancount, with the balance of every account asserted at the end."""
    if form not in WRITERS:
        raise InvalidValueError(
            f"Format '{form}' is unknown; use {', '.join(WRITERS)}.", f"格式“{form}”未知，可用 {'、'.join(WRITERS)}。"
        )
    console.print(f"{target}: {WRITERS[form](source, target)} postings")


@audit.command("verifier")
def verifier(target: Annotated[Path, typer.Argument(help="new file, for example verify.pyz")]) -> None:
    """Write the verifier as one file, to be kept and run elsewhere with plain Python."""
    pack_verifier(target)
    console.print(f"{target}: run it with 'python {target} EXPORT'")


def verify(
    export: Annotated[Path, typer.Argument(help="folder or .zip")],
    key: Annotated[str | None, typer.Option(help="the public key as the authority has it")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="the authority's copy of the checkpoints file")] = None,
) -> None:
    """Verify an audit export without database: hashes, chain, tree, signatures, double entry, caps, every bill."""
    if not export.exists():
        raise InvalidValueError(f"'{export}' does not exist; name an export.", f"“{export}”不存在。", field="export")
    whole, lines = verify_export(export, key=key, notes=read_copy(checkpoints) if checkpoints else None)
    console.print("\n".join(lines))
    raise typer.Exit(0 if whole else 1)


@contextmanager
def _opened() -> Iterator[tuple[Settings, Sessions]]:
    settings = read_settings(os.environ)
    sessions = open_sessions(settings.database_url)
    try:
        yield settings, sessions
    finally:
        sessions.close()
