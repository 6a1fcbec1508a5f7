"""How many engines a base may have and how long they stay idle: what the operator set, or the defaults.

It leaves starting and stopping them to the pool controller, which scales between the two numbers by queue wait.
"""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from hub.deployments.tables import ServingPolicy


@dataclass(frozen=True)
class Policy:
    """`min` 0 stops the last engine after `idle_s` without a call; the next call starts it again.

    `max_loras` is how many adapters one engine computes with at once.
    """

    min: int = 1
    max: int = 1
    idle_s: int = 600
    max_loras: int = 8


DEFAULT_POLICY = Policy()


def find_policy(session: Session, base_version_id: str) -> Policy:
    """Return what holds for a base."""
    row = session.get(ServingPolicy, base_version_id)
    return DEFAULT_POLICY if row is None else Policy(row.min, row.max, row.idle_s, row.max_loras)
