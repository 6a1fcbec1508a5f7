"""The short-lived API keys with which signed-in people try models; their texts stay in this process's memory.

It leaves making and revoking keys to `hub.organisations`, which also shows them in the list of keys.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from hub.actor import Actor
from hub.database import Sessions
from hub.organisations.service import create_key, list_keys, revoke_key
from hub.secrets import Secrets

NAME = "try-it"
LIFETIME = timedelta(hours=1)
SPARE = timedelta(minutes=5)
"""A key about to expire is replaced this long before."""
FRESH_FOR = timedelta(seconds=20)
RPM = 30
CONCURRENCY = 4


@dataclass(frozen=True)
class TryoutKey:
    """A key's text with its times."""

    text: str
    made_at: datetime
    expires_at: datetime

    def is_fresh(self, now: datetime) -> bool:
        """Tell whether the gateway may not have heard of it yet."""
        return now < self.made_at + FRESH_FOR


class TryoutKeys:
    """Keys by person."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._keys: dict[str, TryoutKey] = {}

    def take(self, sessions: Sessions, secrets: Secrets, actor: Actor, now: datetime) -> TryoutKey:
        """Return the person's key, made if there is none that lasts. Raises: ForbiddenError: auditors have no keys."""
        with self._lock:
            found = self._keys.get(actor.user_id)
            if found is None or found.expires_at - SPARE <= now:
                found = self._keys[actor.user_id] = _make(sessions, secrets, actor, now)
            return found


def _make(sessions: Sessions, secrets: Secrets, actor: Actor, now: datetime) -> TryoutKey:
    with sessions.write() as session:
        # An expired key still counts towards the organisation's hundred until it is revoked.
        for row in list_keys(session, actor):
            ended = row.expires_at is not None and row.expires_at <= now
            if row.name == NAME and row.revoked_at is None and ended:
                revoke_key(session, actor, row.id, now=now)
        _, text = create_key(
            session,
            actor,
            name=NAME,
            expires_at=now + LIFETIME,
            rpm=RPM,
            concurrency=CONCURRENCY,
            pepper=secrets["pepper"].encode(),
            pepper_id=secrets.fingerprint("pepper"),
            now=now,
        )
    return TryoutKey(text, made_at=now, expires_at=now + LIFETIME)
