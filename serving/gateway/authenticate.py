"""From a bearer token and an address to the key record that is calling.

What the key may do with which model is left to `access`, how often to `limits`.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from functools import lru_cache

from serving.contract import SCOPE_INFERENCE, Peppers, SnapshotKey, key_mac
from serving.gateway.clock import Clock
from serving.gateway.errors import ErrorType, GatewayError
from serving.gateway.view import NEWS_WAIT_S, CurrentView, View

NEW_KEY_MS = 60_000
NEW_KEY_WAIT_S = 10.0
"""A key made within the last minute is waited for longer: on a busy machine the snapshot with it may take seconds."""
_SCHEME = "bearer "
_KEY_PARTS = 3
_NO_MAC = "0" * 64


def authorization_of(headers: Mapping[str, str]) -> str | None:
    """Return the `Authorization` header, or what stands for it where a client speaks as Anthropic's does."""
    if "authorization" in headers or "x-api-key" not in headers:
        return headers.get("authorization")
    return f"Bearer {headers['x-api-key']}"


async def view_knowing(current: CurrentView, authorization: str | None, clock: Clock) -> View:
    """Return the view to judge a header by; for a key unknown so far a newer one, if it comes soon enough.

    How long that is, the key says itself: its id begins with the time at which it was made.

    Raises: GatewayError 503.
    """
    view = current.fresh()
    parts = (authorization or "").strip().split("_", _KEY_PARTS - 1)
    if len(parts) != _KEY_PARTS or parts[1] in view.keys:
        return view
    within_s = NEW_KEY_WAIT_S if _is_new(parts[1], clock.now_us()) else NEWS_WAIT_S
    return await current.find(lambda found: parts[1] in found.keys, within_s)


def authenticate(
    view: View, authorization: str | None, *, peppers: Peppers, client_ip: str, now_us: int
) -> SnapshotKey:
    """Return the live key behind an `Authorization` header.

    Raises: GatewayError 401 for a missing, malformed, unknown, expired or revoked key, 403 for a foreign address or
    a missing scope.
    """
    token = _bearer(authorization)
    mark = view.mark(token)
    key = view.proven.get(mark)
    if key is None:
        key = view.proven[mark] = _prove(view, token, peppers)
    _check_alive(key, now_us)
    _check_address(key, client_ip)
    if SCOPE_INFERENCE not in key.scopes:
        message = f"key {key.key_id} has the scopes {', '.join(key.scopes) or 'none'}; calling needs {SCOPE_INFERENCE}"
        raise GatewayError(403, "scope_missing", message, kind=ErrorType.PERMISSION)
    return key


def find_end(view: View, key: SnapshotKey, now_us: int) -> GatewayError | None:
    """Return why a call admitted with `key` may not go on: the key was revoked or deleted meanwhile."""
    now = view.keys.get(key.key_id.removeprefix("key_"))
    if now is not None and (now.revoked_at is None or now.revoked_at > now_us):
        return None
    return _refused(
        f"the API key {key.key_id} was revoked while this call ran; use another key", code="api_key_revoked"
    )


def _prove(view: View, token: str, peppers: Peppers) -> SnapshotKey:
    """Return the key of which `token` is the secret. Raises: GatewayError 401."""
    parts = token.split("_", _KEY_PARTS - 1)
    if len(parts) != _KEY_PARTS or parts[0] != "gm":
        raise _refused("the API key is malformed; it looks like gm_<id>_<secret>")
    key = view.keys.get(parts[1])
    pepper = peppers.of(key.pepper_id if key else "")
    matches = hmac.compare_digest(key_mac(pepper, token), key.mac if key else _NO_MAC)
    if key is None or not matches:
        raise _refused(f"the API key gm_{parts[1][:32]}_… is not known; create one on the keys page")
    return key


def _is_new(key_hex: str, now_us: int) -> bool:
    """Say whether an id (`hub.ids.new_id`: 48 bits of ms UTC first) is of this minute, by clocks that may differ."""
    try:
        made_ms = int(key_hex[:12], 16)
    except ValueError:
        return False
    return abs(now_us // 1000 - made_ms) < NEW_KEY_MS


def _bearer(authorization: str | None) -> str:
    if not authorization or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise _refused("no API key; send the header 'Authorization: Bearer gm_…'")
    return authorization[len(_SCHEME) :].strip()


def _check_alive(key: SnapshotKey, now_us: int) -> None:
    if key.revoked_at is not None and key.revoked_at <= now_us:
        raise _refused(f"the API key {key.key_id} was revoked; use another key", code="api_key_revoked")
    if key.expires_at is not None and key.expires_at <= now_us:
        raise _refused(f"the API key {key.key_id} has expired; use another key", code="api_key_expired")


def _check_address(key: SnapshotKey, client_ip: str) -> None:
    if key.ip_ranges is None:
        return
    if _inside(client_ip, key.ip_ranges):
        return
    message = f"{client_ip} is outside the address ranges {', '.join(key.ip_ranges)} set on key {key.key_id}"
    raise GatewayError(403, "address_not_allowed", message, kind=ErrorType.PERMISSION)


@lru_cache(maxsize=65536)
def _inside(client_ip: str, ranges: tuple[str, ...]) -> bool:
    address = ipaddress.ip_address(client_ip)
    return any(address in ipaddress.ip_network(allowed, strict=False) for allowed in ranges)


def _refused(message: str, *, code: str = "invalid_api_key") -> GatewayError:
    return GatewayError(401, code, message)
