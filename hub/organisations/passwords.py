"""Hashes and checks passwords with argon2id. It leaves who signs in to `signin`.

Cost: 19 MiB, two passes, about 30 ms a hash here; at most two run at once, so that a burst of sign-ins cannot starve
the pages. Source: OWASP password storage cheat sheet.
"""

import threading
from dataclasses import dataclass
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from hub.organisations.rules import normalise_password


@dataclass(frozen=True)
class HashedPassword:
    """A password that was hashed already, told apart from a plain one by type."""

    text: str


_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_AT_ONCE = threading.BoundedSemaphore(2)


def hash_password(password: str) -> HashedPassword:
    """Return the argon2id hash. Do it before the transaction opens: it takes longer than a write may."""
    with _AT_ONCE:
        return HashedPassword(_HASHER.hash(normalise_password(password)))


def password_matches(stored: str | None, password: str) -> bool:
    """Tell whether the password is the stored one; `None` (unknown person) takes as long and is False."""
    with _AT_ONCE:
        try:
            matched = _HASHER.verify(stored or _dummy_hash(), password)
        except (VerifyMismatchError, InvalidHashError):
            return False
    return matched and stored is not None


@cache
def _dummy_hash() -> str:
    return _HASHER.hash("no one has this password")
