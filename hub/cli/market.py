"""`guanmo seed` and `guanmo models import`: fills a demonstration market and brings bases into the catalogue.

Runs on the machine of the installation, through the services; what people do later goes through HTTP.
"""

import json
import os
import secrets as entropy
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.catalogue.bases import import_base, prepare_base
from hub.catalogue.rules import ModelTexts
from hub.cli.demonstration import BASE_TEXTS, OFFERS, ORGANISATIONS, PRICES, DemoOffer, DemoOrganisation
from hub.clock import read_clock
from hub.compute.rules import OfferPrice
from hub.compute.service import create_offer, ensure_provider
from hub.database import Sessions, open_sessions
from hub.deployments.policies import DEFAULT_POLICY, Policy, set_policy
from hub.errors import ConflictError, NotFoundError
from hub.organisations.people import create_user
from hub.organisations.rules import make_demo_uscc
from hub.organisations.service import create_organisation, mark_verified
from hub.organisations.tables import Organisation, User
from hub.prices.service import DEFAULT, publish_price
from hub.settings import Settings, read_settings
from hub.vouchers.programmes import seed_programmes
from registry.store import FolderStore

CREDENTIALS = "demo-credentials.json"
MS_PER_HOUR = 3_600_000
FIRST_SERIAL = 1
console = Console(stderr=True, highlight=False)
models = typer.Typer(no_args_is_help=True)


def seed() -> None:
    """Fill the market with demonstration organisations, offers, prices and the voucher programmes."""
    seed_demonstration(read_settings(os.environ))


@models.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(help="folder in Hugging Face format: config, safetensors, tokenizer")],
    name: Annotated[str, typer.Option(help="public name owner/model; default: the operator's and the folder's")] = "",
) -> None:
    """Check a local model folder and add it to the catalogue as a base model."""
    settings = read_settings(os.environ)
    sessions = open_sessions(settings.database_url)
    public_name = _import_one(settings, sessions, path, name)
    sessions.close()
    console.print(f"Imported {public_name}; file it (备案) before vouchers can pay for it / 已导入")


@models.command("serving")
def set_serving(
    base: Annotated[str, typer.Argument(help="base model, as owner/model or by version id")],
    least: Annotated[int, typer.Option("--min", help="engines that always run")] = DEFAULT_POLICY.min,
    most: Annotated[int, typer.Option("--max", help="engines at most")] = DEFAULT_POLICY.max,
    idle_s: Annotated[int, typer.Option(help="seconds without a call until an engine stops")] = DEFAULT_POLICY.idle_s,
    max_loras: Annotated[int, typer.Option(help="adapters that one engine runs at once")] = DEFAULT_POLICY.max_loras,
) -> None:
    """Set how the engines of a base scale; running ones follow at once."""
    settings = read_settings(os.environ)
    sessions = open_sessions(settings.database_url)
    with sessions.write() as session:
        policy = Policy(least, most, idle_s, max_loras)
        version = set_policy(session, _find_operator(session), base, policy, now=read_clock())
        version_id = version.id
    sessions.close()
    console.print(f"{version_id}: {least}-{most} engines, idle after {idle_s} s, {max_loras} adapters each / 已设置")


def seed_demonstration(settings: Settings) -> None:
    """Bring in the demonstration once; credentials go to a 0600 file. A second call changes nothing."""
    if settings.production:
        raise ConflictError(
            "Production mode refuses demonstration records; unset GUANMO_PRODUCTION.", "正式环境不允许演示数据。"
        )
    path, partial = settings.home / CREDENTIALS, settings.home / f"{CREDENTIALS}.partial"
    sessions, now = open_sessions(settings.database_url), read_clock()
    passwords = {key: entropy.token_urlsafe(12) for item in ORGANISATIONS for key, _, _ in item.people}
    with sessions.write() as session:
        if session.scalar(select(User.id).limit(1)) is None:
            # Written before the commit and renamed after it: accounts never exist without their passwords.
            _write_private(partial, _describe_credentials(passwords))
            _fill_market(session, passwords, now)
    sessions.close()
    if partial.is_file():
        partial.rename(path)
        console.print(f"Demonstration accounts, one-time credentials in {path} (0600) / 演示账户与一次性密码")


