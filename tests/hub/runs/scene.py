"""A market with a base, data, offers and money for the tests of runs, and a worker driven by hand.

It leaves what happens to the tests; everything is arranged through services and the real API.
"""

import io
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from flask_openapi3.openapi import OpenAPI
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from hub.actor import Actor, Role
from hub.app import create_api
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import ModelVersion
from hub.clock import read_clock
from hub.compute.allocation import ensure_machine
from hub.compute.service import ensure_provider
from hub.compute.tables import Device
from hub.database import Sessions
from hub.filings.service import file_base
from hub.filings.tables import Filing, Track
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.service import Claim
from hub.jobs.work import Handler, Outcome, Verdict, Work
from hub.orders.service import deposit
from hub.organisations.passwords import HashedPassword, hash_password
from hub.organisations.people import create_user
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.organisations.service import create_organisation, mark_verified, sign_in
from hub.prices.service import DEFAULT, publish_price
from hub.secrets import NAMES, Secrets
from hub.settings import Settings
from hub.tuning.gating import conclude_gate
from hub.tuning.kinds import GATE_KIND
from hub.tuning.offers import publish_offer
from hub.tuning.tables import Run
from hub.worker import list_kinds, list_lanes
from registry.store import FolderStore
from tests.app_copies import copy_app
from tests.hub.runs.twin_launch import TwinLaunch
from tests.registry.builders import write_base

ROOT = Path(__file__).parents[3]
PASSWORD = "open-sesame-42"
PEOPLE = (
    ("operator", OrganisationKind.OPERATOR, Role.OPERATOR),
    ("provider", OrganisationKind.PROVIDER, Role.PROVIDER),
    ("factory", OrganisationKind.FACTORY, Role.FACTORY),
    ("rival", OrganisationKind.FACTORY, Role.FACTORY),
    ("auditor", OrganisationKind.AUTHORITY, Role.AUDITOR),
)
PRICES: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "tuning": {"trained_tokens": (5, 100)},
    "base": {"prompt": (1, 1000), "completion": (2, 1000)},
    "adapter": {"prompt": (2, 1000), "completion": (4, 1000)},
}
HASHED: HashedPassword = hash_password(PASSWORD)
_SOON_S = 0.05


