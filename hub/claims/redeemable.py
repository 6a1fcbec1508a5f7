"""What a firm could redeem with a grant of a reimbursing rule: charges of orders, and of hosted calls by bill line.

A fee is redeemed at most once, and never more of it than is left after corrections. It leaves the request and the
decision to `redemptions`, and what a later correction takes back to `redeemed_back`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session

from hub.catalogue.tables import ModelVersion
from hub.claims.rules import ASKING, NotRedeemableError
from hub.claims.tables import Redemption, RedemptionClawBack, RedemptionLine, RedemptionState
from hub.compute.tables import Offer
from hub.errors import NotFoundError
from hub.filings.service import standing_of
from hub.metering.tables import Usage
from hub.orders.rules import UFEN_PER_FEN
from hub.orders.tables import BillLine, BillVersion, CallCorrection, Charge, Order, Quote, RatedUsage, UsageTranche
from hub.prices.service import find_price_version
from hub.prices.tables import Meter
from hub.vouchers.related import explain_relation, find_relation
from hub.vouchers.rules import RuleBody, period_of, read_body
from hub.vouchers.service import describe_line
from hub.vouchers.tables import Grant, RuleVersion

Why = tuple[str, str]
"""Why a charge cannot be redeemed, in English and in Chinese."""


@dataclass(frozen=True)
class Base:
    """What corrections and redemptions of a fee are counted against: one meter of an order, or a bill line of calls."""

    order_id: str | None
    meter: str
    bill_line_id: str | None


@dataclass(frozen=True)
class Portion:
    """A charge with the part of its fee that counts, in fen."""

    charge: Charge
    fee_fen: int


@dataclass(frozen=True)
class Redeemable:
    """One entry to choose: a charge of an order, or all open charges of a bill line; `id` is what a request names."""

    id: str
    order_id: str | None
    month: str
    meter: str
    fee_fen: int
    charged_at: datetime
    portions: list[Portion]


def base_of(charge: Charge) -> Base:
    """Return the base of a charge."""
    if charge.bill_line_id is not None:
        return Base(None, "calls", charge.bill_line_id)
    return Base(charge.order_id, charge.meter, None)


def read_rule(session: Session, grant: Grant) -> tuple[RuleBody, RuleVersion]:
    """Return the rule of a grant."""
    version = session.get_one(RuleVersion, grant.rule_version_id)
    return read_body(version.body), version


def list_redeemable(session: Session, grant: Grant) -> list[Redeemable]:
    """Return what a grant's rule could reimburse and no redemption has, oldest first."""
    rule, version = read_rule(session, grant)
    if rule.mode != "reimburse" or rule.share is None:
        return []
    return _group(_fit(session, charges, grant, rule, version) for charges in _list_open(session, grant, rule).values())


def take_portions(session: Session, grant: Grant, wanted: Sequence[str]) -> list[Portion]:
    """Return the portions of what a request names: charges, or bill lines with all their open charges.

    Raises:
        NotRedeemableError: one does not fit the rule, or corrections left nothing of it; says why.
        NotFoundError: not the firm's.
    """
    rule, version = read_rule(session, grant)
    found: dict[str, Portion] = {}
    left: dict[Base, int] = {}
    for name in dict.fromkeys(wanted):
        charges = _find_named(session, grant, rule, name)
        portions = _fit(session, charges, grant, rule, version, left=left)
        if not portions:
            raise _refuse(name, _find_reason(session, grant, rule, version, charges[0]) if charges else None)
        found |= {portion.charge.id: portion for portion in portions if portion.charge.id not in found}
    return list(found.values())


def net_fee(session: Session, base: Base) -> int:
    """Return what a base costs after all its corrections, in fen."""
    query = select(func.coalesce(func.sum(Charge.fee_fen), 0)).where(*_on(base))
    return int(session.scalar(query) or 0)


def redeemed_fee(session: Session, base: Base, *, paid_only: bool = False) -> int:
    """Return what redemptions took of a base, less what was taken back of them, in fen."""
    states = (RedemptionState.PAID,) if paid_only else ASKING
    taken = (
        select(func.coalesce(func.sum(RedemptionLine.fee_fen), 0))
        .join(Charge, Charge.id == RedemptionLine.charge_id)
        .join(Redemption, Redemption.id == RedemptionLine.redemption_id)
        .where(*_on(base), Redemption.state.in_(states))
    )
    back = select(func.coalesce(func.sum(RedemptionClawBack.fee_fen), 0)).where(
        RedemptionClawBack.base == name_base(base)
    )
    return int(session.scalar(taken) or 0) - int(session.scalar(back) or 0)


