"""The year from its first month to its verified export. Read it as the table of what happens when.

It leaves printing to `__main__`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from examples.city_year.chores import (
    change_rule,
    keep_trail,
    pay_providers,
    reimburse_from_now,
    run_worker,
    withdraw_a_filing,
)
from examples.city_year.city import City, build_city
from examples.city_year.claiming import add_papers, claim_month, correct_redeemed, redeem_month
from examples.city_year.clockwork import Clockwork
from examples.city_year.trade import apply_for_voucher, fund, plan_month, plan_tuning_at
from hub.audit.chain import count_missing
from hub.audit.checkpoints import read_notes
from hub.audit.export import read_period, write_export
from hub.audit.signing import AuditKey, verifier_key
from hub.audit.verifier.report import verify
from hub.database import Sessions
from hub.ledger.audit import trial_balance
from hub.ledger.periods import SHANGHAI, month_bounds, month_key
from hub.ledger.tables import Transfer
from hub.orders.tables import Charge

LAST_MONTH = "2027-01"
"""The year ends after a turn of the year in Shanghai, so that each length of it has one inside."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How large a year: firms, months up to January 2027, and the seed of everything that is left to chance."""

    firms: int = 300
    months: int = 12
    seed: int = 2026


@dataclass(frozen=True)
class Outcome:
    """What came of it; amounts in fen."""

    verified: bool
    lines: list[str]
    totals: dict[str, Any]


def simulate(sessions: Sessions, home: Path, plan: Plan, tell: Tell) -> Outcome:
    """Run the year on an empty database with all tables, export it, verify the export."""
    months = list_months(plan.months)
    clock = Clockwork(sessions, month_bounds(months[0])[0] - timedelta(days=2), Random(plan.seed))
    city = build_city(clock, firms=plan.firms, home=home)
    key = AuditKey(f"the simulated city's audit key {plan.seed}")
    tell(f"{plan.firms} firms, {len(city.providers)} providers, {len(city.bases)} bases, {months[0]} to {months[-1]}")
    _equip(city, months[0])
    for number, month in enumerate(months):
        _run_month(city, month, turning=(number == len(months) // 2, number == len(months) * 2 // 3))
        keep_trail(city, key, home)
        tell(f"{month}: {dict(clock.done)}")
    _come_to_rest(city, key, home)
    return _conclude(city, key, home, plan, months)


def list_months(count: int) -> list[str]:
    """Return that many months, the last one January 2027."""
    months = [LAST_MONTH]
    while len(months) < count:
        months.insert(0, month_key(month_bounds(months[0])[0] - timedelta(days=1)))
    return months


def _equip(city: City, month: str) -> None:
    """Give every firm money, and two vouchers to those that are not among the last tenth."""
    for firm in city.firms:
        city.clock.act(
            "funded", partial(fund, city=city, firm=firm, amount_fen=2_000_000, reference=f"bank-{firm.serial}")
        )
        if firm.serial % 10 != 9:
            _award(city, month, firm.serial)


def _award(city: City, year: str, serial: int, programmes: tuple[str, ...] = ("model", "compute")) -> None:
    firm = city.firms[serial]
    for programme in programmes:
        number = f"HT-{serial}-{year}"
        award = partial(apply_for_voucher, city=city, firm=firm, programme=programme, contract_no=number)
        city.clock.act("awarded", award)


def _run_month(city: City, month: str, *, turning: tuple[bool, bool]) -> None:
    start, end = month_bounds(month)
    plan_month(city, start, end)
    if city.clock.done["rule changed"] > 1:
        for firm in city.firms[1::5]:  # a fifth asks for the model voucher that pays after the fact
            _award(city, f"{month}-after", firm.serial, ("model",))
    if month.endswith("-12"):
        _cross_the_year(city, end)
    if month.endswith("-01"):
        for firm in city.firms:
            if firm.serial % 10 < 5:  # the compute voucher counts by calendar year: half the firms ask again
                _award(city, f"{month}-again", firm.serial, ("compute",))
    middle = start + (end - start) / 2
    day = start
    while day < end:
        day = min(day + timedelta(days=1), end)
        city.clock.run_until(day)
        run_worker(city)
        if turning[0] and day - timedelta(days=1) < middle <= day:
            change_rule(city)
            reimburse_from_now(city)
        if turning[1] and day - timedelta(days=1) < middle <= day:
            withdraw_a_filing(city)
    pay_providers(city, month)
    add_papers(city, month)
    redeem_month(city, month)
    claim_month(city, month)


def _cross_the_year(city: City, end: datetime) -> None:
    """Order at 23:50 on New Year's Eve in Shanghai, settle at 00:20: in UTC it is still the old year's afternoon."""
    for firm in city.firms[:5]:
        plan_tuning_at(city, firm, end - timedelta(minutes=10), end + timedelta(minutes=20))


def _come_to_rest(city: City, key: AuditKey, home: Path) -> None:
    """Let what was started end, a few days into the next month."""
    city.clock.run_until(city.clock.now + timedelta(days=3))
    correct_redeemed(city)
    run_worker(city)
    claim_month(city, month_key(city.clock.now))
    keep_trail(city, key, home)


def _conclude(city: City, key: AuditKey, home: Path, plan: Plan, months: list[str]) -> Outcome:
    place = home / "export"
    last = month_key(city.clock.now.astimezone(SHANGHAI))
    with city.clock.sessions.read() as session:
        manifest = write_export(session, place, read_period(None, last), public=key.public)
        totals = _count(session, months)
    holds, lines = verify(place, key=verifier_key(key.public), notes=read_notes(home))
    totals |= {
        **asdict(plan),
        "done": dict(sorted(city.clock.done.items())),
        "refused": dict(sorted(city.clock.refused.items())),
        "tree_size": manifest["tree_size"],
        "verified": holds,
    }
    return Outcome(holds, lines, totals)


def _count(session: Session, months: list[str]) -> dict[str, Any]:
    sums = session.execute(
        select(func.count(), func.sum(Charge.fee_fen), func.sum(Charge.voucher_fen), func.sum(Charge.cash_fen)).where(
            Charge.month.in_([*months, "2027-02"])
        )
    ).one()
    balance, missing = trial_balance(session), count_missing(session)
    return {
        "transfers": session.scalar(select(func.count()).select_from(Transfer)),
        "charges": int(sums[0]),
        "fee_fen": int(sums[1] or 0),
        "voucher_fen": int(sums[2] or 0),
        "cash_fen": int(sums[3] or 0),
        "ledger_sum_fen": balance.posted_sum_fen + balance.pending_sum_fen,
        "audit_missing": missing.events + missing.transfers,
    }
