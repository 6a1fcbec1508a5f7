"""Who is asking: a person in an organisation with a role, as every service takes it.

It leaves finding the person (sessions, keys) to `hub.organisations`.
"""

from dataclasses import dataclass
from enum import StrEnum

from hub.errors import ForbiddenError


class Role(StrEnum):
    """What a person does here (POLICY.md, Who)."""

    FACTORY = "factory"
    INTEGRATOR = "integrator"
    DEVELOPER = "developer"
    PROVIDER = "provider"
    OPERATOR = "operator"
    AUDITOR = "auditor"


READERS = (Role.OPERATOR, Role.AUDITOR)
"""Who may read every organisation's records."""


@dataclass(frozen=True)
class Actor:
    """One signed-in person. Four eyes are told apart by `user_id`, never by organisation or role."""

    user_id: str
    organisation_id: str
    role: Role
    language: str = "zh"

    @property
    def reads_all(self) -> bool:
        """Whether the actor may read every organisation's records."""
        return self.role in READERS

    def may_read(self, organisation_id: str | None) -> bool:
        """Whether the actor may read records of this organisation."""
        return self.reads_all or organisation_id == self.organisation_id

    def require(self, *roles: Role) -> None:
        """Pass if the actor has one of the roles.

        Raises:
            ForbiddenError: names the role held and the roles needed.
        """
        if self.role not in roles:
            needed = ", ".join(roles)
            raise ForbiddenError(
                f"Role '{self.role}' may not do this; it needs {needed}. Ask your operator.",
                f"角色“{self.role}”无权操作，需要 {needed}。请联系运营方。",
                role=str(self.role),
                needs=needed,
            )
