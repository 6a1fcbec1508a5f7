"""Fingerprints of the installation's secrets; never a secret."""

from sqlalchemy.orm import Mapped

from hub.append_only import protect_rows
from hub.columns import Key, When
from hub.database import Base


class SecretMark(Base):
    """The fingerprint a secret had when the database first met it.

    A secret that was changed in order gets another row (`pepper`, `pepper.2`, …); the last one counts.
    """

    __tablename__ = "secret_marks"
    __table_args__ = ({"sqlite_strict": True},)

    name: Mapped[Key]
    fingerprint: Mapped[str]
    created_at: Mapped[When]


protect_rows(SecretMark)
