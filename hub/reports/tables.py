"""Statements of closed months, kept as they were: later money appears in later months.

It leaves making them to `closing` and their shape to `stored`.
"""

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from hub.append_only import protect_rows
from hub.columns import Json, Key, When
from hub.database import Base


class ClosedStatement(Base):
    """The statement of one firm's closed month. `sha256` is that of `body` as canonical JSON."""

    __tablename__ = "closed_statements"
    __table_args__ = (CheckConstraint("length(sha256) = 64", name="sha256"), {"sqlite_strict": True})

    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), primary_key=True)
    month: Mapped[Key]
    body: Mapped[Json]
    sha256: Mapped[str]
    closed_by: Mapped[str]
    closed_at: Mapped[When]


protect_rows(ClosedStatement)
