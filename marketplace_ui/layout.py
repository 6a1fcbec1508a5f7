"""What every page shares: both languages, who is signed in, the menu of that role, the built files.

Texts stand in pairs where they are used, `t("中文", "English")`, so that neither language can fall behind.
"""

from dataclasses import dataclass
from typing import Any

from flask import request

from hub.actor import Actor, Role
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
    Entry(
        "/vouchers", "模型券", "Vouchers", (*BUYERS, Role.OPERATOR, Role.AUDITOR)
    ),
    Entry("/statement", "账单", "Statement", tuple(Role)),
    Entry("/uploads", "我的上架", "My listings", (Role.INTEGRATOR,)),
    Entry("/filings", "备案", "Filings"),
    Entry("/operator", "运营", "Operations", (Role.OPERATOR, Role.AUDITOR)),
)


def translate(zh: str, en: str) -> str:
    """Return the text of the request's language."""
    return zh if request_language() == "zh" else en


def list_menu(actor: Actor | None) -> list[Entry]:
    """Return the entries that this person may open."""
    return [entry for entry in MENU if not entry.roles or (actor is not None and actor.role in entry.roles)]


def describe_page() -> dict[str, Any]:
    """Return the values that every template may use."""
    actor = find_actor()
    return {
        "actor": actor,
        "language": request_language(),
        "menu": list_menu(actor),
        "path": request.path,
        "assets": read_manifest().names,
        "settings": context().settings,
        "demonstration": not context().settings.production,
    }
