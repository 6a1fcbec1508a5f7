"""What the worker and the officers do beside the firms: settle, close months, pay out, chain, sign.

It leaves the firms to `trade`.
"""

from datetime import timedelta
from pathlib import Path

from examples.city_year.city import City
from hub.audit.chain import chain_all
from hub.audit.checkpoints import make_checkpoint
from hub.audit.signing import AuditKey
from hub.claims.service import collect_debts, take_back_redeemed
from hub.filings.service import withdraw_filing
from hub.orders import service as orders
from hub.payouts.service import conclude_payout, earned, request_payout, send_payout
from hub.payouts.tables import PayoutState
from hub.vouchers import service as vouchers
from hub.vouchers.tables import RuleState

_ROUNDS = 1000


def run_worker(city: City) -> None:
    """Do what the worker does every second or minute, until nothing is left to do."""
    clock = city.clock
    with clock.sessions.write() as session:
        orders.expire_quotes(session, clock.now)
        orders.end_due_rentals(session, clock.now)
        vouchers.lapse_grants(session, clock.now)
        clock.done["taken back"] += take_back_redeemed(session, clock.now)
        collect_debts(session, clock.now)
    for step in (orders.settle_tranches, orders.close_months):
        for _ in range(_ROUNDS):
            with clock.sessions.write() as session:
                if not step(session, clock.now):
                    break


def keep_trail(city: City, key: AuditKey, home: Path) -> int:
    """Chain everything, sign it outside the database, and return how many links were made."""
    made = chain_all(city.clock.sessions)
    make_checkpoint(city.clock.sessions, key, home, now=city.clock.now)
    return made


def pay_providers(city: City, month: str) -> None:
    """Pay out what providers and integrators earned; one payout in ten fails at the bank and is free again."""
    sellers = [*city.providers, *(firm.actor for firm in city.firms if firm.serial % 10 == 0)]
    for actor in sellers:
        with city.clock.sessions.read() as session:
            amount = earned(session, actor.organisation_id)[0]
        if amount < 1:
            continue
        paid = city.rng.random() < 0.9
        with city.clock.sessions.write() as session:
            now = city.clock.now
            payout = request_payout(session, actor, amount_fen=amount, idempotency_key=f"pay-{month}", now=now)
            send_payout(session, city.operator, payout.id, now=now)
            conclude_payout(
                session,
                city.operator,
                payout.id,
                result=PayoutState.PAID if paid else PayoutState.FAILED,
                bank_reference=f"bank-{actor.organisation_id}-{month}" if paid else "",
                reason="" if paid else "account closed",
                now=now,
            )
        city.clock.done["paid out" if paid else "payout failed"] += 1


def change_rule(city: City) -> str:
    """Lower the compute voucher's share from half to two fifths from the next day on; drafted and approved by two."""
    return _change(city, "compute", "hold", share={"num": 2, "den": 5})


def reimburse_from_now(city: City) -> str:
    """Let the model voucher pay after the fact from the next day on: pay first, redeem after."""
    return _change(city, "model", "charge", mode="reimburse")


def _change(city: City, name: str, basis_date: str, **changes: object) -> str:
    now = city.clock.now
    with city.clock.sessions.write() as session:
        programme = vouchers.find_programme(session, name)
        old = next(rule for rule in vouchers.list_rules(session, programme.id) if rule.state is RuleState.APPROVED)
        drafted = vouchers.draft_rule(
            session,
            city.checker,
            programme=name,
            body={**old.body, **changes},
            effective_from_at=now + timedelta(days=1),
            effective_to_at=old.effective_to_at,
            source="simulated change",
            basis_date=basis_date,
            now=now,
        )
        vouchers.approve_rule(session, city.approver, drafted.id, now=now)
    city.clock.done["rule changed"] += 1
    return drafted.id


def withdraw_a_filing(city: City) -> None:
    """Withdraw the filing of the third base: no new order, no voucher for calls of what was made from it."""
    with city.clock.sessions.write() as session:
        withdraw_filing(session, city.operator, city.filings[2], reason="simulated", now=city.clock.now)
    city.clock.done["filing withdrawn"] += 1
