"""A small market for tests: the real API on a fresh database, an operator, two integrators, a factory, a developer."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flask_openapi3.openapi import OpenAPI
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.test import TestResponse, stream_encode_multipart

from hub.actor import Actor, Role
from hub.app import create_api
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.registration import register_version
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import ModelVersion
from hub.database import Sessions
from hub.filings.service import file_base
from hub.filings.tables import Filing, Track
from hub.organisations import service as organisations
from hub.organisations.passwords import HashedPassword, hash_password
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from registry.store import FolderStore
from tests.registry.builders import write_base

PASSWORD = "open-sesame-42"
PEOPLE = (
    ("operator", OrganisationKind.OPERATOR, Role.OPERATOR),
    ("auditor", OrganisationKind.AUTHORITY, Role.AUDITOR),
    ("integrator", OrganisationKind.INTEGRATOR, Role.INTEGRATOR),
    ("rival", OrganisationKind.INTEGRATOR, Role.INTEGRATOR),
    ("factory", OrganisationKind.FACTORY, Role.FACTORY),
    ("developer", OrganisationKind.DEVELOPER, Role.DEVELOPER),
)
ROOMS = ("organisations", "filings", "prices", "catalogue")


@cache
def hashed() -> HashedPassword:
    """The hash of PASSWORD, computed once: argon2 is slow on purpose."""
    return hash_password(PASSWORD)


@dataclass
class World:
    """The API as an outside client sees it, and the services for arranging a test."""

    app: OpenAPI
    sessions: Sessions
    home: Path
    now: datetime
    actors: dict[str, Actor] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> FolderStore:
        return FolderStore(self.home / "artifacts")

    def token_of(self, who: str) -> str:
        """Return a person's session token; the people of PEOPLE sign in when first needed."""
        if who not in self.tokens:
            with self.sessions.write() as session:
                opened = organisations.sign_in(session, email=f"{who}@demo.example", password=PASSWORD, now=self.now)
            self.tokens[who] = opened.token
        return self.tokens[who]

    def call(self, method: str, path: str, who: str | None = None, **options: Any) -> TestResponse:
        """Call `/api/v1{path}` as a person, or as a stranger."""
        headers = {"Accept-Language": "en"} | ({"Authorization": f"Bearer {self.token_of(who)}"} if who else {})
        # A client of its own each time: no cookie carries over.
        return self.app.test_client().open(f"/api/v1{path}", method=method, headers=headers, **options)

    def pass_time(self, length: timedelta) -> None:
        """Move the clock that the API reads."""
        self.now += length

    def add_base(self, name: str = "base", seed: int = 7) -> ModelVersion:
        """Import a tiny base as the operator."""
        folder = self.home / "folders" / name
        write_base(folder)
        if seed != 7:
            _reseed(folder, seed)
        prepared = prepare_base(self.store, folder)
        with self.sessions.write() as session:
            return import_base(
                session,
                self.actors["operator"],
                name=name,
                prepared=prepared,
                texts=ModelTexts(title_zh="基础模型", title_en="Base model", industry="chain-a1", licence="Apache-2.0"),
                now=self.now,
            )

    def add_filing(self, version: ModelVersion, **changes: Any) -> Filing:
        """File a base as a demonstration, valid from yesterday."""
        fields: dict[str, Any] = {
            "weights_digest": version.weights_digest,
            "model_name": "Demo base",
            "holder": "Demo firm",
            "number": "DEMO-备案-0001",
            "body": "demonstration body",
            "authority": "demonstration",
            "track": Track.FILING,
            "scope": "work orders",
            "filed_at": self.now - timedelta(days=1),
            "valid_until": None,
            "evidence_digest": "e" * 64,
            "evidence_name": "evidence.pdf",
        }
        with self.sessions.write() as session:
            return file_base(session, self.actors["operator"], **(fields | changes), now=self.now)

    def add_adapter(self, base: ModelVersion, who: str = "integrator", name: str = "orders") -> ModelVersion:
        """Register a private adapter as a fine-tune would; its bytes are not looked at."""
        digest = f"{abs(hash((who, name))):064x}"[-64:]
        with self.sessions.write() as session:
            return register_version(
                session,
                organisation_id=self.actors[who].organisation_id,
                model_name=name,
                base_version_id=base.id,
                artifact_digest=digest,
                artifact_uri=f"file:///{digest}",
                run_id=None,
                rank=8,
                metrics={},
                lineage={},
                size_bytes=1,
                now=self.now,
                created_by=self.actors[who].user_id,
            )

    def list_adapter(self, version: ModelVersion, who: str = "integrator") -> None:
        """Submit and approve a private version through the API."""
        assert self.call("POST", f"/versions/{version.id}/submit", who).status_code == 200
        body = {"decision": "approve", "reason": "looks right", "ruling": "not_applicable"}
        assert self.call("POST", f"/versions/{version.id}/reviews", "operator", json=body).status_code == 201

    def upload(self, who: str, fields: dict[str, str], files: Iterable[tuple[str, bytes]]) -> TestResponse:
        """Post an adapter as a multipart form."""
        parts = list(fields.items())
        streams = [("files", FileStorage(io.BytesIO(content), filename=name)) for name, content in files]
        # Encoded in memory: the test client would leave a temporary file open.
        body, _, boundary = stream_encode_multipart(MultiDict([*parts, *streams]), use_tempfile=False)
        content_type = f'multipart/form-data; boundary="{boundary}"'
        return self.call("POST", "/adapters", who, data=body.read(), content_type=content_type)


def build_world(sessions: Sessions, home: Path, now: datetime, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a market whose people are verified; they sign in when first needed."""
    monkeypatch.setattr("hub.app.ROOMS", ROOMS)
    clock: list[World] = []
    app = create_api(
        Settings(home=home, database_url=""),
        secrets=Secrets({name: f"{name} of the tests" for name in NAMES}),
        sessions=sessions,
        clock=lambda: clock[0].now,
    )
    world = World(app=app, sessions=sessions, home=home, now=now)
    clock.append(world)
    with sessions.write() as session:
        for serial, (key, kind, role) in enumerate(PEOPLE):
            world.actors[key] = _add_person(session, key, kind, role, serial, now)
    return world


def count(world: World, table: type[Any]) -> int:
    """Return the number of rows of a table."""
    with world.sessions.read() as session:
        return len(session.scalars(select(table)).all())


def _add_person(session: Session, key: str, kind: OrganisationKind, role: Role, serial: int, now: datetime) -> Actor:
    organisation = organisations.create_organisation(
        session, name=f"Firm of the {key}", slug=f"{key}-co", uscc=make_demo_uscc(serial), kind=kind, now=now
    )
    organisations.mark_verified(session, organisation.id, by="system", now=now)
    user = organisations.create_user(
        session,
        organisation_id=organisation.id,
        email=f"{key}@demo.example",
        name=key,
        password=hashed(),
        role=role,
        now=now,
        language="en",
    )
    return Actor(user.id, organisation.id, role, "en")


def _reseed(folder: Path, seed: int) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(seed)
    changed = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in tensors.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
