"""A demonstration marketplace in a temporary folder, with bases, an adapter on sale, vouchers, money and usage.

`tests.ui.serve` shows it in a browser.
"""

import json
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.registration import register_version
from hub.catalogue.rules import ModelTexts
from hub.catalogue.service import price_version, review_version, submit_version
from hub.catalogue.tables import ModelVersion, Task, VersionDecision
from hub.cli.market import seed_demonstration
from hub.compute.allocation import ensure_machine
from hub.compute.tables import Device
from hub.database import Sessions, open_sessions
from hub.deployments.aliases import move_alias
from hub.deployments.service import deploy
from hub.deployments.tables import Deployment, DeploymentState
from hub.filings.service import file_base
from hub.filings.tables import Ruling, Track
from hub.metering.tables import Usage
from hub.orders.cash import deposit
from hub.organisations.tables import User
from hub.secrets import make_secrets, read_secrets
from hub.settings import Settings
from hub.tables import import_tables, metadata
from hub.vouchers.service import apply_for_voucher, review_application
from hub.web import SESSION_COOKIE
from marketplace_ui.app import create_app
from registry.store import FolderStore
from serving.contract import EndReason, UsageStatus
from tests.app_copies import copy_app
from tests.registry.builders import base_tensors, write_base

PEOPLE = ("operator", "reviewer", "auditor", "provider", "factory", "integrator", "developer")
TUNED = {
    "base": {"exact_match": 0.085, "exact_match_low": 0.053, "exact_match_high": 0.132, "loss": 3.21},
    "adapter": {"exact_match": 0.925, "exact_match_low": 0.88, "exact_match_high": 0.954, "loss": 0.18},
    "n": 200,
    "interval": "wilson_95",
}
CARD = """## Use
Rewrites **work orders** into the plant's own words.

| input | output |
|---|---|
| spindle hot | spindle bearing overheats |

<script>alert(1)</script> ![pixel](https://tracker.example/p.png) [more](https://example.org)
"""


@dataclass
class World:
    """The marketplace and what was put into it."""

    home: Path
    app: Flask
    sessions: Sessions
    now: datetime
    actors: dict[str, Actor] = field(default_factory=dict)
    versions: dict[str, ModelVersion] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    @cached_property
    def credentials(self) -> dict[str, dict[str, str]]:
        """E-mail and password by person."""
        found: dict[str, dict[str, str]] = json.loads((self.home / "demo-credentials.json").read_text())
        return found

    def visit(self, who: str | None = None, language: str = "en", *, fresh: bool = False) -> FlaskClient:
        """Return a browser of a person (None: a stranger) in a language; `fresh` signs in once more."""
        client = self.app.test_client()
        client.set_cookie("guanmo_language", language)
        if who is not None and (fresh or who not in self.tokens):
            answer = client.post("/sign-in", data=self.credentials[who])
            assert answer.status_code == 302, answer.text
            cookie = client.get_cookie(SESSION_COOKIE)
            assert cookie is not None
            self.tokens[who] = cookie.value
        elif who is not None:
            client.set_cookie(SESSION_COOKIE, self.tokens[who])
        return client


def build_world(home: Path, **settings: Any) -> World:
    """Return a fresh marketplace below `home`; its clock stands still just after the seeding."""
    make_secrets(home)
    chosen = _settings(home)
    sessions = open_sessions(chosen.database_url)
    import_tables()
    with sessions.engine.begin() as connection:
        metadata.create_all(connection)
    sessions.close()
    seed_demonstration(chosen)
    world = _open(home, datetime.now(UTC), settings)
    with world.sessions.write() as session:
        for key in PEOPLE:
            email = world.credentials[key]["email"]
            user = session.scalars(select(User).where(User.email == email)).one()
            world.actors[key] = Actor(user.id, user.organisation_id, user.role)
    _add_models(world)
    with world.sessions.write() as session:
        ensure_machine(
            session, name="here", device=Device.CPU, devices=["cpu"], cpu_threads=2, memory_gib=12, now=world.now
        )
        _add_money(session, world)
        _add_usage(session, world)
    return world


def copy_world(world: World, home: Path, **settings: Any) -> World:
    """Return a marketplace like one that nobody changed, below another folder: much quicker than a fresh one."""
    shutil.copytree(world.home, home, dirs_exist_ok=True)
    copy = _open(home, world.now, settings)
    copy.actors, copy.versions, copy.tokens = world.actors, dict(world.versions), dict(world.tokens)
    return copy


def _settings(home: Path, **changes: Any) -> Settings:
    return Settings(home=home, database_url=f"sqlite:///{home / 'hub.sqlite3'}", **changes)


def _open(home: Path, now: datetime, settings: dict[str, Any]) -> World:
    chosen, made = _settings(home, **settings), list[World]()
    sessions = open_sessions(chosen.database_url)
    app = copy_app(create_app, chosen, secrets=read_secrets(home), sessions=sessions, clock=lambda: made[0].now)
    made.append(World(home=home, app=app, sessions=sessions, now=now))
    return made[0]


