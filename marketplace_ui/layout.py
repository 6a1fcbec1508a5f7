"""What every page shares: both languages, who is signed in, the menu of that role, the built files.

Texts stand in pairs where they are used, `t("中文", "English")`, so that neither language can fall behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import request
from markupsafe import Markup

from hub.actor import READERS, Actor, Role
from hub.organisations.service import find_organisation, find_user
from hub.web import context, find_actor, request_language
from marketplace_ui.assets_manifest import read_manifest


@dataclass(frozen=True)
class Entry:
    """One line of the menu; `roles` empty: for everybody, signed in or not."""

    path: str
    zh: str
    en: str
    roles: tuple[Role, ...] = ()


BUYERS = (Role.FACTORY, Role.INTEGRATOR, Role.DEVELOPER)
MENU = (
    Entry("/models", "选模型", "Choose"),
    Entry("/runs", "改模型", "Adapt", BUYERS),
    Entry("/endpoints", "用模型", "Use", BUYERS),
    Entry("/datasets", "数据集", "Data sets", BUYERS),
    Entry("/offers", "算力", "Compute"),
    Entry("/vouchers", "模型券", "Vouchers", (*BUYERS, *READERS)),
    Entry("/statement", "账单", "Statement", tuple(Role)),
    Entry("/provider", "供应商", "Provider", (Role.PROVIDER,)),
    Entry("/earnings", "收入", "Earnings", (Role.PROVIDER, Role.INTEGRATOR)),
    Entry("/uploads", "我的上架", "My listings", (Role.INTEGRATOR,)),
    Entry("/filings", "备案", "Filings"),
    Entry("/operator", "运营", "Operations", READERS),
)


def translate(zh: str, en: str) -> str:
    """Return the text of the request's language."""
    return zh if request_language() == "zh" else en


def address_with(**changes: str | None) -> str:
    """Return this page's address with query values replaced; None takes a value away."""
    values = {name: value for name, value in (request.args.to_dict() | changes).items() if value}
    return f"{request.path}?{urlencode(values)}" if values else request.path


def read_notice(notices: Mapping[str, tuple[str, str]]) -> str:
    """Return what the step before the redirect did (`?done=code`), in the request's language; empty if none."""
    found = notices.get(request.args.get("done", ""))
    return translate(*found) if found else ""


def is_part() -> bool:
    """Tell whether htmx asks for a part of this page; a page from its history is asked for whole."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def list_menu(actor: Actor | None) -> list[Entry]:
    """Return the entries that this person may open."""
    return [entry for entry in MENU if not entry.roles or (actor is not None and actor.role in entry.roles)]


def local_address(text: str) -> str:
    """Return an address of this site as it is, `/` for anything that could lead elsewhere."""
    plain = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if plain else "/"


def show_account(actor: Actor) -> str:
    """Return whose account it is: person and organisation, with the mark of names that are not translated."""
    with context().sessions.read() as session:
        person = find_user(session, actor.user_id).name
        firm = find_organisation(session, actor.organisation_id).name
    return Markup('<span translate="no">{}<span class="top-firm"> · {}</span></span>').format(person, firm)


def describe_page() -> dict[str, Any]:
    """Return the values that every template may use."""
    actor = find_actor()
    return {
        "actor": actor,
        "language": request_language(),
        "menu": list_menu(actor),
        "path": request.path,
        "here": request.full_path.rstrip("?") if request.method == "GET" else request.path,
        "account_name": show_account,
        "notice": "",
        "assets": read_manifest().names,
        "settings": context().settings,
        "demonstration": not context().settings.production,
    }
