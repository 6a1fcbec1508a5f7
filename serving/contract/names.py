"""Names and message authentication codes that several processes must compute alike.

Storing keys and secrets is left to the hub.
"""

from __future__ import annotations

import hmac

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
