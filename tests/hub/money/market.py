"""A small market for money tests: organisations, persons, programmes, prices, a provider's offers, two bases.

It leaves quoting and calling to the tests; everything here goes through the services.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import save_file
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.registration import register_version
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import ModelVersion
from hub.clock import to_us
from hub.database import Sessions, open_sessions
from hub.filings.service import file_base
from hub.filings.tables import Track
from hub.ids import new_id
from hub.metering.service import accept_usage
from hub.orders import service as orders
from hub.orders.tables import Quote
from hub.organisations.passwords import hash_password
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.organisations.service import create_organisation, create_user, mark_verified, sign_in
from hub.prices.service import DEFAULT, publish_price
from hub.vouchers import service as vouchers
from hub.vouchers.tables import Grant
from registry.store import FolderStore
from serving import contract
from tests.registry.builders import base_tensors, write_base

PEOPLE = (
    ("operator", OrganisationKind.OPERATOR, Role.OPERATOR),
    ("auditor", OrganisationKind.AUTHORITY, Role.AUDITOR),
    ("provider", OrganisationKind.PROVIDER, Role.PROVIDER),
    ("integrator", OrganisationKind.INTEGRATOR, Role.INTEGRATOR),
    ("factory", OrganisationKind.FACTORY, Role.FACTORY),
    ("rival", OrganisationKind.FACTORY, Role.FACTORY),
)
PASSWORD = "open-sesame-42"
PAPER = {"kind": "contract", "name": "contract.pdf", "digest": "c" * 64}


@dataclass(frozen=True)
class Offer:
    """What a quote needs of an offer."""

    id: str
    organisation_id: str
    price_version_id: str
    via_city_platform: bool
    title_zh: str = "单卡"
    title_en: str = "One card"


@dataclass
class Market:
    """Everybody by name, and the ids that tests need."""

    sessions: Sessions
    now: datetime
    actors: dict[str, Actor] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    filed_version: str = ""
    unfiled_version: str = ""
    filed_adapter: str = ""
    unfiled_adapter: str = ""
    call_price: str = ""

    def owner(self, who: str) -> str:
        """Return a person's organisation id."""
        return self.actors[who].organisation_id

    def fund(self, who: str, amount_fen: int, reference: str) -> None:
        """Book a deposit."""
        with self.sessions.write() as session:
            orders.deposit(
                session,
                self.actors["operator"],
                self.owner(who),
                amount_fen=amount_fen,
                reference=reference,
                now=self.now,
            )

    def award(self, programme: str, amount_fen: int, *, who: str = "factory", contract_no: str = "HT-1") -> Grant:
        """Apply, check and approve by three persons."""
        with self.sessions.write() as session:
            application = vouchers.apply_for_voucher(
                session,
                self.actors[who],
                programme=programme,
                asked_fen=amount_fen,
                contract_no=contract_no,
                evidence=[PAPER],
                now=self.now,
            )
            self.review(session, application.id, "checker", "check")
            grant = self.review(session, application.id, "approver", "approve")
        assert grant is not None
        return grant

    def review(self, session: Session, application_id: str, who: str, decision: str, reason: str = "") -> Grant | None:
        """Decide on an application."""
        return vouchers.review_application(
            session, self.actors[who], application_id, decision=decision, reason=reason, now=self.now
        )

    def quote(
        self, *, filed: bool = True, offer: str = "city", device_ms: int = 3_600_000, trained_tokens: int = 1_000_000
    ) -> Quote:
        """Quote a fine-tune for the factory."""
        with self.sessions.write() as session:
            return orders.quote_tuning(
                session,
                self.actors["factory"],
                base_version_id=self.filed_version if filed else self.unfiled_version,
                base_public_name="operator/base",
                filed=filed,
                offer=self.offers[offer],
                dataset_version_id="dsv_1",
                device_ms=device_ms,
                trained_tokens=trained_tokens,
                plan_digest="p" * 64,
                subject=new_id("run"),
                now=self.now,
            )

    def draw(
        self, key: str, *, who: str = "factory", want_ufen: int = 100_000_000, budget_id: str | None = None
    ) -> contract.AllowanceGrant | contract.AllowanceRefusal:
        """Ask for an allowance as the gateway would."""
        request = contract.AllowanceRequest("gw", 1, key, self.owner(who), budget_id, self.call_price, want_ufen)
        with self.sessions.write() as session:
            return orders.grant_allowance(session, request, self.now)

    def record(
        self,
        allowance_id: str,
        request_id: str,
        counts: tuple[int, int, int],
        *,
        who: str = "factory",
        filed: bool = True,
        version_id: str | None = None,
    ) -> contract.UsageRecord:
        """Return a usage record of one request to an adapter: (prompt, cached, completion) tokens."""
        at = to_us(self.now)
        return contract.UsageRecord(
            request_id=request_id,
            attempt=0,
            allowance_id=allowance_id,
            organisation_id=self.owner(who),
            key_id="key_1",
            cost_centre=None,
            version_id=version_id or (self.filed_adapter if filed else self.unfiled_adapter),
            digest="d" * 64,
            price_version_id=self.call_price,
            replica_id="rep_1",
            replica_epoch=1,
            prompt_tokens=counts[0],
            cached_tokens=counts[1],
            completion_tokens=counts[2],
            started_at=at,
            ended_at=at,
            end_reason=contract.EndReason.STOP,
            status=contract.UsageStatus.COMPLETE,
            disputed=False,
        )

    def send(self, *records: contract.UsageRecord, first_seq: int = 1) -> contract.UsageReply:
        """Send usage as the gateway would."""
        batch = contract.UsageBatch("gw", 1, first_seq, records)
        with self.sessions.write() as session:
            return accept_usage(session, batch, self.now, check=lambda fresh: orders.check_records(session, fresh))

    def close(self, allowance_id: str, *, spent_ufen: int = 0, through_seq: int = 0) -> None:
        """Give an allowance back."""
        with self.sessions.write() as session:
            orders.close_allowance(session, contract.AllowanceClose(allowance_id, spent_ufen, through_seq), self.now)

    def settle(self) -> int:
        """Run the worker's step once."""
        with self.sessions.write() as session:
            return orders.settle_tranches(session, self.now)