def mark_ready(world: World, name: str, who: str) -> None:
    """Deploy a version and say what the pool would say once it answers."""
    with world.sessions.write() as session:
        deploy(session, world.actors[who], world.versions[name].id, now=world.now)
        for row in session.scalars(select(Deployment)):
            row.state, row.ready_at = DeploymentState.READY, world.now
            move_alias(session, row, actor_id="system", now=world.now)


def _add_models(world: World) -> None:
    store = FolderStore(world.home / "artifacts")
    for serial, (name, zh, en) in enumerate(
        (("demo-zh", "演示制造基座", "Demo manufacturing base"), ("demo-trial", "演示试验基座", "Demo trial base"))
    ):
        folder = write_base(world.home / "folders" / name)
        if serial:
            _reseed(folder)
        prepared = prepare_base(store, folder)
        texts = ModelTexts(title_zh=zh, title_en=en, card_markdown=CARD, scenario="work-orders", licence="Apache-2.0")
        with world.sessions.write() as session:
            world.versions[name] = import_base(
                session, world.actors["operator"], name=name, prepared=prepared, texts=texts, now=world.now
            )
    with world.sessions.write() as session:
        _file(session, world, world.versions["demo-zh"])
        world.versions["orders"] = _sell_adapter(session, world)


def _file(session: Session, world: World, base: ModelVersion) -> None:
    file_base(
        session,
        world.actors["operator"],
        weights_digest=base.weights_digest,
        model_name="Demo manufacturing base",
        holder="Demo firm",
        number="DEMO-备案-0001",
        body="demonstration body",
        authority="demonstration",
        track=Track.FILING,
        scope="work orders",
        filed_at=world.now - timedelta(days=30),
        valid_until=world.now + timedelta(days=700),
        evidence_digest="e" * 64,
        evidence_name="evidence.pdf",
        now=world.now,
    )


def _sell_adapter(session: Session, world: World) -> ModelVersion:
    integrator, base = world.actors["integrator"], world.versions["demo-zh"]
    version = register_version(
        session,
        organisation_id=integrator.organisation_id,
        model_name="orders",
        base_version_id=base.id,
        artifact_digest="a" * 64,
        artifact_uri="file:///a",
        run_id=None,
        rank=8,
        metrics=TUNED,
        lineage={"data_digests": ["d" * 64], "code_digest": "c" * 64, "recipe_digest": "b" * 64},
        size_bytes=52_000,
        now=world.now,
        texts=ModelTexts(
            title_zh="工单规范化", title_en="Work-order rewriting", summary_zh="把口语化工单改写成规范用语",
            summary_en="Rewrites colloquial work orders", scenario="work-orders", task=Task.NORMALISATION,
        ),
        created_by=integrator.user_id,
    )  # fmt: skip
    submit_version(session, integrator, version.id, now=world.now)
    review_version(
        session,
        world.actors["operator"],
        version.id,
        decision=VersionDecision.APPROVE,
        reason="looks right",
        ruling=Ruling.NOT_APPLICABLE,
        now=world.now,
    )
    lines = {"prompt": (800, 1_000_000), "completion": (2000, 1_000_000)}
    parts: list[dict[str, Any]] = [
        {"party": "integrator", "organisation_id": integrator.organisation_id, "num": 70, "den": 100},
        {"party": "pool", "organisation_id": None, "num": 20, "den": 100},
    ]
    return price_version(session, integrator, version.id, lines=lines, parts=parts, now=world.now)


def _add_money(session: Session, world: World) -> None:
    factory, now = world.actors["factory"], world.now
    deposit(
        session, world.actors["operator"], factory.organisation_id, amount_fen=5_000_000, reference="bank-1", now=now
    )
    evidence = [{"kind": "contract", "name": "contract.pdf", "digest": "f" * 64}]
    for programme in ("model", "compute"):
        application = apply_for_voucher(
            session, factory, programme=programme, asked_fen=10_000_000, contract_no=f"C-{programme}",
            evidence=evidence, now=now,
        )  # fmt: skip
        session.flush()
        review_application(session, world.actors["operator"], application.id, decision="check", reason="ok", now=now)
        review_application(session, world.actors["reviewer"], application.id, decision="approve", reason="ok", now=now)


def _add_usage(session: Session, world: World) -> None:
    version = world.versions["orders"]
    for serial in range(3):
        ended = world.now - timedelta(hours=20 * serial, minutes=1)
        session.add(
            Usage(
                request_id=f"req_{serial}",
                attempt=1,
                allowance_id="alw_1",
                organisation_id=world.actors["factory"].organisation_id,
                key_id="key_gone",
                cost_centre=None,
                version_id=version.id,
                digest="a" * 64,
                price_version_id=version.price_version_id or "",
                replica_id="rep_1",
                replica_epoch=1,
                prompt_tokens=120,
                cached_tokens=20,
                completion_tokens=40,
                started_at=ended - timedelta(seconds=1),
                ended_at=ended,
                end_reason=EndReason.STOP,
                status=UsageStatus.COMPLETE,
                disputed=False,
                gateway_id="gw",
                gateway_epoch=1,
                seq=serial,
                received_at=ended,
            )
        )


def _reseed(folder: Path) -> None:
    from safetensors.numpy import save_file

    changed = {name: value * 2 for name, value in base_tensors().items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
