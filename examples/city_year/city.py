"""The city before the year begins: operator, officers, providers with offers, bases, firms, prices, programmes.

It leaves what they do to `trade`.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from examples.city_year.clockwork import Clockwork
from examples.city_year.models import write_base
from hub.actor import Actor, Role
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.registration import register_version
from hub.catalogue.rules import ModelTexts
from hub.catalogue.tables import ModelVersion
from hub.compute.metering import issue_meter_key
from hub.compute.service import ensure_provider
from hub.compute.tables import Device, Offer
from hub.filings.service import file_base
from hub.filings.tables import Track
from hub.organisations.passwords import HashedPassword, hash_password
from hub.organisations.rules import OrganisationKind, make_demo_uscc
from hub.organisations.service import create_organisation, create_user, mark_verified
from hub.prices.service import DEFAULT, publish_price, publish_split
from hub.tuning.offers import publish_offer
from hub.vouchers.service import seed_programmes
from registry.store import FolderStore

if TYPE_CHECKING:
    from random import Random

HOUR_MS = 3_600_000
SECRET = "pepper of the simulated city"  # noqa: S105  signs simulated meters only
CALLS = {"prompt": (200, 1_000_000), "cached": (50, 1_000_000), "completion": (800, 1_000_000)}
OFFERS = (("910B", 2_399, True), ("A800", 3_150, True), ("K100", 1_201, False))
BASES = ("chain-model", "mould-model", "old-model", "trial-model")
FILED = 3
"""The first three bases are filed; the third one's filing is withdrawn during the year, the fourth never had one."""


@dataclass
class Firm:
    """One firm of the city: who orders, what it may call and at which price."""

    actor: Actor
    serial: int
    adapters: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    """Calls that have been billed, by request id."""


@dataclass
class City:
    """Everybody and everything that trades."""

    clock: Clockwork
    home: Path
    operator: Actor
    checker: Actor
    approver: Actor
    providers: list[Actor] = field(default_factory=list)
    provider_keys: dict[str, str] = field(default_factory=dict)
    offers: list[Offer] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    filings: list[str] = field(default_factory=list)
    firms: list[Firm] = field(default_factory=list)
    call_price: str = ""
    listed: list[tuple[str, str]] = field(default_factory=list)
    """Adapters that integrators sell: version and its price with a split."""

    @property
    def rng(self) -> "Random":
        """The one source of chance."""
        return self.clock.rng


def build_city(clock: Clockwork, *, firms: int, home: Path) -> City:
    """Return a city whose firms have money and nothing else yet."""
    hashed = hash_password("nobody signs in here")
    with clock.sessions.write() as session:
        people = _add_operator(session, hashed, clock.now)
        city = City(clock, home, *people)
        seed_programmes(session, city.checker.user_id, city.approver.user_id, clock.now)
        _add_providers(session, city, hashed)
        city.call_price = _publish_prices(session, city)
    _add_bases(city, home)
    for serial in range(firms):
        with clock.sessions.write() as session:
            _add_firm(session, city, serial, hashed)
    return city


def add_adapter(session: Session, city: City, firm: Firm, base: str, name: str) -> str:
    """Register an adapter as if a run of the firm had made it, and return its version id."""
    digest = hashlib.sha256(f"{firm.serial}/{name}".encode()).hexdigest()
    version = register_version(
        session,
        organisation_id=firm.actor.organisation_id,
        model_name=name,
        base_version_id=base,
        artifact_digest=digest,
        artifact_uri=f"file:///city/{digest}",
        run_id=None,
        rank=8,
        metrics={},
        lineage={},
        size_bytes=1,
        now=city.clock.now,
    )
    firm.adapters.append(version.id)
    return version.id


def _add_operator(session: Session, hashed: HashedPassword, now: datetime) -> tuple[Actor, Actor, Actor]:
    organisation = create_organisation(
        session, name="运营方", uscc=make_demo_uscc(0), kind=OrganisationKind.OPERATOR, now=now, slug="operator"
    )
    mark_verified(session, organisation.id, by="system", now=now)
    first, second, third = (
        _add_person(session, organisation.id, name, Role.OPERATOR, hashed, now)
        for name in ("operator", "checker", "approver")
    )
    return first, second, third


def _add_person(
    session: Session, organisation_id: str, name: str, role: Role, hashed: HashedPassword, now: datetime
) -> Actor:
    user = create_user(
        session,
        organisation_id=organisation_id,
        email=f"{name}@city.example",
        name=name,
        password=hashed,
        role=role,
        now=now,
    )
    return Actor(user.id, organisation_id, role)