def build_market(sessions: Sessions, now: datetime, home: Path) -> Market:
    """Return a market with nobody's money in it yet."""
    market = Market(sessions, now)
    with sessions.write() as session:
        for serial, (who, kind, role) in enumerate(PEOPLE):
            organisation = create_organisation(
                session, name=who, uscc=make_demo_uscc(serial), kind=kind, now=now, slug=who
            )
            mark_verified(session, organisation.id, by="usr_root", now=now)
            _add_person(session, market, who, organisation.id, role)
        for extra in ("checker", "approver"):
            _add_person(session, market, extra, market.owner("operator"), Role.OPERATOR)
        vouchers.seed_programmes(session, "usr_drafter", "usr_approver", now)
        _publish_prices(session, market)
    _add_bases(market, home)
    return market


def add_adapter(market: Market, who: str, base_version_id: str, name: str) -> str:
    """Register an adapter as if a run had made it, and return its version id."""
    with market.sessions.write() as session:
        return register_version(
            session,
            organisation_id=market.owner(who),
            model_name=name,
            base_version_id=base_version_id,
            artifact_digest=hashlib.sha256(name.encode()).hexdigest(),
            artifact_uri=f"file:///{name}",
            run_id=None,
            rank=8,
            metrics={},
            lineage={},
            size_bytes=1,
            now=market.now,
        ).id


def _add_person(session: Session, market: Market, who: str, organisation_id: str, role: Role) -> None:
    user = create_user(
        session,
        organisation_id=organisation_id,
        email=f"{who}@demo.example",
        name=who,
        password=hash_password(PASSWORD),
        role=role,
        now=market.now,
    )
    market.actors[who] = Actor(user.id, organisation_id, role)
    market.tokens[who] = sign_in(session, email=user.email, password=PASSWORD, now=market.now).token


def _publish_prices(session: Session, market: Market) -> None:
    operator, now = market.owner("operator"), market.now
    publish_price(
        session,
        None,
        organisation_id=operator,
        subject_kind="tuning",
        subject=DEFAULT,
        lines={"trained_tokens": (3, 1000)},
        now=now,
    )
    calls = {"prompt": (200, 1_000_000), "cached": (50, 1_000_000), "completion": (800, 1_000_000)}
    market.call_price = publish_price(
        session, None, organisation_id=operator, subject_kind="adapter", subject=DEFAULT, lines=calls, now=now
    ).id
    for name, city in (("city", True), ("private", False)):
        price = publish_price(
            session,
            market.actors["provider"],
            organisation_id=market.owner("provider"),
            subject_kind="offer",
            subject=name,
            lines={"device_ms": (1201, 3_600_000)},
            now=now,
        )
        market.offers[name] = Offer(f"off_{name}", market.owner("provider"), price.id, city)


def _add_bases(market: Market, home: Path) -> None:
    tensors = base_tensors()
    other = {name: value + 1 for name, value in tensors.items()}
    market.filed_version = _import_base(market, home, "base", tensors)
    market.unfiled_version = _import_base(market, home, "unfiled", other)
    market.filed_adapter = add_adapter(market, "factory", market.filed_version, "coder")
    market.unfiled_adapter = add_adapter(market, "factory", market.unfiled_version, "plain-coder")
    with market.sessions.write() as session:
        file_base(
            session,
            market.actors["operator"],
            weights_digest=session.get_one(ModelVersion, market.filed_version).weights_digest,
            model_name="Demo base",
            holder="Demo firm",
            number="DEMO-备案-0001",
            body="demonstration body",
            authority="demonstration",
            track=Track.FILING,
            scope="work orders",
            filed_at=market.now - timedelta(days=1),
            valid_until=None,
            evidence_digest="e" * 64,
            evidence_name="evidence.pdf",
            now=market.now,
        )


def _import_base(market: Market, home: Path, name: str, tensors: dict[str, NDArray[Any]]) -> str:
    folder = write_base(home / "folders" / name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    prepared = prepare_base(FolderStore(home / "artifacts"), folder)
    texts = ModelTexts(title_zh="基座", title_en="Base", industry="chain-a1", licence="Apache-2.0")
    with market.sessions.write() as session:
        return import_base(
            session, market.actors["operator"], name=name, prepared=prepared, texts=texts, now=market.now
        ).id


@contextmanager
def copied(built: Market) -> Iterator[Market]:
    """Yield a market of its own on a copy of a built one's database file."""
    pattern = built.sessions.engine.url.database
    assert pattern is not None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "hub.sqlite3"
        shutil.copy(pattern, path)
        opened = open_sessions(f"sqlite:///{path}")
        try:
            yield replace(built, sessions=opened, actors=dict(built.actors))
        finally:
            opened.close()
