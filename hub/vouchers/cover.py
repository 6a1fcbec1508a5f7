"""Which voucher pays how much of one line of a bill, by the rule versions of the day.

It leaves holding the money to the rooms that sell; the grant's ledger limit has the last word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from hub.ledger.tables import Account
from hub.prices.tables import CALL_METERS
from hub.vouchers.lines import LineToCover
from hub.vouchers.programmes import list_rules_of_day
from hub.vouchers.related import explain_relation, find_relation
from hub.vouchers.rules import (
    Cover,
    Refusal,
    RelatedPartiesError,
    RuleBody,
    effective_share,
    period_of,
    read_body,
    share_fen,
)
from hub.vouchers.tables import Application, Grant, GrantState, Programme, RuleVersion

GRANT_HELD = "grant_held"


@dataclass(frozen=True)
class WaitingRule:
    """A rule with its share that pays a line later, as its grants' money comes back."""

    programme: str
    rule_version_id: str
    share_num: int
    share_den: int


@dataclass(frozen=True)
class CoverAnswer:
    """At most one cover (never the same fen twice) and why the other programmes pay nothing.

    `waiting` is the rule that would pay, were its grants' money not held by other purchases just now.
    """

    covers: list[Cover]
    refusals: list[Refusal]
    waiting: WaitingRule | None = None


def cover(
    session: Session,
    *,
    organisation_id: str,
    meter: str,
    amount_fen: int,
    filed_base: bool,
    via_city_platform: bool,
    now: datetime,
) -> list[Cover]:
    """Return the voucher cover of one line on its own; at most one programme pays for a line."""
    line = LineToCover(organisation_id, meter, amount_fen, filed_base, via_city_platform)
    return find_cover(session, line, now).covers


def find_cover(session: Session, line: LineToCover, now: datetime) -> CoverAnswer:
    """Return the cover of a line with the reasons of those that do not pay.

    A programme that names the meter comes before one that takes it only as a fallback (POLICY.md: the model voucher
    covers compute only where no compute voucher does).
    """
    refusals: list[Refusal] = []
    waiting: WaitingRule | None = None
    for programme, version, rule in _list_candidates(session, line.meter, now):
        answer = _cover_by(session, line, (programme, version, rule), now)
        if isinstance(answer, Cover):
            return CoverAnswer([answer], refusals)
        refusals.append(answer)
        share = effective_share(rule)
        if answer.code == GRANT_HELD and waiting is None and share is not None:
            waiting = WaitingRule(programme.code, version.id, *share)
    return CoverAnswer([], refusals, waiting)


def find_top_up(
    session: Session, *, organisation_id: str, rule_version_id: str, wanted_fen: int, moment: datetime
) -> list[tuple[Grant, int]]:
    """Return which grants of a rule's programme and of the cap period of `moment` pay how much, oldest first.

    Together at most `wanted_fen`, at most what each has left and at most what the rule's cap and its tiers' leave.
    """
    version = session.get_one(RuleVersion, rule_version_id)
    rule = read_body(version.body)
    line = LineToCover(organisation_id, "", wanted_fen, filed_base=True, via_city_platform=False)
    accounts = _list_accounts(session, organisation_id, version.programme_id, period_of(rule, moment, version.tz))
    tiers = _read_tiers(session, accounts)
    left = min(wanted_fen, _left_of_cap(line, rule, accounts))
    left_of_tier = {tier: _left_of_tier(line, rule, tier, tiers, accounts) for tier in tiers.values()}
    shares = []
    for grant, account in accounts:
        tier = tiers[grant.id]
        amount = min(left, account.available_fen, left_of_tier[tier])
        if amount > 0 and grant.state is GrantState.ACTIVE:
            shares.append((grant, amount))
            left -= amount
            left_of_tier[tier] -= amount
    return shares


def require_unrelated(session: Session, line: LineToCover, rule_version_id: str, now: datetime) -> None:
    """Pass a line that a rule was to pay for if its parties still do not look related.

    Raises:
        RelatedPartiesError: a sign or an officer's ruling has come up that no ruling cleared.
    """
    found = _explain_related(session, line, read_body(session.get_one(RuleVersion, rule_version_id).body), now)
    if found is not None:
        en, zh = found
        raise RelatedPartiesError(
            f"No voucher pays here any more: {en.rstrip('.')}. Ask for a new quote; none is counted in it until then.",
            f"券不再适用：{zh.rstrip('。')}。请重新报价；认定之前新报价不计券。",
        )