def _fill_market(session: Session, passwords: dict[str, str], now: datetime) -> None:
    people: dict[str, Actor] = {}
    for serial, item in enumerate(ORGANISATIONS, FIRST_SERIAL):
        people.update(_add_organisation(session, item, serial, passwords, now))
    operator, reviewer = people["operator"], people["reviewer"]
    seed_programmes(session, operator.user_id, reviewer.user_id, now)
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
    for offer in OFFERS:
        _add_offer(session, operator, offer, now)


def import_bases(settings: Settings, folders: list[Path]) -> list[str]:
    """Import several base folders and return their public names; present ones stay."""
    sessions = open_sessions(settings.database_url)
    names = [_import_one(settings, sessions, folder, "") for folder in folders]
    sessions.close()
    return names


def _import_one(settings: Settings, sessions: Sessions, folder: Path, name: str) -> str:
    prepared = prepare_base(FolderStore(settings.artifacts), folder.absolute())
    with sessions.write() as session:
        operator = _find_operator(session)
        slug = session.get_one(Organisation, operator.organisation_id).slug
        public_name = name or f"{slug}/{folder.name}"
        texts = BASE_TEXTS.get(folder.name, ModelTexts(title_zh=folder.name, title_en=folder.name))
        import_base(session, operator, name=public_name, prepared=prepared, texts=texts, now=read_clock())
    return public_name


def _find_operator(session: Session) -> Actor:
    user = session.scalar(select(User).where(User.role == Role.OPERATOR).order_by(User.id).limit(1))
    if user is None:
        raise NotFoundError.of("operator", "any (run 'guanmo seed' first)")
    return Actor(user.id, user.organisation_id, Role.OPERATOR)


def _add_organisation(
    session: Session, item: DemoOrganisation, serial: int, passwords: dict[str, str], now: datetime
) -> dict[str, Actor]:
    organisation = create_organisation(
        session, name=item.name, uscc=make_demo_uscc(serial), kind=item.kind, slug=item.slug, now=now
    )
    people = {}
    for key, name, role in item.people:
        user = create_user(
            session,
            organisation_id=organisation.id,
            email=_email_of(key),
            name=name,
            password=passwords[key],
            role=role,
            now=now,
        )
        people[key] = Actor(user.id, organisation.id, role)
    mark_verified(session, organisation.id, by="system", now=now)
    return people


def _add_offer(session: Session, operator: Actor, offer: DemoOffer, now: datetime) -> None:
    organisation = session.scalars(select(Organisation).where(Organisation.slug == offer.provider)).one()
    provider = ensure_provider(
        session,
        operator,
        organisation_id=organisation.id,
        name_zh=organisation.name,
        name_en=organisation.slug,
        now=now,
    )
    price = publish_price(
        session,
        operator,
        organisation_id=organisation.id,
        subject_kind="offer",
        subject=f"{organisation.slug}/{offer.title_en}",
        lines={"device_ms": (offer.hour_fen, MS_PER_HOUR)},
        now=now,
    )
    create_offer(
        session,
        operator,
        provider_id=provider.id,
        title_zh=offer.title_zh,
        title_en=offer.title_en,
        accelerator="CPU x86-64",
        region_zh=offer.region_zh,
        region_en=offer.region_en,
        via_city_platform=offer.via_city_platform,
        price=OfferPrice(price_version_id=price.id, amount_fen=offer.hour_fen, per_units=MS_PER_HOUR),
        tokens_per_s=1500 * offer.cpu_threads,
        cpu_threads=offer.cpu_threads,
        now=now,
    )


def _email_of(key: str) -> str:
    return f"{key}@demo.guanmo.example"


def _describe_credentials(passwords: dict[str, str]) -> str:
    accounts = {key: {"email": _email_of(key), "password": password} for key, password in passwords.items()}
    return json.dumps(accounts, indent=1, ensure_ascii=False)


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
