"""`guanmo programmes`: list and show the rules in force, draft a version from a file, approve one as a second person.

Runs on the machine of the installation, through the services; drafting and approving ask who you are, because the two
must be two persons. It leaves applications and claims to pages and HTTP.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hub.actor import Actor
from hub.clock import read_clock
from hub.database import Sessions, open_sessions
from hub.errors import InvalidValueError
from hub.organisations.service import sign_out
from hub.organisations.signin import sign_in_person
from hub.settings import read_settings
from hub.vouchers import service
from hub.vouchers.rule_changes import list_changes
from hub.vouchers.tables import RuleVersion

console = Console(highlight=False, soft_wrap=True)
programmes = typer.Typer(no_args_is_help=True)
Email = Annotated[str, typer.Option("--as", help="your address; the password is asked for")]


@programmes.callback()
def describe() -> None:
    """Voucher programmes and their rules."""


@programmes.command("list")
def list_all() -> None:
    """Print each programme with the rule in force, drafts waiting, and whether it takes applications."""
    now = read_clock()
    with _opened() as sessions, sessions.read() as session:
        for programme in service.list_programmes(session):
            rule = service.rule_of_day(session, programme.id, now)
            drafts = [row for row in service.list_rules(session, programme.id) if row.state == "draft"]
            console.print(
                f"{programme.code:16} {programme.title_zh} / {programme.title_en}"
                f"  v{rule.number if rule else '-'}"
                f"{'' if programme.objects_held else '  not open here / 暂不受理'}"
                f"{f'  {len(drafts)} draft(s) / 草案' if drafts else ''}"
            )


@programmes.command("show")
def show(
    code: Annotated[str, typer.Argument(help="programme, for example model")],
    number: Annotated[int | None, typer.Option(help="version; default: the one in force")] = None,
) -> None:
    """Print a rule version as JSON, in the form that `draft` reads."""
    with _opened() as sessions, sessions.read() as session:
        programme = service.find_programme(session, code)
        rules = {rule.number: rule for rule in service.list_rules(session, programme.id)}
        current = service.rule_of_day(session, programme.id, read_clock())
        rule = rules.get(number) if number is not None else current
        if rule is None:
            raise InvalidValueError(
                f"Programme '{code}' has no rule version {number or 'in force'}; there are {sorted(rules)}.",
                f"项目“{code}”没有规则版本 {number or '生效中'}，现有 {sorted(rules)}。",
            )
        print(json.dumps(_describe(rule), ensure_ascii=False, indent=1))


@programmes.command("draft")
def draft(
    code: Annotated[str, typer.Argument(help="programme, for example model")],
    file: Annotated[Path, typer.Argument(help="JSON with body, effective_from_at, source and so on (see `show`)")],
    email: Email,
) -> None:
    """Draft the next rule version from a file and print what it would change."""
    shape = _read_shape(file)
    with _opened() as sessions:
        actor = _sign_in(sessions, email)
        with sessions.write() as session:
            current = service.rule_of_day(session, service.find_programme(session, code).id, read_clock())
            rule = service.draft_rule(session, actor, programme=code, **shape, now=read_clock())
            changes = list_changes(current.body if current else None, rule.body)
    for change in changes:
        mark = "  (our default / 平台默认)" if change.our_default else ""
        console.print(f"  {change.field}: {change.before} -> {change.after}{mark}")
    console.print(f"Drafted {rule.id}, version {rule.number}; another person approves it / 已起草，须另一人批准")


@programmes.command("approve")
def approve(
    rule_version_id: Annotated[str, typer.Argument(help="id that `draft` printed")],
    email: Email,
) -> None:
    """Put a drafted rule version in force; whoever drafted it is refused."""
    with _opened() as sessions:
        actor = _sign_in(sessions, email)
        with sessions.write() as session:
            rule = service.approve_rule(session, actor, rule_version_id, now=read_clock())
            console.print(
                f"Version {rule.number} is in force from {rule.effective_from_at.isoformat()} / 已批准；"
                f"sha256 {rule.sha256}"
            )


@contextmanager
def _opened() -> Iterator[Sessions]:
    """Open the installation's database, and close it on a refusal too."""
    sessions = open_sessions(read_settings(os.environ).database_url)
    try:
        yield sessions
    finally:
        sessions.close()


def _sign_in(sessions: Sessions, email: str) -> Actor:
    password = typer.prompt("Password / 密码", hide_input=True, err=True)
    signed = sign_in_person(sessions, email=email, password=password, ip="local", now=read_clock())
    with sessions.write() as session:
        sign_out(session, signed.token)
    return Actor(signed.user.id, signed.organisation.id, signed.user.role, signed.user.language)


def _read_shape(file: Path) -> dict[str, Any]:
    """Return the arguments of `draft_rule` that a file gives.

    Raises:
        InvalidValueError: not JSON of the form that `show` prints; names the field.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        end = found.get("effective_to_at")
        return {
            "body": found["body"],
            "source": found["source"],
            "effective_from_at": datetime.fromisoformat(found["effective_from_at"]),
            "effective_to_at": datetime.fromisoformat(end) if end else None,
            "tz": found.get("tz", "Asia/Shanghai"),
            "basis_date": found.get("basis_date"),
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InvalidValueError(
            f"{file} is not a rule file ({error}); start from `guanmo programmes show CODE`.",
            f"{file} 不是规则文件（{error}），可先用 guanmo programmes show 导出再修改。",
        ) from error


def _describe(rule: RuleVersion) -> dict[str, Any]:
    return {
        "number": rule.number,
        "state": rule.state,
        "effective_from_at": rule.effective_from_at.isoformat(),
        "effective_to_at": rule.effective_to_at.isoformat() if rule.effective_to_at else None,
        "tz": rule.tz,
        "basis_date": rule.basis_date,
        "source": rule.source,
        "sha256": rule.sha256,
        "body": rule.body,
    }
