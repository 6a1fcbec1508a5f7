"""Whether two organisations look related: by declared owners, or by money that goes round within a window.

It leaves what a firm declares to `hub.organisations.ownership` and what a block means to those who ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from hub.actor import Actor, Role
from hub.errors import InvalidValueError
from hub.events.service import record_event
from hub.ids import new_id
from hub.ledger.tables import PLATFORM, Account, AccountKind, Entry, Leg, Transfer
from hub.organisations.ownership import find_shared_owners
from hub.organisations.rules import OrganisationKind
from hub.organisations.service import find_organisation
from hub.vouchers.tables import RelatedRuling, Verdict

CIRCULAR = "circular_flow"


@dataclass(frozen=True)
class Sign:
    """One sign of a relation: a stable `key`, which a ruling names, and what it means in two languages."""

    key: str
    zh: str
    en: str


@dataclass(frozen=True)
class Relation:
    """What connects a buyer and a seller. `ruling` is the latest decision on the pair, whatever it covered."""

    buyer_id: str
    seller_id: str
    signs: tuple[Sign, ...]
    ruling: RelatedRuling | None

    @property
    def blocks(self) -> bool:
        """Whether vouchers may not pay: an officer said `related`, or a sign stands that no ruling has cleared."""
        if self.ruling is not None and self.ruling.verdict is Verdict.RELATED:
            return True
        cleared = set(self.ruling.signs) if self.ruling is not None else set()
        return any(sign.key not in cleared for sign in self.signs)


def find_relation(session: Session, buyer_id: str, seller_id: str, *, window_days: int, now: datetime) -> Relation:
    """Return the signs of a relation between two organisations and what was decided about them.

    The operator sells its own service to everybody and is related to nobody by money that goes round.
    """
    signs = []
    for shared in find_shared_owners(session, buyer_id, seller_id):
        signs.append(Sign(shared.key, shared.zh, shared.en))
    operator = find_organisation(session, seller_id).kind is OrganisationKind.OPERATOR
    if window_days and not operator and buyer_id != seller_id:
        signs += _list_circular(session, buyer_id, seller_id, since=now - timedelta(days=window_days), days=window_days)
    return Relation(buyer_id, seller_id, tuple(signs), find_ruling(session, buyer_id, seller_id))


def explain_relation(session: Session, relation: Relation) -> tuple[str, str]:
    """Return why a relation blocks and what to do, as (en, zh) that an officer can read."""
    name = find_organisation(session, relation.seller_id).name
    ruling = relation.ruling
    if ruling is not None and ruling.verdict is Verdict.RELATED:
        return (
            f"an officer decided that buyer and '{name}' are related parties: {ruling.reason}",
            f"经认定，购买方与“{name}”为关联方：{ruling.reason}",
        )
    en = "; ".join(sign.en for sign in relation.signs)
    zh = "；".join(sign.zh for sign in relation.signs)
    return (
        f"buyer and '{name}' look related ({en}); an officer must decide with a written reason.",
        f"购买方与“{name}”疑似关联（{zh}），须由专员书面认定。",
    )


def find_ruling(session: Session, one_id: str, other_id: str) -> RelatedRuling | None:
    """Return the latest decision on a pair."""
    first, second = sorted((one_id, other_id))
    return session.scalar(
        select(RelatedRuling)
        .where(RelatedRuling.organisation_id == first, RelatedRuling.other_id == second)
        .order_by(RelatedRuling.created_at.desc(), RelatedRuling.id.desc())
        .limit(1)
    )


def list_rulings(session: Session) -> list[RelatedRuling]:
    """Return every decision, newest first."""
    return list(session.scalars(select(RelatedRuling).order_by(RelatedRuling.id.desc()).limit(500)))


def rule_on_pair(
    session: Session,
    actor: Actor,
    one_id: str,
    other_id: str,
    *,
    verdict: Verdict,
    reason: str,
    window_days: int = 90,
    now: datetime,
) -> RelatedRuling:
    """Decide that a pair is related, or clear the signs that stand today; a sign that appears later blocks again.

    Raises:
        InvalidValueError: no reason, or one organisation twice.
    """
    actor.require(Role.OPERATOR)
    if not reason.strip() or one_id == other_id:
        raise InvalidValueError(
            "A decision on related parties needs two organisations and a written reason.",
            "关联认定须指明两家机构并书面说明理由。",
            field="reason",
        )
    for organisation_id in (one_id, other_id):
        find_organisation(session, organisation_id)
    first, second = sorted((one_id, other_id))
    ruling = RelatedRuling(
        id=new_id("rlt"),
        organisation_id=first,
        other_id=second,
        verdict=verdict,
        signs=_list_keys(session, (one_id, other_id), window_days=window_days, now=now),
        reason=reason.strip(),
        decided_by=actor.user_id,
        created_at=now,
    )
    session.add(ruling)
    session.flush()
    record_event(
        session,
        "related_parties.decided",
        ruling.id,
        organisation_id=first,
        actor_id=actor.user_id,
        now=now,
        other_id=second,
        verdict=str(verdict),
        signs=ruling.signs,
        reason=ruling.reason,
    )
    return ruling


def _list_keys(session: Session, pair: Sequence[str], *, window_days: int, now: datetime) -> list[str]:
    """Return the keys of the signs that stand between a pair, whoever of them buys."""
    both = (pair, tuple(reversed(pair)))
    found = [find_relation(session, buyer, seller, window_days=window_days, now=now).signs for buyer, seller in both]
    return sorted({sign.key for signs in found for sign in signs})


def _list_circular(session: Session, buyer_id: str, seller_id: str, *, since: datetime, days: int) -> list[Sign]:
    """Return signs of money that comes back: the seller paid the buyer, itself or through one other organisation."""
    payers = _list_payers(session, buyer_id, since)
    if seller_id in payers:
        return [
            Sign(
                CIRCULAR,
                f"近 {days} 天内卖方也向购买方付款",
                f"within {days} days the seller paid the buyer too",
            )
        ]
    for middle in sorted(payers - {buyer_id}):
        if seller_id in _list_payers(session, middle, since):
            name = find_organisation(session, middle).name
            return [
                Sign(
                    f"{CIRCULAR}:{middle}",
                    f"近 {days} 天内卖方的付款经“{name}”回到购买方",
                    f"within {days} days the seller's money came back to the buyer through '{name}'",
                )
            ]
    return []


def _list_payers(session: Session, organisation_id: str, since: datetime) -> set[str]:
    """Return the organisations whose purchases paid into an organisation's payable account since an instant."""
    payer, payee = aliased(Account), aliased(Account)
    return set(
        session.scalars(
            select(payer.organisation_id)
            .distinct()
            .join(Transfer, Transfer.debit_id == payer.id)
            .join(Entry, Entry.transfer_id == Transfer.id)
            .join(payee, payee.id == Entry.account_id)
            .where(
                payee.organisation_id == organisation_id,
                payee.kind == AccountKind.PAYABLE,
                Entry.leg == Leg.CREDIT,
                Entry.recorded_at >= since,
                payer.organisation_id.not_in((PLATFORM, organisation_id)),
            )
        )
    )
