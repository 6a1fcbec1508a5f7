"""Notices a swapped secret before a server works with it. It leaves making and reading secrets to `hub.secrets`."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.installation.tables import SecretMark
from hub.secrets import PREVIOUS_PEPPER, Secrets, SecretsError

LASTING = ("pepper", "audit_key")
"""Secrets that what is stored depends on: keys are MACs under the pepper, the audit chain is signed."""


def check_secrets(session: Session, secrets: Secrets, now: datetime) -> None:
    """Remember the fingerprints on first use; later pass only if they are the same, or the pepper that was is kept.

    Raises:
        SecretsError: names each secret that is not the one this database was made with.
    """
    marks, swapped = list(session.scalars(select(SecretMark))), []
    for name in LASTING:
        known = sorted((mark for mark in marks if mark.name.partition(".")[0] == name), key=_number_of)
        if known and known[-1].fingerprint == secrets.fingerprint(name):
            continue
        if known and not (name == "pepper" and _is_kept(known[-1], secrets)):
            swapped.append(name)
        else:
            row = f"{name}.{len(known) + 1}" if known else name
            session.add(SecretMark(name=row, fingerprint=secrets.fingerprint(name), created_at=now))
    if swapped:
        text = ", ".join(swapped)
        raise SecretsError(
            f"Secrets {text} are not those this database was made with. Put the old files back, "
            "or start with an empty database.",
            f"密钥 {text} 与数据库建立时不同。请恢复原密钥文件，或使用空数据库。",
        )


def _number_of(mark: SecretMark) -> int:
    return int(mark.name.partition(".")[2] or 1)


def _is_kept(mark: SecretMark, secrets: Secrets) -> bool:
    """Return whether the pepper known so far lies beside the new one, so that no key ends."""
    return PREVIOUS_PEPPER in secrets.values and mark.fingerprint == secrets.fingerprint(PREVIOUS_PEPPER)