class Inline(Executor):
    """Runs slow calls at once: a test needs no threads."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Return a future that is done."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  a future carries any error
            done.set_exception(error)
        return done


@dataclass
class Scene:
    """Everybody by name, the API as an outside client sees it, and workers made on demand."""

    app: OpenAPI
    sessions: Sessions
    settings: Settings
    actors: dict[str, Actor] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    offers: dict[str, str] = field(default_factory=dict)
    base: str = "operator-co/base"
    base_version: str = ""

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def work(self) -> Work:
        """What handlers work with, with the twin as trainer."""
        return make_work(self.settings, self.sessions)

    def make_worker(self, name: str = "w1", **kinds: Kind) -> JobLoop:
        """Return one worker's loop; `kinds` replace handlers by kind with '.' written as '_'."""
        found = list_kinds(self.settings, secrets()) | {GATE_KIND: Kind(gate_by_trainer, "beside")}
        found |= {key.replace("_", ".", 1): kind for key, kind in kinds.items()}
        return JobLoop(self.work, name, hurry(found), list_lanes(2))

    def call(self, method: str, path: str, who: str | None = None, **options: Any) -> TestResponse:
        """Call a path as a person, or as a stranger."""
        headers = {"Accept-Language": "en"} | options.pop("headers", {})
        if who:
            headers["Authorization"] = f"Bearer {self.token_of(who)}"
        return self.app.test_client().open(path, method=method, headers=headers, **options)

    def internal(self, method: str, path: str, role: str, **options: Any) -> TestResponse:
        """Call an internal route with the role's token."""
        headers = {"Authorization": f"Bearer {secrets()[f'{role}.token']}"}
        return self.app.test_client().open(f"/internal/v1/{path}", method=method, headers=headers, **options)

    def token_of(self, who: str) -> str:
        """Return a session token; signs in when first needed."""
        if who not in self.tokens:
            with self.sessions.write() as session:
                opened = sign_in(session, email=f"{who}@demo.example", password=PASSWORD, now=read_clock())
            self.tokens[who] = opened.token
        return self.tokens[who]

    def upload(self, content: bytes, *, name: str = "rows.jsonl", who: str = "factory", **fields: str) -> TestResponse:
        """Upload a data set."""
        form = {"file": (io.BytesIO(content), name), **fields}
        return self.call("POST", "/api/v1/datasets", who, data=form, content_type="multipart/form-data")

    def add_dataset(self, who: str = "factory") -> str:
        """Upload sound rows, have them checked, acknowledge warnings; returns the data set's id."""
        dataset_id = str(self.upload(sound_rows(), who=who).json["id"])  # type: ignore[index]
        run_until(self.make_worker(), lambda: self.dataset_state(dataset_id, who) != "checking")
        if self.dataset_state(dataset_id, who) == "warned":
            assert self.call("POST", f"/api/v1/datasets/{dataset_id}/acknowledge", who).status_code == 200
        return dataset_id

    def dataset_state(self, dataset_id: str, who: str = "factory") -> str:
        """Return the state of a data set's newest version."""
        return str(self.call("GET", f"/api/v1/datasets/{dataset_id}", who).json["version"]["state"])  # type: ignore[index]

    def start_run(self, **recipe: float) -> dict[str, Any]:
        """Create a run and have it planned; returns it as the API shows it."""
        body = {"base": self.base, "dataset_id": self.add_dataset(), "model_name": "orders", "recipe": recipe}
        answer = self.call("POST", "/api/v1/runs", "factory", json=body)
        assert answer.status_code == 202, answer.json
        run_until(self.make_worker(), lambda: self.read_run(str(answer.json["id"]))["state"] != "validating")  # type: ignore[index]
        return self.read_run(str(answer.json["id"]))  # type: ignore[index]

    def order_run(self, **recipe: float) -> dict[str, Any]:
        """Create, plan, quote and accept a run."""
        run = self.start_run(**recipe)
        path = f"/api/v1/runs/{run['id']}"
        quote = self.call("POST", f"{path}/quote", "factory", json={"offer_id": self.offers["city"]}).json
        assert quote is not None
        headers = {"Idempotency-Key": "key-1"}
        accepted = self.call("POST", f"{path}/accept", "factory", json={"quote_id": quote["id"]}, headers=headers)
        assert accepted.status_code == 202, accepted.json
        return self.read_run(run["id"])

    def read_run(self, run_id: str, who: str = "factory") -> dict[str, Any]:
        """Return a run as the API shows it."""
        answer = self.call("GET", f"/api/v1/runs/{run_id}", who)
        assert answer.status_code == 200, answer.json
        found: dict[str, Any] = answer.json  # type: ignore[assignment]
        return found

    def add_filing(self) -> Filing:
        """File the base as a demonstration."""
        now = read_clock()
        with self.sessions.write() as session:
            version = session.get_one(ModelVersion, self.base_version)
            return file_base(
                session,
                self.actors["operator"],
                weights_digest=version.weights_digest,
                model_name="Demo base",
                holder="Demo firm",
                number="DEMO-备案-0001",
                body="demonstration body",
                authority="demonstration",
                track=Track.FILING,
                scope="work orders",
                filed_at=now.replace(year=now.year - 1),
                valid_until=None,
                evidence_digest="e" * 64,
                evidence_name="evidence.pdf",
                now=now,
            )


