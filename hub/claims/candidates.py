"""Which voucher money may be claimed: transfers of grant accounts that no claim has, judged by papers and parties.

It goes by the ledger alone, so that top-ups, corrections and redemptions are claimed like first settlements.
It leaves the claim itself to `drafting` and the pack's content to `evidence`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from hub.claims.evidence import list_funds, list_sellers
from hub.claims.tables import ClaimLine
from hub.ledger.periods import month_key
from hub.ledger.tables import Transfer, TransferKind
from hub.vouchers.papers import list_papers
from hub.vouchers.related import explain_relation, find_relation
from hub.vouchers.rules import RuleBody, read_body
from hub.vouchers.tables import Application, Grant, PaperKind, Programme, RuleVersion


@dataclass(frozen=True)
class Candidate:
    """One transfer that could be claimed; `amount_fen` is negative for money that came back into the grant."""

    transfer: Transfer
    grant: Grant
    amount_fen: int


@dataclass(frozen=True)
class Obstacle:
    """Why a transfer is not claimed yet, with what to do."""

    code: str
    zh: str
    en: str


def list_candidates(
    session: Session, programme: Programme, *, organisation_id: str | None, since: datetime | None, before: datetime
) -> list[Candidate]:
    """Return every unclaimed movement of voucher money that happened before an instant, in booking order.

    With `since`, uses before then are left to other claims. Money that came back before then is not, as far as claims
    have got it of the same grant; what came back of uses that nobody claimed is netted where those are claimed.
    """
    funds = list_funds(session, programme.id)
    query = (
        select(Transfer, Grant)
        .join(Grant, or_(Grant.account_id == Transfer.debit_id, Grant.account_id == Transfer.credit_id))
        .where(
            Grant.programme_id == programme.id,
            Transfer.kind.in_((TransferKind.SINGLE, TransferKind.POST)),
            # Awards come from the fund and leftovers return to it; everything else was used, or taken back.
            Transfer.debit_id.not_in(funds),
            Transfer.credit_id.not_in(funds),
            Transfer.event_at < before,
            ~exists().where(ClaimLine.claimed_transfer_id == Transfer.id),
        )
        .order_by(Transfer.seq)
    )
    if since is not None:
        query = query.where(or_(Transfer.event_at >= since, Transfer.credit_id == Grant.account_id))
    if organisation_id is not None:
        query = query.where(Grant.organisation_id == organisation_id)
    found = [
        Candidate(
            transfer, grant, transfer.amount_fen if transfer.debit_id == grant.account_id else -transfer.amount_fen
        )
        for transfer, grant in session.execute(query)
    ]
    return found if since is None else _leave_what_nobody_claimed(session, found, since)


def _leave_what_nobody_claimed(session: Session, found: list[Candidate], since: datetime) -> list[Candidate]:
    """Drop money that came back before `since` and is more than the claims that stand have got of its grant."""
    lines = select(ClaimLine.grant_id, func.sum(ClaimLine.amount_fen)).where(ClaimLine.claimed_transfer_id.is_not(None))
    early = {candidate.grant.id for candidate in found if candidate.transfer.event_at < since}
    claimed = {
        grant_id: int(amount)
        for grant_id, amount in session.execute(lines.where(ClaimLine.grant_id.in_(early)).group_by(ClaimLine.grant_id))
    }
    kept = []
    for candidate in found:
        if candidate.transfer.event_at < since:
            left = claimed.get(candidate.grant.id, 0) + candidate.amount_fen
            if left < 0:
                continue
            claimed[candidate.grant.id] = left
        kept.append(candidate)
    return kept


def judge_candidates(
    session: Session, candidates: Sequence[Candidate], now: datetime
) -> tuple[list[Candidate], list[tuple[Candidate, Obstacle]]]:
    """Return what may be claimed and what may not with the reasons. Money that came back is never left out."""
    judge = _Judge(session, now)
    ready: list[Candidate] = []
    left_out: list[tuple[Candidate, Obstacle]] = []
    for candidate in candidates:
        obstacle = judge.find_obstacle(candidate) if candidate.amount_fen > 0 else None
        if obstacle is None:
            ready.append(candidate)
        else:
            left_out.append((candidate, obstacle))
    return ready, left_out


class _Judge:
    """Looks at each grant, month and pair of parties once."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now
        self._rules: dict[str, RuleBody] = {}
        self._papers: dict[tuple[str, str], set[str]] = {}
        self._pairs: dict[tuple[str, str], Obstacle | None] = {}

    def find_obstacle(self, candidate: Candidate) -> Obstacle | None:
        grant, rule = candidate.grant, self._rule(candidate.grant)
        month = month_key(candidate.transfer.event_at)
        missing = [kind for kind in rule.claim_evidence if kind not in self._kinds(grant, month, rule)]
        if missing:
            text = ", ".join(missing)
            return Obstacle(
                "evidence_missing",
                f"{month} 缺少 {text}，请补充材料",
                f"{text} missing for {month}; add the paper to the grant",
            )
        if not rule.non_affiliated:
            return None
        for seller_id in list_sellers(self._session, candidate.transfer, grant.id):
            obstacle = self._find_relation(grant.organisation_id, seller_id, rule)
            if obstacle is not None:
                return obstacle
        return None

    def _rule(self, grant: Grant) -> RuleBody:
        if grant.rule_version_id not in self._rules:
            version = self._session.get_one(RuleVersion, grant.rule_version_id)
            self._rules[grant.rule_version_id] = read_body(version.body)
        return self._rules[grant.rule_version_id]

    def _kinds(self, grant: Grant, month: str, rule: RuleBody) -> set[str]:
        """Return the kinds of papers there are for a month of a grant; those of the application count for all months.

        Where vouchers are deducted the firm pays the rest in the same posting, so the ledger proves the payment.
        """
        key = (grant.id, month)
        if key not in self._papers:
            application = self._session.get_one(Application, grant.application_id)
            kinds = {str(paper["kind"]) for paper in application.evidence}
            kinds |= {str(paper.kind) for paper in list_papers(self._session, [grant.id]) if paper.month == month}
            if rule.mode == "deduct":
                kinds.add(PaperKind.PAYMENT)
            self._papers[key] = kinds
        return self._papers[key]

    def _find_relation(self, buyer_id: str, seller_id: str, rule: RuleBody) -> Obstacle | None:
        key = (buyer_id, seller_id)
        if key not in self._pairs:
            relation = find_relation(
                self._session, buyer_id, seller_id, window_days=rule.circular_window_days, now=self._now
            )
            self._pairs[key] = None
            if relation.blocks:
                en, zh = explain_relation(self._session, relation)
                self._pairs[key] = Obstacle("related_parties", zh, en)
        return self._pairs[key]
