"""Notices a swapped secret before a server works with it. It leaves making and reading secrets to `hub.secrets`."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.installation.tables import SecretMark
from hub.secrets import Secrets, SecretsError

LASTING = ("pepper", "audit_key")
"""Secrets that what is stored depends on: keys are MACs under the pepper, the audit chain is signed."""


def check_secrets(session: Session, secrets: Secrets, now: datetime) -> None:
    """Remember the fingerprints on first use; later pass only if they are the same.

    Raises:
        SecretsError: names each secret that is not the one this database was made with.
    """
    known = {mark.name: mark.fingerprint for mark in session.scalars(select(SecretMark))}
    swapped = [name for name in LASTING if known.get(name, secrets.fingerprint(name)) != secrets.fingerprint(name)]
    if swapped:
        text = ", ".join(swapped)
        raise SecretsError(
            f"Secrets {text} are not those this database was made with. Put the old files back, "
            "or start with an empty database.",
            f"密钥 {text} 与数据库建立时不同。请恢复原密钥文件，或使用空数据库。",
        )
    for name in LASTING:
        if name not in known:
            session.add(SecretMark(name=name, fingerprint=secrets.fingerprint(name), created_at=now))