def _add_providers(session: Session, city: City, hashed: HashedPassword) -> None:
    now = city.clock.now
    for serial, (accelerator, amount_fen, via_city) in enumerate(OFFERS):
        organisation = create_organisation(
            session,
            name=f"算力商{serial}",
            uscc=make_demo_uscc(serial + 1),
            kind=OrganisationKind.PROVIDER,
            now=now,
            slug=f"provider-{serial}",
        )
        mark_verified(session, organisation.id, by=city.operator.user_id, now=now)
        actor = _add_person(session, organisation.id, f"provider{serial}", Role.PROVIDER, hashed, now)
        provider = ensure_provider(
            session, actor, organisation_id=organisation.id, name_zh=f"算力商{serial}", name_en=accelerator, now=now
        )
        _, city.provider_keys[organisation.id] = issue_meter_key(session, actor, provider.id, secret=SECRET, now=now)
        city.providers.append(actor)
        city.offers.append(
            publish_offer(
                session,
                actor,
                provider_id=provider.id,
                title_zh=f"{accelerator} 单卡",
                title_en=f"One {accelerator}",
                accelerator=accelerator,
                region_zh="东莞",
                region_en="Dongguan",
                via_city_platform=via_city,
                amount_fen=amount_fen,
                per_device_ms=HOUR_MS,
                tokens_per_s=1000,
                device=Device.CPU,
                available=100_000,
                now=now,
            )
        )


def _publish_prices(session: Session, city: City) -> str:
    operator, now = city.operator.organisation_id, city.clock.now
    publish_price(
        session,
        None,
        organisation_id=operator,
        subject_kind="tuning",
        subject=DEFAULT,
        lines={"trained_tokens": (3, 1000)},
        now=now,
    )
    return publish_price(
        session, None, organisation_id=operator, subject_kind="adapter", subject=DEFAULT, lines=CALLS, now=now
    ).id


def _add_bases(city: City, home: Path) -> None:
    now = city.clock.now
    for serial, name in enumerate(BASES):
        prepared = prepare_base(FolderStore(home / "artifacts"), write_base(home / "bases" / name, serial))
        texts = ModelTexts(title_zh="基座", title_en="Base", industry="chain-a1", licence="Apache-2.0")
        with city.clock.sessions.write() as session:
            version = import_base(session, city.operator, name=name, prepared=prepared, texts=texts, now=now)
            city.bases.append(version.id)
            if serial < FILED:
                city.filings.append(_file(session, city, version, serial))


def _file(session: Session, city: City, version: ModelVersion, serial: int) -> str:
    return file_base(
        session,
        city.operator,
        weights_digest=version.weights_digest,
        model_name=BASES[serial],
        holder="Demo firm",
        number=f"DEMO-备案-{serial:04d}",
        body="demonstration body",
        authority="demonstration",
        track=Track.FILING,
        scope="simulated",
        filed_at=city.clock.now - timedelta(days=1),
        valid_until=None,
        evidence_digest="e" * 64,
        evidence_name="evidence.pdf",
        now=city.clock.now,
    ).id


def _add_firm(session: Session, city: City, serial: int, hashed: HashedPassword) -> None:
    now, integrator = city.clock.now, serial % 10 == 0
    kind = OrganisationKind.INTEGRATOR if integrator else OrganisationKind.FACTORY
    organisation = create_organisation(
        session, name=f"企业{serial}", uscc=make_demo_uscc(100 + serial), kind=kind, now=now, slug=f"firm-{serial}"
    )
    mark_verified(session, organisation.id, by=city.operator.user_id, now=now)
    role = Role.INTEGRATOR if integrator else Role.FACTORY
    firm = Firm(_add_person(session, organisation.id, f"firm{serial}", role, hashed, now), serial)
    city.firms.append(firm)
    if integrator:
        version = add_adapter(session, city, firm, city.bases[serial // 10 % 2], "listed")
        city.listed.append((version, _price_listing(session, city, firm, version)))


def _price_listing(session: Session, city: City, firm: Firm, version: str) -> str:
    owner, seller = city.operator.organisation_id, firm.actor.organisation_id
    split = publish_split(
        session,
        firm.actor,
        organisation_id=seller,
        parts=[
            {"party": "integrator", "organisation_id": seller, "num": 7, "den": 10},
            {"party": "base_owner", "organisation_id": owner, "num": 1, "den": 10},
            {"party": "pool", "organisation_id": None, "num": 3, "den": 20},
        ],
        now=city.clock.now,
    )
    return publish_price(
        session,
        firm.actor,
        organisation_id=seller,
        subject_kind="version",
        subject=version,
        lines={"prompt": (333, 1_000_000), "completion": (1_111, 1_000_000)},
        now=city.clock.now,
        split_terms_id=split.id,
    ).id
