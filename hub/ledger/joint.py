"""A posting as work for `Sessions.combine`: those that wait in one line are posted by one call.

For whoever has nothing to write but the posting; work that writes rows beside it calls `post_group` itself. It leaves
the line to `hub.combining` and the posting to `hub.ledger.service`.
"""

from collections.abc import Sequence

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from hub.combining import Joint
from hub.ledger.at_once import can_post_at_once, post_at_once
from hub.ledger.books import Group
from hub.ledger.rules import check_movement
from hub.ledger.service import NewTransfers, post_group
from hub.ledger.tables import Transfer


class Posting(Joint):
    """One group to be posted; answers and refuses as `post_group` does.

    Raises:
        InvalidValueError: a movement that makes no sense.
    """

    def __init__(self, group: Group) -> None:
        for movement in group.movements:
            check_movement(movement)
        self.group = group

    def __call__(self, session: Session) -> Sequence[Transfer]:
        """Post the group alone."""
        return post_group(session, self.group.id, self.group.movements, self.group.posted)

    def join(self, connection: Connection, others: Sequence["Posting"]) -> list[Sequence[Transfer]] | None:
        """Post all groups by one call; None where one of them ends a hold, repeats, or is refused."""
        groups = [self.group, *(other.group for other in others)]
        if not can_post_at_once(groups) or post_at_once(connection, groups) is None:
            return None
        return [NewTransfers(group) for group in groups]
