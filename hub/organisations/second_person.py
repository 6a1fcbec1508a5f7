"""Four eyes: the one rule of who may do the second half of a step. It leaves which steps need two to their rooms."""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from hub.actor import Actor
from hub.errors import FourEyesError
from hub.organisations.tables import User


class OwnPasswordError(FourEyesError):
    """Somebody else knows the person's password, so nobody can tell who is at the keyboard."""

    code = "own_password_needed"


class SameHandError(FourEyesError):
    """One person made the account of the other, or of both, and could be behind either."""

    code = "same_hand"


def require_second_person(session: Session, actor: Actor, firsts: Iterable[str | None], *, en: str, zh: str) -> None:
    """Pass if the actor is another person than each of `firsts` (ids); `en` and `zh` say what to do if not.

    Raises:
        FourEyesError: the actor is one of them.
        OwnPasswordError: the actor has still the password that somebody else chose.
        SameHandError: the accounts go back to one person who added them.
    """
    known = {first for first in firsts if first}
    if actor.user_id in known:
        raise FourEyesError(en, zh)
    user = session.get(User, actor.user_id)
    if user is not None and user.one_time_password:
        raise OwnPasswordError(
            f"'{user.email}' still has the one-time password that somebody else was shown. Set your own under Account "
            "(POST /api/v1/me/password), then decide.",
            f"“{user.email}”仍在使用他人已知的一次性密码。请先在“账户”页设置本人密码，再作决定。",
        )
    hand = _find_hand(session, actor.user_id)
    for first in sorted(known):
        if _find_hand(session, first) == hand:
            raise _explain(session, actor.user_id, first, hand)


def _find_hand(session: Session, user_id: str) -> str:
    """Return the person at the start of the chain of who added whom: the one that nobody here added."""
    user = session.get(User, user_id)
    while user is not None and user.added_by is not None:
        user_id = user.added_by
        user = session.get(User, user_id)
    return user_id


def _explain(session: Session, second: str, first: str, hand: str) -> SameHandError:
    names = [session.get_one(User, one).name for one in (second, first, hand)]
    return SameHandError(
        f"The accounts of '{names[0]}' and '{names[1]}' both go back to '{names[2]}', who could be behind either. "
        "Within one organisation only `guanmo operators add` makes an account that goes back to nobody else, another "
        "manager does not; let such a person decide.",
        f"“{names[0]}”与“{names[1]}”的账号均由“{names[2]}”添加或追溯至其本人，不能互相复核。"
        "同一机构内只有 guanmo operators add 创建的账号互相独立，其他管理员添加的不算；请由这样的人员处理。",
    )
