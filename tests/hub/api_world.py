"""The whole control-plane API on a fresh database with an operator and a factory; requests are left to the tests."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

from hub.actor import Role
from hub.app import create_api
from hub.database import Sessions
from hub.organisations import service as organisations
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from tests.hub.market.world import PASSWORD, hashed

PEOPLE = (("operator", OrganisationKind.OPERATOR, Role.OPERATOR), ("factory", OrganisationKind.FACTORY, Role.FACTORY))


@dataclass
class Api:
    """The API as a signed-in person calls it."""

    app: OpenAPI
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, who: str | None = "operator", **options: Any) -> TestResponse:
        """Call any path; `who` None is a stranger."""
        headers = {"Accept-Language": "en", **options.pop("headers", {})}
        if who:
            headers["Authorization"] = f"Bearer {self.tokens[who]}"
        return self.app.test_client().open(path, method=method, headers=headers, **options)


def open_api(sessions: Sessions, home: Path, now: datetime) -> Api:
    """Return the real application, every room in it, with an operator and a factory signed in."""
    app = create_api(
        Settings(home=home, database_url=""),
        secrets=Secrets({name: f"{name} of the tests" for name in NAMES}),
        sessions=sessions,
        clock=lambda: now,
    )
    api = Api(app)
    with sessions.write() as session:
        for serial, (key, kind, role) in enumerate(PEOPLE):
            organisation = organisations.create_organisation(
                session, name=f"Firm of the {key}", slug=f"{key}-co", uscc=make_demo_uscc(serial), kind=kind, now=now
            )
            organisations.mark_verified(session, organisation.id, by="system", now=now)
            email = f"{key}@demo.example"
            organisations.create_user(
                session,
                organisation_id=organisation.id,
                email=email,
                name=key,
                password=hashed(),
                role=role,
                now=now,
                language="en",
            )
            api.tokens[key] = organisations.sign_in(session, email=email, password=PASSWORD, now=now).token
    return api