def _list_candidates(session: Session, meter: str, now: datetime) -> list[tuple[Programme, RuleVersion, RuleBody]]:
    first, fallback = [], []
    for programme, version in list_rules_of_day(session, now):
        if not programme.objects_held:
            continue
        rule = read_body(version.body)
        if rule.share is not None and rule.mode == "deduct" and meter in rule.eligible_meters:
            first.append((programme, version, rule))
        elif rule.share is not None and rule.mode == "deduct" and meter in rule.fallback_meters:
            fallback.append((programme, version, rule))
    return first + fallback


def _cover_by(
    session: Session, line: LineToCover, candidate: tuple[Programme, RuleVersion, RuleBody], now: datetime
) -> Cover | Refusal:
    programme, version, rule = candidate
    refusal = _refuse_line(line, programme, rule) or _refuse_related(session, line, programme, rule, now)
    share = effective_share(rule)
    if refusal is not None or share is None:
        return refusal or Refusal(programme.code, "no_share", "规则未定比例", "The rule has no share.")
    period = period_of(rule, now, version.tz)
    wanted = share_fen(line.amount_fen, *share)
    accounts = _list_accounts(session, line.organisation_id, programme.id, period)
    payable = _list_payable(session, line, rule, accounts)
    if not payable:
        return _refuse_empty(programme, period, held=any(account.debits_pending for _, account in accounts))
    chosen, payable_fen = _choose_grant(payable, wanted_fen=wanted)
    amount = min(wanted, payable_fen, _left_of_cap(line, rule, accounts))
    if amount <= 0:
        return Refusal(programme.code, "too_small", "金额不足一分或已达上限", "Below one fen, or the cap is reached.")
    return Cover(programme.code, version.id, chosen.id, *share, amount, period)


def _refuse_line(line: LineToCover, programme: Programme, rule: RuleBody) -> Refusal | None:
    if rule.needs_filed_base and line.filed_base is None:
        return Refusal(
            programme.code,
            "no_base_model",
            f"{programme.title_zh}只用于已备案基座模型的微调与推广应用；单独租用算力没有基座模型",
            f"{programme.title_en} pays for work on a filed base model; device time rented by itself has none.",
        )
    if rule.needs_filed_base and not line.filed_base:
        return Refusal(
            programme.code,
            "base_not_filed",
            f"{programme.title_zh}只用于已备案基座模型；该基座没有有效备案",
            f"{programme.title_en} needs a filed base model; this base has no valid filing.",
        )
    if rule.needs_city_platform and not line.via_city_platform:
        return Refusal(
            programme.code,
            "not_via_city_platform",
            f"{programme.title_zh}只用于经市算力服务平台租用的算力",
            f"{programme.title_en} needs an offer that comes through the city's compute service platform.",
        )
    if line.meter in CALL_METERS and not line.derived:
        return Refusal(
            programme.code,
            "plain_base",
            f"{programme.title_zh}只用于由基座做出的模型；这里调用的是基座本身",
            f"{programme.title_en} pays for calls of models made from a base; this is the plain base.",
        )
    # A sale to oneself is never subsidised, whatever the rule says of outside parties (ADR 11).
    if line.is_own_sale or (rule.non_affiliated and line.base_owner_id == line.organisation_id):
        return Refusal(
            programme.code,
            "affiliated",
            f"{programme.title_zh}不用于关联方交易",
            f"{programme.title_en} does not pay between related parties.",
        )
    return None


def _refuse_related(
    session: Session, line: LineToCover, programme: Programme, rule: RuleBody, now: datetime
) -> Refusal | None:
    found = _explain_related(session, line, rule, now)
    if found is None:
        return None
    en, zh = found
    return Refusal(programme.code, "related_parties", f"{programme.title_zh}：{zh}", f"{programme.title_en}: {en}")


