"""`guanmo operators add`: the first people of a production installation, who then verify everybody else.

It leaves everybody else to sign-up pages and the HTTP API.
"""

import os
import secrets as entropy
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import select

from hub.actor import Role
from hub.clock import read_clock
from hub.database import open_sessions
from hub.organisations.passwords import hash_password
from hub.organisations.people import create_user
from hub.organisations.rules import OrganisationKind
from hub.organisations.service import create_organisation, mark_verified
from hub.organisations.tables import Organisation
from hub.settings import read_settings

console = Console(stderr=True, highlight=False)
operators = typer.Typer(no_args_is_help=True)


@operators.callback()
def describe() -> None:
    """People of the operator's own organisation; two are needed, one checks and another approves."""


@operators.command("add")
def add_operator(
    email: Annotated[str, typer.Argument(help="address to sign in with")],
    name: Annotated[str, typer.Option(help="the person's name")],
    organisation: Annotated[str, typer.Option(help="the operator's organisation name")],
    uscc: Annotated[str, typer.Option(help="its 18-character unified social credit code")],
    slug: Annotated[str, typer.Option(help="its short name, which leads its models' names")] = "guanmo",
) -> None:
    """Add an operator, with the organisation on first use; prints a one-time password."""
    settings = read_settings(os.environ)
    password, now = entropy.token_urlsafe(12), read_clock()
    hashed = hash_password(password)
    sessions = open_sessions(settings.database_url)
    with sessions.write() as session:
        found = session.scalar(select(Organisation).where(Organisation.uscc == uscc))
        if found is None:
            found = create_organisation(
                session,
                name=organisation,
                uscc=uscc,
                kind=OrganisationKind.OPERATOR,
                slug=slug,
                now=now,
                production=settings.production,
            )
            mark_verified(session, found.id, by="system", now=now)
        create_user(
            session,
            organisation_id=found.id,
            email=email,
            name=name,
            password=hashed,
            role=Role.OPERATOR,
            now=now,
            one_time_password=True,
        )
    sessions.close()
    console.print(f"{email} may sign in; set an own password under Account first / 一次性密码: {password}")