def name_base(base: Base) -> str:
    """Return the base's name in a claw back."""
    return base.bill_line_id or f"{base.order_id}/{base.meter}"


def _on(base: Base) -> tuple[ColumnElement[bool], ...]:
    if base.bill_line_id is not None:
        return (Charge.bill_line_id == base.bill_line_id,)
    return (Charge.order_id == base.order_id, Charge.meter == base.meter)


def _list_open(session: Session, grant: Grant, rule: RuleBody) -> dict[str, list[Charge]]:
    """Return the firm's charges that could fit by their kind, those of one bill line together, oldest first."""
    kinds: list[ColumnElement[bool]] = [
        Charge.order_id.is_not(None) & Charge.meter.in_([*rule.eligible_meters, *rule.fallback_meters])
    ]
    if _covers_calls(rule):
        kinds.append(Charge.bill_line_id.is_not(None))
    query = (
        select(Charge)
        .where(
            Charge.organisation_id == grant.organisation_id,
            or_(*kinds),
            Charge.voucher_fen == 0,
            Charge.fee_fen > 0,
            ~exists().where(RedemptionLine.redeemed_charge_id == Charge.id),
        )
        .order_by(Charge.charged_at, Charge.id)
    )
    found: dict[str, list[Charge]] = {}
    for charge in session.scalars(query):
        found.setdefault(charge.bill_line_id or charge.id, []).append(charge)
    return found


def _find_named(session: Session, grant: Grant, rule: RuleBody, name: str) -> list[Charge]:
    line = session.get(BillLine, name)
    if line is not None and line.organisation_id == grant.organisation_id:
        return _list_open(session, grant, rule).get(name, [])
    charge = session.get(Charge, name)
    if charge is None or charge.organisation_id != grant.organisation_id:
        raise NotFoundError.of("charge", name)
    return [charge]


def _fit(
    session: Session,
    charges: Sequence[Charge],
    grant: Grant,
    rule: RuleBody,
    version: RuleVersion,
    *,
    left: dict[Base, int] | None = None,
) -> list[Portion]:
    """Return the portions of charges that fit, of each base together at most what is left after corrections."""
    left = {} if left is None else left
    portions = []
    for charge in charges:
        if _find_reason(session, grant, rule, version, charge) is not None:
            continue
        base = base_of(charge)
        if base not in left:
            left[base] = net_fee(session, base) - redeemed_fee(session, base)
        fee = min(_eligible_fee(session, rule, charge), left[base])
        if fee > 0:
            left[base] -= fee
            portions.append(Portion(charge, fee))
    return portions


def _group(groups: Iterable[list[Portion]]) -> list[Redeemable]:
    found = []
    for portions in groups:
        if portions:
            first = portions[0].charge
            found.append(
                Redeemable(
                    id=first.bill_line_id or first.id,
                    order_id=first.order_id,
                    month=first.corrects_month or first.month,
                    meter=first.meter,
                    fee_fen=sum(portion.fee_fen for portion in portions),
                    charged_at=first.charged_at,
                    portions=portions,
                )
            )
    return found


def _covers_calls(rule: RuleBody) -> bool:
    return Meter.COMPLETION in (*rule.eligible_meters, *rule.fallback_meters)


def _refuse(name: str, why: Why | None) -> NotRedeemableError:
    left = "nothing of it is left: a fee is redeemed once, less its corrections"
    en, zh = why or (left, "已无可兑付金额：每笔费用只兑付一次，并扣除更正")
    return NotRedeemableError(f"Charge '{name}' cannot be redeemed: {en}.", f"费用“{name}”不能兑付：{zh}。")


def _find_reason(session: Session, grant: Grant, rule: RuleBody, version: RuleVersion, charge: Charge) -> Why | None:
    if rule.mode != "reimburse" or rule.share is None:
        return "the rule deducts at checkout and reimburses nothing", "规则为下单抵扣，不支持事后兑付"
    if charge.voucher_fen:
        return "a voucher paid a part of it already", "已使用券抵扣"
    if version.basis_date == "charge" and period_of(rule, charge.charged_at, version.tz) != grant.period_key:
        return f"it was charged outside {grant.period_key}", f"不在 {grant.period_key} 期内"
    of_kind = _reason_of_order if charge.order_id is not None else _reason_of_calls
    return of_kind(session, rule, charge) or _reason_of_relation(session, grant, rule, charge)


