"""The room's face: programmes, applications and cover under one name, and grants with their balances.

It leaves the doing to `programmes`, `applications`, `reviews`, `endings` and `cover` beside it.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import NotFoundError
from hub.ledger.tables import Account
from hub.vouchers.applications import (
    appeal_application,
    apply_for_voucher,
    resubmit_application,
    withdraw_application,
)
from hub.vouchers.cover import CoverAnswer, cover, find_cover, find_top_up, require_unrelated
from hub.vouchers.endings import claw_back, lapse_grants, list_claw_backs, revoke_grant
from hub.vouchers.lines import LineToCover, describe_line
from hub.vouchers.programmes import (
    approve_rule,
    draft_rule,
    find_programme,
    list_programmes,
    list_rules,
    list_tranches,
    refuse_rule,
    release_due_tranches,
    rule_of_day,
    seed_programmes,
)
from hub.vouchers.reviews import list_decisions, list_reviews, may_decide, review_application
from hub.vouchers.rules import Cover, Refusal
from hub.vouchers.tables import Application, ApplicationState, Grant, Programme, RuleVersion

__all__ = [
    "Cover",
    "CoverAnswer",
    "GrantBalance",
    "LineToCover",
    "Refusal",
    "appeal_application",
    "apply_for_voucher",
    "approve_rule",
    "claw_back",
    "cover",
    "describe_line",
    "draft_rule",
    "find_application",
    "find_cover",
    "find_programme",
    "find_top_up",
    "lapse_grants",
    "list_applications",
    "list_claw_backs",
    "list_decisions",
    "list_grants",
    "list_programmes",
    "list_reviews",
    "list_rules",
    "list_tranches",
    "may_decide",
    "refuse_rule",
    "release_due_tranches",
    "require_unrelated",
    "resubmit_application",
    "review_application",
    "revoke_grant",
    "rule_of_day",
    "seed_programmes",
    "withdraw_application",
]


@dataclass(frozen=True)
class GrantBalance:
    """A grant with its money in fen: awarded = held + settled + left + returned (to the fund, after it ended)."""

    grant: Grant
    programme: Programme
    rule_version: RuleVersion
    awarded_fen: int
    held_fen: int
    settled_fen: int
    left_fen: int
    returned_fen: int


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
            awarded_fen=grant.amount_fen,
            held_fen=account.debits_pending,
            # What corrections took back came in as credits, so the posted debits alone would count too much.
            settled_fen=grant.amount_fen - account.debits_pending - account.available_fen - grant.returned_fen,
            left_fen=account.available_fen,
            returned_fen=grant.returned_fen,
        )
        for grant, account, programme, rule in session.execute(query.order_by(Grant.created_at, Grant.id))
    ]


def list_applications(session: Session, actor: Actor, *, state: ApplicationState | None = None) -> list[Application]:
    """Return applications, newest first: the own ones, all for operator and auditor."""
    query = select(Application)
    if state is not None:
        query = query.where(Application.state == state)
    if not actor.reads_all:
        query = query.where(Application.organisation_id == actor.organisation_id)
    return list(session.scalars(query.order_by(Application.id.desc()).limit(500)))


def find_application(session: Session, actor: Actor, application_id: str) -> Application:
    """Return one application that the actor may see.

    Raises:
        NotFoundError: missing or another organisation's.
    """
    application = session.get(Application, application_id)
    if application is None or not actor.may_read(application.organisation_id):
        raise NotFoundError.of("application", application_id)
    return application
