"""Tables of organisations: firms, people, sessions, sign-in failures, API keys, budgets.

It leaves what keys may spend to the ledger and orders; secrets are kept only as hashes.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from hub.actor import Role
from hub.append_only import protect_rows
from hub.columns import Choice, Document, Int64, Json, Key, Moment, Switch, When, Whole
from hub.database import Base
from hub.organisations.rules import OrganisationKind


class OrganisationState(StrEnum):
    """Pending may look around; verified may order; suspended may not sign in."""

    PENDING = "pending"
    VERIFIED = "verified"
    SUSPENDED = "suspended"


class UserState(StrEnum):
    """Removed people keep their row, because history names them."""

    ACTIVE = "active"
    REMOVED = "removed"


class Organisation(Base):
    """One legal body. `demo` marks the reserved code prefix."""

    __tablename__ = "organisations"
    __table_args__ = (
        CheckConstraint("length(uscc) = 18", name="uscc_length"),
        CheckConstraint("(state = 'pending') = (verified_at IS NULL) OR state = 'suspended'", name="verified"),
        Index("ix_organisations_state", "state"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    uscc: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[OrganisationKind] = mapped_column(Choice(OrganisationKind))
    state: Mapped[OrganisationState] = mapped_column(Choice(OrganisationState))
    demo: Mapped[Switch]
    verified_by: Mapped[str | None]
    verified_at: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[When]


class User(Base):
    """One person. `manages` may add and remove people of the own organisation.

    `added_by` is the person who made the account, null where they signed up, the installation made it, or somebody
    of another organisation entered the firm. A password that somebody else was shown is `one_time_password` until the
    person sets another.
    """

    __tablename__ = "users"
    __table_args__ = (Index("ix_users_organisation_id_state", "organisation_id", "state"), {"sqlite_strict": True})

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    password_hash: Mapped[str]
    one_time_password: Mapped[Switch]
    added_by: Mapped[str | None]
    role: Mapped[Role] = mapped_column(Choice(Role))
    manages: Mapped[Switch]
    language: Mapped[str]
    state: Mapped[UserState] = mapped_column(Choice(UserState))
    created_at: Mapped[When]


class OwnerKind(StrEnum):
    """Who stands behind a firm."""

    LEGAL_PERSON = "legal_person"
    HOLDER = "holder"


class Owner(Base):
    """A legal person or holder that a firm declares; an operator may confirm it. Ended rows stay.

    `code` tells namesakes apart: a firm's credit code, or the last six characters of a person's identity card.
    """

    __tablename__ = "owners"
    __table_args__ = (
        Index("ix_owners_organisation_id_ended_at", "organisation_id", "ended_at"),
        Index("ix_owners_name_code", "name", "code"),
        CheckConstraint("name <> ''", name="named"),
        CheckConstraint("length(code) IN (0, 6, 18)", name="code_length"),
        CheckConstraint("share_bp IS NULL OR share_bp BETWEEN 1 AND 10000", name="share"),
        CheckConstraint("(confirmed_at IS NULL) = (confirmed_by IS NULL)", name="confirmation"),
        CheckConstraint("(ended_at IS NULL) = (ended_by IS NULL)", name="end"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    kind: Mapped[OwnerKind] = mapped_column(Choice(OwnerKind))
    name: Mapped[str]
    code: Mapped[str]
    share_bp: Mapped[int | None] = mapped_column(Whole)
    declared_by: Mapped[str]
    created_at: Mapped[When]
    confirmed_by: Mapped[str | None]
    confirmed_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_by: Mapped[str | None]
    ended_at: Mapped[datetime | None] = mapped_column(Moment)


class SignInSession(Base):
    """One signed-in browser or program; only the token's sha256 is kept; ending it deletes the row."""

    __tablename__ = "sign_in_sessions"
    __table_args__ = (
        Index("ix_sign_in_sessions_organisation_id_user_id", "organisation_id", "user_id"),
        {"sqlite_strict": True},
    )

    token_hash: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[When]
    expires_at: Mapped[When]


class SignInFailures(Base):
    """Failures of one bucket (`email:<sha256>` or `ip:<address>`) since its window began."""

    __tablename__ = "sign_in_failures"
    __table_args__ = (CheckConstraint("failures > 0", name="positive"), {"sqlite_strict": True})

    bucket: Mapped[Key]
    failures: Mapped[Int64]
    window_from_at: Mapped[When]


class Budget(Base):
    """What one key (or several) may spend in a Shanghai month, in fen; enforced where allowances are granted."""

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("limit_fen > 0", name="positive"),
        Index("ix_budgets_organisation_id", "organisation_id"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str]
    limit_fen: Mapped[Int64]
    set_by: Mapped[str]
    created_at: Mapped[When]


class ApiKey(Base):
    """One API key of the gateway: the fields of `serving.contract.SnapshotKey`, a name and the last four characters.

    NULL in `models`, `ip_ranges`, `rpm`, `tpm`, `concurrency` is no limit.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("rpm > 0 AND tpm > 0 AND concurrency > 0", name="limits_positive"),
        Index("ix_api_keys_organisation_id_revoked_at", "organisation_id", "revoked_at"),
        {"sqlite_strict": True},
    )

    id: Mapped[Key]
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str]
    last4: Mapped[str]
    mac: Mapped[str] = mapped_column(unique=True)
    pepper_id: Mapped[str]
    cost_centre: Mapped[str | None]
    scopes: Mapped[Json]
    models: Mapped[Any | None] = mapped_column(Document)
    ip_ranges: Mapped[Any | None] = mapped_column(Document)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    rpm: Mapped[int | None] = mapped_column(Whole)
    tpm: Mapped[int | None] = mapped_column(Whole)
    concurrency: Mapped[int | None] = mapped_column(Whole)
    budget_id: Mapped[str | None] = mapped_column(ForeignKey("budgets.id"))
    created_by: Mapped[str] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[When]


protect_rows(Owner, mutable=("confirmed_by", "confirmed_at", "ended_by", "ended_at"))
