"""Creating a run once: the same Idempotency-Key with the same request returns the run that it made.

It leaves what a run is to `hub.tuning.service`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hub.columns import write_json
from hub.errors import IdempotencyConflictError, InvalidValueError
from hub.tuning.tables import Run

MAX_KEY_CHARS = 200


def submit_once(
    session: Session, organisation_id: str, *, key: str | None, request: Mapping[str, Any], create: Callable[[], Run]
) -> Run:
    """Return the run of this key, made by `create` if it is new; without a key each call makes one.

    Raises:
        IdempotencyConflictError: the key came with another request before.
        InvalidValueError: the key is longer than 200 characters.
    """
    if not key:
        return create()
    if len(key) > MAX_KEY_CHARS:
        raise InvalidValueError(
            f"The Idempotency-Key has {len(key)} characters; the limit is {MAX_KEY_CHARS}. Send a shorter one.",
            f"Idempotency-Key 长度为 {len(key)}，上限 {MAX_KEY_CHARS}。",
            field="Idempotency-Key",
        )
    digest = hashlib.sha256(write_json(request).encode()).hexdigest()
    known = _find_known(session, organisation_id, key, digest)
    if known is not None:
        return known
    try:
        with session.begin_nested():
            run = create()
            run.request_key, run.request_digest = key, digest
            session.flush()
    except IntegrityError:
        # Another request with this key was committed in between (PostgreSQL only: SQLite writes one at a time).
        known = _find_known(session, organisation_id, key, digest)
        if known is None:
            raise
        return known
    return run


def _find_known(session: Session, organisation_id: str, key: str, digest: str) -> Run | None:
    known = session.scalar(select(Run).where(Run.organisation_id == organisation_id, Run.request_key == key))
    if known is not None and known.request_digest != digest:
        raise IdempotencyConflictError(
            f"Idempotency-Key '{key}' was used with a different request ({known.id}); send a new key.",
            f"Idempotency-Key“{key}”已用于另一请求（{known.id}），请更换。",
            field="Idempotency-Key",
        )
    return known
