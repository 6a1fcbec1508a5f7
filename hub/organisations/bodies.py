"""Request bodies and answers of the organisations API. It leaves rules of codes, names and roles to `rules`."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints

from hub.actor import Role
from hub.organisations.rules import MAX_PASSWORD_BYTES, OrganisationKind
from hub.organisations.tables import ApiKey, Organisation, OrganisationState, User
from hub.organisations.texts import Count, Line, Note, Word
from hub.web import Body, Query

Email = Annotated[str, StringConstraints(min_length=3, max_length=254)]
Password = Annotated[str, StringConstraints(max_length=MAX_PASSWORD_BYTES, strip_whitespace=False)]


class Person(Body):
    """Somebody who will sign in."""

    email: Email
    name: Line
    password: Password


class NewOrganisation(Body):
    """Sign-up of a firm with its first person, who then manages its people."""

    name: Line
    uscc: Annotated[str, StringConstraints(max_length=40)]
    kind: OrganisationKind = Field(strict=False)
    slug: Word | None = None
    user: Person


class NewUser(Person):
    """One more person of the own organisation; the password is good until they set their own."""

    role: Role = Field(strict=False)


class Suspension(Body):
    """Why an organisation is stopped."""

    reason: Note


class Credentials(Body):
    """What a person signs in with."""

    email: Annotated[str, StringConstraints(max_length=1_000)]
    password: Annotated[str, StringConstraints(max_length=1_000_000, strip_whitespace=False)]


class ChangedPassword(Body):
    """The present password, and the one to use from now on."""

    present_password: Annotated[str, StringConstraints(max_length=1_000_000, strip_whitespace=False)]
    new_password: Password


class Preferences(Body):
    """What a person may change about themselves."""

    language: Word


class NewKey(Body):
    """Limits of a new API key; a limit left out does not apply."""

    name: Line
    models: list[Word] | None = Field(default=None, max_length=100)
    expires_at: AwareDatetime | None = Field(default=None, strict=False)
    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None
    cost_centre: Word | None = None
    budget_fen: Annotated[int, Field(ge=1, le=10**15)] | None = None
    ip_ranges: list[Word] | None = Field(default=None, max_length=50)


class OrganisationPath(Query):
    """One organisation."""

    organisation_id: str


class UserPath(Query):
    """One person of an organisation."""

    organisation_id: str
    user_id: str


class KeyPath(Query):
    """One API key."""

    key_id: str


class OrganisationFilter(Query):
    """Which organisations the operator lists."""

    state: OrganisationState | None = None


def show_organisation(row: Organisation) -> dict[str, Any]:
    """Return what its own people and the operator may see."""
    return {
        "id": row.id,
        "slug": row.slug,
        "name": row.name,
        "uscc": row.uscc,
        "kind": row.kind,
        "state": row.state,
        "demo": row.demo,
        "verified_at": row.verified_at.isoformat() if row.verified_at else None,
        "created_at": row.created_at.isoformat(),
    }


def show_user(row: User) -> dict[str, Any]:
    """Return a person without anything secret."""
    return {
        "id": row.id,
        "organisation_id": row.organisation_id,
        "email": row.email,
        "name": row.name,
        "role": row.role,
        "manages": row.manages,
        "language": row.language,
        "one_time_password": row.one_time_password,
        "added_by": row.added_by,
    }


def show_key(row: ApiKey) -> dict[str, Any]:
    """Return a key's fields; its text cannot be shown again."""
    return {
        "id": row.id,
        "name": row.name,
        "last4": row.last4,
        "cost_centre": row.cost_centre,
        "scopes": row.scopes,
        "models": row.models,
        "ip_ranges": row.ip_ranges,
        "rpm": row.rpm,
        "tpm": row.tpm,
        "concurrency": row.concurrency,
        "budget_id": row.budget_id,
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
    }