def _reason_of_order(session: Session, rule: RuleBody, charge: Charge) -> Why | None:
    if charge.meter not in (*rule.eligible_meters, *rule.fallback_meters):
        return "the rule does not cover what it is for", "规则不覆盖该费用"
    quote = session.get_one(Quote, session.get_one(Order, charge.order_id).quote_id)
    if rule.needs_filed_base and quote.base_version_id is None:
        return "device time rented by itself has no base model", "单独租用算力没有基座模型"
    if rule.needs_filed_base and not quote.filed:
        return "its base model had no valid filing", "所用基座没有有效备案"
    offer = session.get(Offer, quote.offer_id)
    if rule.needs_city_platform and (offer is None or not offer.via_city_platform):
        return "its compute did not come through the city's platform", "算力未经市算力服务平台"
    return None


def _reason_of_calls(session: Session, rule: RuleBody, charge: Charge) -> Why | None:
    line = session.get_one(BillLine, charge.bill_line_id)
    if not _covers_calls(rule) or rule.needs_city_platform:
        return "the rule does not cover what it is for", "规则不覆盖该费用"
    if line.rule_version_id is not None:
        return "a voucher pays a share of this bill line", "该账单行已由券按比例支付"
    price = find_price_version(session, line.price_version_id)
    sold = describe_line(
        session,
        price,
        organisation_id=line.organisation_id,
        meter=Meter.COMPLETION,
        amount_fen=charge.fee_fen,
        filed_base=True,
    )
    if sold.is_own_sale or (rule.non_affiliated and sold.base_owner_id == line.organisation_id):
        return "the firm sold it to itself", "属于自有模型的销售"
    if _eligible_fee(session, rule, charge) < 1:
        return (
            "its calls went to a plain base, or to one without a valid filing",
            "调用的是基座，或其没有有效备案",
        )
    return None


def _reason_of_relation(session: Session, grant: Grant, rule: RuleBody, charge: Charge) -> Why | None:
    if not rule.non_affiliated:
        return None
    for owner in sorted({part.organisation_id for part in charge.parts if part.organisation_id}):
        relation = find_relation(
            session, grant.organisation_id, owner, window_days=rule.circular_window_days, now=charge.charged_at
        )
        if relation.blocks:
            return explain_relation(session, relation)
    return None


def _eligible_fee(session: Session, rule: RuleBody, charge: Charge) -> int:
    """Return the part of a charge's fee that the rule pays a share of: of calls, those to models made from a base.

    Where some calls do not fit, what the others cost is rounded down, never up.
    """
    if charge.bill_line_id is None:
        return charge.fee_fen
    costs = _sum_costs(session, charge)
    eligible = sum(
        cost for (version_id, opened_at), cost in costs.items() if _is_eligible(session, rule, version_id, opened_at)
    )
    if eligible == sum(costs.values()):
        return charge.fee_fen
    return max(0, min(charge.fee_fen, eligible // UFEN_PER_FEN))


def _sum_costs(session: Session, charge: Charge) -> dict[tuple[str, datetime], int]:
    """Return the µfen behind a charge by model version and by when the money of its calls was held."""
    if charge.version == 1:
        query = (
            select(Usage.version_id, UsageTranche.opened_at, func.sum(RatedUsage.cost_ufen))
            .join(RatedUsage, (RatedUsage.request_id == Usage.request_id) & (RatedUsage.attempt == Usage.attempt))
            .join(UsageTranche, UsageTranche.id == RatedUsage.tranche_id)
            .where(RatedUsage.bill_line_id == charge.bill_line_id, RatedUsage.tranche_id == charge.tranche_id)
            .group_by(Usage.version_id, UsageTranche.opened_at)
        )
    else:
        difference = func.sum(CallCorrection.cost_ufen - CallCorrection.was_ufen)
        query = (
            select(CallCorrection.version_id, UsageTranche.opened_at, difference)
            .join(UsageTranche, UsageTranche.id == CallCorrection.tranche_id)
            .join(BillVersion, BillVersion.id == CallCorrection.bill_version_id)
            .where(BillVersion.group_id == charge.group_id)
            .group_by(CallCorrection.version_id, UsageTranche.opened_at)
        )
    return {(version_id, opened_at): int(cost) for version_id, opened_at, cost in session.execute(query)}


def _is_eligible(session: Session, rule: RuleBody, version_id: str, opened_at: datetime) -> bool:
    version = session.get(ModelVersion, version_id)
    if version is None or version.base_version_id is None:
        return False
    return not rule.needs_filed_base or standing_of(session, version.weights_digest, opened_at).valid
