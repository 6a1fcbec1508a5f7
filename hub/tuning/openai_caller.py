"""Who calls the OpenAI surface: the maker of an API key, within what the key may do.

It leaves keys themselves to `hub.organisations`; a browser session is no key and opens nothing here.
"""

from flask import request
from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import ForbiddenError, GuanmoError
from hub.organisations.keys import find_actor_by_key, find_budget
from hub.organisations.tables import ApiKey
from hub.web import context

_ID_HEX = slice(3, 35)
"""Where a key `gm_<32 hex>_<secret>` carries the hex of its id."""


class InvalidKeyError(GuanmoError):
    """No API key, or one that is unknown, revoked or expired."""

    code = "invalid_api_key"
    status = 401


class Caller:
    """An actor with the key that it came by."""

    def __init__(self, actor: Actor, key: ApiKey) -> None:
        self.actor = actor
        self.key = key

    def check_model(self, name: str) -> None:
        """Pass if the key may use this model. Raises: ForbiddenError."""
        if self.key.models and name not in self.key.models and name.partition("@")[0] not in self.key.models:
            raise ForbiddenError(
                f"This API key may use {', '.join(self.key.models)}, not '{name}'. Use another key.",
                f"该密钥仅可使用 {', '.join(self.key.models)}，不含“{name}”。",
                field="model",
            )

    def limit_fen(self, session: Session, wanted_fen: int) -> int:
        """Return the most own money that a job may hold: never more than the key's budget, where it has one."""
        if self.key.budget_id is None:
            return wanted_fen
        return min(wanted_fen, find_budget(session, self.key.budget_id).limit_fen)


def find_caller(session: Session) -> Caller:
    """Return who calls by `Authorization: Bearer gm_…`.

    Raises:
        InvalidKeyError: no live key.
        ForbiddenError: the key is bound to address ranges, which only the gateway can see.
    """
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    token = text.strip() if scheme.lower() == "bearer" else ""
    actor = find_actor_by_key(session, token, context().secrets.peppers, context().clock())
    if actor is None:
        raise InvalidKeyError(
            "No valid API key was sent. Send 'Authorization: Bearer gm_…'; make a key on the console's API page.",
            "缺少有效的 API 密钥。请在控制台创建并以 Authorization: Bearer gm_… 发送。",
        )
    key = session.get_one(ApiKey, f"key_{token[_ID_HEX]}")
    if key.ip_ranges:
        raise ForbiddenError(
            "This API key is bound to address ranges and may only call models. Use a key without ranges here.",
            "该密钥限定了网段，仅可调用模型。请使用未限定网段的密钥。",
        )
    return Caller(actor, key)
