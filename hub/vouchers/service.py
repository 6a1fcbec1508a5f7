"""The room's face: programmes, applications and cover under one name, and grants with their balances.

It leaves the doing to `programmes`, `applications` and `cover` beside it.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import NotFoundError
from hub.ledger.tables import Account
from hub.vouchers.applications import apply_for_voucher, review_application
from hub.vouchers.cover import CoverAnswer, cover, find_cover, find_top_up
from hub.vouchers.lines import LineToCover, describe_line
from hub.vouchers.programmes import (
    approve_rule,
    draft_rule,
    find_programme,
    list_programmes,
    list_rules,
    list_tranches,
    release_due_tranches,
    rule_of_day,
    seed_programmes,
)
from hub.vouchers.rules import Cover, Refusal
from hub.vouchers.tables import Application, Grant, Programme, RuleVersion, VoucherReview

__all__ = [
    "Cover",
    "CoverAnswer",
    "GrantBalance",
    "LineToCover",
    "Refusal",
    "apply_for_voucher",
    "approve_rule",
    "cover",
    "describe_line",
    "draft_rule",
    "find_application",
    "find_cover",
    "find_programme",
    "find_top_up",
    "list_applications",
    "list_grants",
    "list_programmes",
    "list_reviews",
    "list_rules",
    "list_tranches",
    "release_due_tranches",
    "review_application",
    "rule_of_day",
    "seed_programmes",
]


@dataclass(frozen=True)
class GrantBalance:
    """A grant with its money in fen: awarded = held + settled + left."""

    grant: Grant
    programme: Programme
    rule_version: RuleVersion
    awarded_fen: int
    held_fen: int
    settled_fen: int
    left_fen: int


def list_grants(session: Session, organisation_id: str | None) -> list[GrantBalance]:
    """Return the grants of an organisation (None: of all) with balances, oldest first."""
    query = (
        select(Grant, Account, Programme, RuleVersion)
        .join(Account, Account.id == Grant.account_id)
        .join(Programme, Programme.id == Grant.programme_id)
        .join(RuleVersion, RuleVersion.id == Grant.rule_version_id)
    )
    if organisation_id is not None:
        query = query.where(Grant.organisation_id == organisation_id)
    return [
        GrantBalance(
            grant,
            programme,
            rule,
            awarded_fen=account.credits_posted,
            held_fen=account.debits_pending,
            settled_fen=account.debits_posted,
            left_fen=account.available_fen,
        )
        for grant, account, programme, rule in session.execute(query.order_by(Grant.created_at, Grant.id))
    ]


def list_applications(session: Session, actor: Actor) -> list[Application]:
    """Return applications, newest first: the own ones, all for operator and auditor."""
    query = select(Application)
    if actor.role not in (Role.OPERATOR, Role.AUDITOR):
        query = query.where(Application.organisation_id == actor.organisation_id)
    return list(session.scalars(query.order_by(Application.id.desc()).limit(500)))


def find_application(session: Session, actor: Actor, application_id: str) -> Application:
    """Return one application that the actor may see.

    Raises:
        NotFoundError: missing or another organisation's.
    """
    application = session.get(Application, application_id)
    foreign = application and application.organisation_id != actor.organisation_id
    if application is None or (foreign and actor.role not in (Role.OPERATOR, Role.AUDITOR)):
        raise NotFoundError.of("application", application_id)
    return application


def list_reviews(session: Session, application_id: str) -> list[VoucherReview]:
    """Return the decisions on an application in order."""
    query = select(VoucherReview).where(VoucherReview.application_id == application_id)
    return list(session.scalars(query.order_by(VoucherReview.created_at, VoucherReview.id)))
