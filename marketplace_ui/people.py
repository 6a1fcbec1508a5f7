"""Names of the people that records mention by id. It leaves who may read the records to the pages."""

from sqlalchemy.orm import Session

from hub.errors import NotFoundError
from hub.organisations.service import find_user


def name_person(session: Session, user_id: str) -> str:
    """Return a person's name, the id itself for `system` and for people of before."""
    try:
        return find_user(session, user_id).name
    except NotFoundError:
        return user_id