def _explain_related(session: Session, line: LineToCover, rule: RuleBody, now: datetime) -> tuple[str, str] | None:
    """Return why a rule does not pay: parties of the sale look related and no officer has cleared them."""
    if not rule.non_affiliated:
        return None
    others = {line.seller_id, line.base_owner_id, *line.partner_ids} - {None, line.organisation_id}
    for other_id in sorted(filter(None, others)):
        relation = find_relation(
            session, line.organisation_id, other_id, window_days=rule.circular_window_days, now=now
        )
        if relation.blocks:
            return explain_relation(session, relation)
    return None


def _refuse_empty(programme: Programme, period: str, *, held: bool) -> Refusal:
    if held:
        return Refusal(
            programme.code,
            GRANT_HELD,
            f"{programme.title_zh}：{period} 期内的额度正被其他订单或调用占用",
            f"{programme.title_en}: all money left for {period} is held by other orders or calls.",
        )
    return Refusal(
        programme.code,
        "no_grant",
        f"{programme.title_zh}：{period} 期内没有可用额度",
        f"{programme.title_en}: no award with money left for {period}.",
    )


def _list_payable(
    session: Session, line: LineToCover, rule: RuleBody, accounts: Sequence[tuple[Grant, Account]]
) -> list[tuple[Grant, int]]:
    """Return the grants with money left, oldest first, and what each could pay: nothing where its tier is full."""
    tiers = _read_tiers(session, accounts) if rule.tiers else dict.fromkeys(grant.id for grant, _ in accounts)
    left_of_tier = {tier: _left_of_tier(line, rule, tier, tiers, accounts) for tier in tiers.values()}
    payable = []
    for grant, account in accounts:
        left = account.available_fen - line.reserved.get(grant.id, 0)
        if left > 0 and grant.state is GrantState.ACTIVE:
            payable.append((grant, max(0, min(left, left_of_tier[tiers[grant.id]]))))
    return payable


def _choose_grant(payable: Sequence[tuple[Grant, int]], *, wanted_fen: int) -> tuple[Grant, int]:
    """Return the oldest grant that could pay all that is wanted, else the one that could pay most, and how much."""
    enough = (found for found in payable if found[1] >= wanted_fen)
    return next(enough, None) or max(payable, key=lambda found: found[1])


def _left_of_cap(line: LineToCover, rule: RuleBody, accounts: Sequence[tuple[Grant, Account]]) -> int:
    """Return what the firm's cap leaves: held and settled money counts, money taken back does not."""
    if rule.per_firm_cap_fen is None:
        return line.amount_fen
    used = 0
    for grant, account in accounts:
        used += grant.amount_fen - grant.returned_fen - account.available_fen + line.reserved.get(grant.id, 0)
    return rule.per_firm_cap_fen - used


def _left_of_tier(
    line: LineToCover,
    rule: RuleBody,
    tier: str | None,
    tiers: Mapping[str, str | None],
    accounts: Sequence[tuple[Grant, Account]],
) -> int:
    """Return what the cap of a tier leaves, by this rule; the line's amount where the rule has no tiers."""
    if not rule.tiers:
        return line.amount_fen
    caps = {known.label_en: known.cap_fen for known in rule.tiers}
    used = sum(
        grant.amount_fen - grant.returned_fen - account.available_fen + line.reserved.get(grant.id, 0)
        for grant, account in accounts
        if tiers[grant.id] == tier
    )
    return caps.get(tier or "", 0) - used


def _read_tiers(session: Session, accounts: Sequence[tuple[Grant, Account]]) -> dict[str, str | None]:
    """Return the tier that each grant was asked for, by grant id."""
    wanted = [grant.application_id for grant, _ in accounts]
    query = select(Application.id, Application.tier).where(Application.id.in_(wanted))
    asked = {key: tier for key, tier in session.execute(query)}
    return {grant.id: asked[grant.application_id] for grant, _ in accounts}


def _list_accounts(
    session: Session, organisation_id: str, programme_id: str, period: str
) -> list[tuple[Grant, Account]]:
    """Return every grant of a period; an ended one has nothing available but still counts against the cap."""
    rows = session.execute(
        select(Grant, Account)
        .join(Account, Account.id == Grant.account_id)
        .where(
            Grant.organisation_id == organisation_id,
            Grant.programme_id == programme_id,
            Grant.period_key == period,
        )
        .order_by(Grant.created_at, Grant.id)
    )
    return [(grant, account) for grant, account in rows]