def hurry(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Let handlers look again soon: the twin is done in a fraction of the pauses that suit a real trainer."""
    return {name: Kind(partial(_look_soon, kind.handler), kind.lane) for name, kind in kinds.items()}


def _look_soon(handler: Handler, work: Work, claim: Claim) -> Verdict:
    verdict = handler(work, claim)
    waits = verdict.outcome in (Outcome.AGAIN, Outcome.LATER) and verdict.after_s is not None
    return replace(verdict, after_s=min(verdict.after_s or 0.0, _SOON_S)) if waits else verdict


def gate_by_trainer(work: Work, claim: Claim) -> Verdict:
    """Stands for the engine that is not there: decides at once, on the trainer's own held-out loss."""
    with work.sessions.read() as session:
        metrics = session.get_one(Run, claim.subject).metrics or {}
    gain = metrics["base"]["loss"] - metrics["adapter"]["loss"]
    rule = {"code": "loss_lower", "value": gain, "limit": 1e-6, "passed": gain > 0}
    code = "passed" if gain > 0 else "gate_regression"
    return conclude_gate(work, claim, {"passed": gain > 0, "code": code, "rules": [rule]})


def make_work(settings: Settings, sessions: Sessions) -> Work:
    """Return what handlers work with, with the twin as trainer."""
    return Work(
        settings=settings,
        sessions=sessions,
        store=FolderStore(settings.artifacts),
        launch=TwinLaunch(settings.home / "run" / "trainers"),
        clock=read_clock,
        environment=dict(os.environ),
        device="cpu",
        cpu_threads=1,
        slow=Inline(),
    )


def build_scene(sessions: Sessions, home: Path, *, base_folder: Path | None = None) -> Scene:
    """Return a market with a base, two offers and a factory with money."""
    settings = Settings(home=home, database_url="")
    app = copy_app(create_api, settings, secrets=secrets(), sessions=sessions, clock=read_clock)
    scene = Scene(app=app, sessions=sessions, settings=settings)
    now = read_clock()
    prepared = prepare_base(FolderStore(settings.artifacts), base_folder or write_base(home / "folders" / "base"))
    with sessions.write() as session:
        for serial, (key, kind, role) in enumerate(PEOPLE):
            scene.actors[key] = _add_person(session, key, kind, role, serial, now)
        _add_prices(session, scene, now)
        _add_offers(session, scene, now)
        operator = scene.actors["operator"]
        texts = ModelTexts(title_zh="基础模型", title_en="Base")
        version = import_base(session, operator, name="base", prepared=prepared, texts=texts, now=now)
        scene.base_version = version.id
        owner = scene.actors["factory"].organisation_id
        deposit(session, operator, owner, amount_fen=1_000_000, reference="bank-1", now=now)
        ensure_machine(session, name="here", device=Device.CPU, devices=["cpu:0"], cpu_threads=2, memory_gib=8, now=now)
    return scene


def secrets() -> Secrets:
    """The secrets of the tests."""
    return Secrets({name: f"{name} of the tests" for name in NAMES})


def run_until(loop: JobLoop, condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Let a worker work until something holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the worker did not get there"
        loop.tick()
        time.sleep(0.02)


def sound_rows(count: int = 60) -> bytes:
    """Return JSON lines of a small task with different answers."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Pump {number} leaks at seal {number % 7}"},
                {"role": "assistant", "content": f"Replace seal {number % 7} of pump {number}"},
            ]
        }
        for number in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _add_person(session: Session, key: str, kind: OrganisationKind, role: Role, serial: int, now: datetime) -> Actor:
    organisation = create_organisation(
        session, name=f"Firm of the {key}", slug=f"{key}-co", uscc=make_demo_uscc(serial), kind=kind, now=now
    )
    mark_verified(session, organisation.id, by="system", now=now)
    user = create_user(
        session,
        organisation_id=organisation.id,
        email=f"{key}@demo.example",
        name=key,
        password=HASHED,
        role=role,
        now=now,
        language="en",
    )
    return Actor(user.id, organisation.id, role, "en")


def _add_prices(session: Session, scene: Scene, now: datetime) -> None:
    operator = scene.actors["operator"]
    for kind, lines in PRICES.items():
        publish_price(
            session,
            operator,
            organisation_id=operator.organisation_id,
            subject_kind=kind,
            subject=DEFAULT,
            lines=lines,
            now=now,
        )


def _add_offers(session: Session, scene: Scene, now: datetime) -> None:
    actor = scene.actors["provider"]
    provider = ensure_provider(
        session, actor, organisation_id=actor.organisation_id, name_zh="算力商", name_en="Provider", now=now
    )
    for name, via_city, hour_fen in (("city", True, 3600), ("bay", False, 1800)):
        offer = publish_offer(
            session,
            actor,
            provider_id=provider.id,
            title_zh=name,
            title_en=name,
            accelerator="CPU 2 threads",
            region_zh="东莞",
            region_en="Dongguan" if via_city else "Shaoguan",
            via_city_platform=via_city,
            amount_fen=hour_fen,
            per_device_ms=3_600_000,
            tokens_per_s=1000,
            now=now,
        )
        scene.offers[name] = offer.id
