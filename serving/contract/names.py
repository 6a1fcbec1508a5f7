"""Names and message authentication codes that several processes must compute alike.

Storing keys and secrets is left to the hub.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property

from serving.contract.errors import ContractError

BASE_ENGINE_NAME = "base"
_DIGEST_CHARS = frozenset("0123456789abcdef")


def engine_name(digest: str) -> str:
    """Return the name under which engines know an adapter: `lora-` and the first 32 hex of its digest.

    Raises: ContractError when `digest` is not 64 lower-case hex characters.
    """
    if len(digest) != 64 or not _DIGEST_CHARS.issuperset(digest):
        raise ContractError("bad_digest", f"{digest!r:.80} is not a lower-case sha256 hex digest", field="digest")
    return f"lora-{digest[:32]}"


def key_mac(pepper: bytes, key: str) -> str:
    """Return HMAC-SHA256 of the full API key string as hex.

    `pepper` is the content of the pepper file without surrounding white space.
    """
    return hmac.digest(pepper, key.encode("utf-8"), "sha256").hex()


def pepper_id_of(pepper: bytes) -> str:
    """Return 16 hex of the pepper's sha256: enough to tell peppers apart, useless to guess one."""
    return hashlib.sha256(pepper).hexdigest()[:16]


@dataclass(frozen=True, repr=False)
class Peppers:
    """The pepper that keys are made under and the one before it, as long as keys made under that go on."""

    current: bytes
    previous: bytes | None = None

    def of(self, pepper_id: str) -> bytes:
        """Return the pepper to check a key with; the current one for an id that is not known."""
        if self.previous is not None and pepper_id == self._previous_id:
            return self.previous
        return self.current

    @cached_property
    def _previous_id(self) -> str:
        return pepper_id_of(self.previous or b"")
