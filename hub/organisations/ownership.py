"""Who stands behind a firm: legal person and holders, declared by the firm, confirmed by the operator; who is shared.

It leaves what a shared owner means for vouchers to `hub.vouchers.related`.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, InvalidValueError, NotFoundError
from hub.events.service import record_event
from hub.ids import new_id
from hub.organisations.rules import check_uscc
from hub.organisations.service import find_organisation
from hub.organisations.tables import Organisation, Owner, OwnerKind

_TAIL = re.compile(r"[0-9]{5}[0-9X]")


@dataclass(frozen=True)
class SharedOwner:
    """One sign that two organisations share an owner, or that one owns the other; `key` is stable."""

    key: str
    zh: str
    en: str


def declare_owner(
    session: Session,
    actor: Actor,
    organisation_id: str,
    *,
    kind: OwnerKind,
    name: str,
    code: str,
    share_bp: int | None,
    now: datetime,
) -> Owner:
    """Add a legal person or holder. A firm declares its own; an operator enters and confirms at once.

    `code` is empty, a credit code, or the last six characters of an identity card; `share_bp` are hundredths of a
    percent.

    Raises:
        InvalidValueError: a code of another form, a share out of range, or no name.
        ConflictError: declared already.
    """
    operator = _require_own(session, actor, organisation_id)
    code = _check_owner(name, code, share_bp)
    if any(
        (row.kind, row.name, row.code) == (kind, name.strip(), code) for row in list_owners(session, organisation_id)
    ):
        raise ConflictError(f"'{name}' is declared already.", f"“{name}”已申报。", field="name")
    owner = Owner(
        id=new_id("own"),
        organisation_id=organisation_id,
        kind=kind,
        name=name.strip(),
        code=code,
        share_bp=share_bp,
        declared_by=actor.user_id,
        created_at=now,
        confirmed_by=actor.user_id if operator else None,
        confirmed_at=now if operator else None,
    )
    session.add(owner)
    session.flush()
    _record(session, "owner.declared", owner, actor, now)
    return owner


def confirm_owner(session: Session, actor: Actor, owner_id: str, *, now: datetime) -> Owner:
    """Let an operator confirm what a firm declared; a second time changes nothing."""
    actor.require(Role.OPERATOR)
    owner = _find(session, owner_id)
    if owner.confirmed_at is None:
        owner.confirmed_by, owner.confirmed_at = actor.user_id, now
        _record(session, "owner.confirmed", owner, actor, now)
    return owner


def end_owner(session: Session, actor: Actor, owner_id: str, *, now: datetime) -> Owner:
    """End an entry. A confirmed one is ended by an operator only, so that nobody sheds a relation by a click.

    Raises:
        ForbiddenError: a firm ends a confirmed entry.
    """
    owner = _find(session, owner_id)
    operator = _require_own(session, actor, owner.organisation_id)
    if owner.confirmed_at is not None and not operator:
        raise ForbiddenError(
            f"'{owner.name}' was confirmed; ask the operator to end it.", f"“{owner.name}”已核实，请联系运营方变更。"
        )
    if owner.ended_at is None:
        owner.ended_by, owner.ended_at = actor.user_id, now
        _record(session, "owner.ended", owner, actor, now)
    return owner


def list_owners(session: Session, organisation_id: str) -> list[Owner]:
    """Return the entries of an organisation that stand, oldest first."""
    query = select(Owner).where(Owner.organisation_id == organisation_id, Owner.ended_at.is_(None))
    return list(session.scalars(query.order_by(Owner.created_at, Owner.id)))


def list_unconfirmed(session: Session) -> list[Owner]:
    """Return what firms declared and no operator has confirmed yet, oldest first."""
    query = select(Owner).where(Owner.confirmed_at.is_(None), Owner.ended_at.is_(None))
    return list(session.scalars(query.order_by(Owner.created_at, Owner.id).limit(500)))


def find_shared_owners(session: Session, one_id: str, other_id: str) -> list[SharedOwner]:
    """Return what two organisations share: themselves, a credit code, a legal person or holder, or one another.

    What is declared counts before it is confirmed: a relation is rather looked at once too often.
    """
    if one_id == other_id:
        return [SharedOwner("same_organisation", "买卖双方为同一机构", "buyer and seller are one organisation")]
    one, other = find_organisation(session, one_id), find_organisation(session, other_id)
    owners, others = list_owners(session, one_id), list_owners(session, other_id)
    found = [*_list_holding(one, others), *_list_holding(other, owners)]
    for mine in owners:
        for theirs in others:
            if _is_same(mine, theirs):
                found.append(_describe_shared(mine, theirs))
    return list({shared.key: shared for shared in found}.values())


def _list_holding(firm: Organisation, owners: list[Owner]) -> list[SharedOwner]:
    return [
        SharedOwner(f"holds:{firm.uscc}", f"“{firm.name}”持有另一方", f"'{firm.name}' holds the other")
        for owner in owners
        if owner.code == firm.uscc
    ]


def _is_same(mine: Owner, theirs: Owner) -> bool:
    """Same code decides where both have one; else the same name, which an officer may find to be a namesake."""
    if mine.code and theirs.code:
        return mine.code == theirs.code and (len(mine.code) == 18 or mine.name == theirs.name)
    return mine.name == theirs.name


def _describe_shared(mine: Owner, theirs: Owner) -> SharedOwner:
    if mine.kind is theirs.kind is OwnerKind.LEGAL_PERSON:
        return SharedOwner(
            f"legal_person:{mine.name}", f"法定代表人同为 {mine.name}", f"both have the legal person {mine.name}"
        )
    return SharedOwner(
        f"holder:{mine.name}", f"{mine.name} 同为双方的法定代表人或股东", f"{mine.name} stands behind both"
    )


def _check_owner(name: str, code: str, share_bp: int | None) -> str:
    code = code.strip().upper()
    if not name.strip() or len(name) > 200 or (share_bp is not None and not 1 <= share_bp <= 10_000):
        raise InvalidValueError(
            f"Owner '{name[:80]}' with share {share_bp}: give a name and a share from 1 to 10000 basis points.",
            f"申报“{name[:80]}”（份额 {share_bp}）有误：须有名称，份额为 1..10000 基点。",
            field="name" if not name.strip() else "share_bp",
        )
    if len(code) == 18:
        return check_uscc(code, production=False)
    if code and not _TAIL.fullmatch(code):
        raise InvalidValueError(
            f"Code '{code}': give a firm's 18-character credit code, the last six of an identity card, or none.",
            f"代码“{code}”有误：企业填 18 位信用代码，个人填身份证后六位，或留空。",
            field="code",
        )
    return code


def _require_own(session: Session, actor: Actor, organisation_id: str) -> bool:
    """Pass the operator (True) or a person of the firm (False); a stranger learns nothing."""
    find_organisation(session, organisation_id)
    if actor.role is Role.OPERATOR:
        return True
    if actor.organisation_id != organisation_id:
        raise NotFoundError.of("organisation", organisation_id)
    return False


def _find(session: Session, owner_id: str) -> Owner:
    owner = session.get(Owner, owner_id, with_for_update=True)
    if owner is None:
        raise NotFoundError.of("owner", owner_id)
    return owner


def _record(session: Session, topic: str, owner: Owner, actor: Actor, now: datetime) -> None:
    record_event(
        session,
        topic,
        owner.id,
        organisation_id=owner.organisation_id,
        actor_id=actor.user_id,
        now=now,
        kind=str(owner.kind),
        name=owner.name,
    )
