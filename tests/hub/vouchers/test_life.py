"""The life of an application and of a grant: each step by the right person, each end a posting."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from hub.errors import ConflictError, ForbiddenError, FourEyesError, InvalidValueError, NotFoundError
from hub.events.tables import Event
from hub.ledger.movements import move
from hub.ledger.service import Posted, post_group
from hub.ledger.tables import Account
from hub.orders import service as orders
from hub.orders.rules import QuoteStaleError
from hub.orders.tables import Quote
from hub.organisations.second_person import SameHandError
from hub.organisations.tables import User
from hub.vouchers import service
from hub.vouchers.applications import ExclusiveProgrammeError
from hub.vouchers.programmes import fund_account
from hub.vouchers.reviews import list_decisions, list_reviews
from hub.vouchers.rules import APPLICATION_STEPS, CapExceededError, GrantEndedError
from hub.vouchers.tables import Application, ApplicationState, ClawBack, Grant, GrantState
from tests.hub.money.market import PAPER, Market
from tests.hub.vouchers.steps import apply, assert_books, balance_of, buy, review, shanghai, state_of

YEAR_CAP = 100_000_000


def fund_left(market: Market, programme: str = "model") -> int:
    with market.sessions.write() as session:
        found = service.find_programme(session, programme)
        return fund_account(session, found.id, market.now).available_fen


def test_every_state_that_waits_for_an_officer_has_a_way_out() -> None:
    waiting = {state for state, _ in APPLICATION_STEPS}
    assert waiting == {ApplicationState.SUBMITTED, ApplicationState.CHECKED, ApplicationState.APPEALED}
    for state in waiting:
        leads = {after for (before, _), after in APPLICATION_STEPS.items() if before is state}
        assert ApplicationState.REFUSED in leads


def test_returned_for_completion_and_handed_in_again(market: Market) -> None:
    application = apply(market)
    with pytest.raises(InvalidValueError, match="reason"):
        review(market, application, "checker", "return")
    review(market, application, "checker", "return", "the second page is missing")
    assert state_of(market, application) == "returned"
    with pytest.raises(ConflictError, match="returned"):
        review(market, application, "approver", "check")
    more = {"kind": "other", "name": "page2.pdf", "digest": "d" * 64}
    with market.sessions.write() as session:
        service.resubmit_application(
            session, market.actors["factory"], application.id, asked_fen=20_000, evidence=[more], now=market.now
        )
    # The same person may look again: it is a new round with new papers.
    review(market, application, "checker", "check")
    review(market, application, "approver", "approve")
    grant = balance_of(market)
    assert (grant.awarded_fen, grant.grant.state) == (20_000, GrantState.ACTIVE)
    with market.sessions.read() as session:
        stored = session.get_one(Application, application.id)
        assert [paper["digest"] for paper in stored.evidence] == [PAPER["digest"], "d" * 64]
        assert [row.round for row in list_reviews(session, application.id)] == [1, 2, 2]


def test_only_the_firm_itself_completes_withdraws_or_appeals(market: Market) -> None:
    application = apply(market)
    with market.sessions.write() as session:
        for act in (service.withdraw_application,):
            with pytest.raises(NotFoundError):
                act(session, market.actors["rival"], application.id, now=market.now)
        with pytest.raises(NotFoundError):
            service.appeal_application(session, market.actors["rival"], application.id, reason="mine", now=market.now)


def test_a_withdrawn_application_frees_its_contract(market: Market) -> None:
    application = apply(market)
    with market.sessions.write() as session:
        service.withdraw_application(session, market.actors["factory"], application.id, now=market.now)
        with pytest.raises(ConflictError, match="withdrawn"):
            service.withdraw_application(session, market.actors["factory"], application.id, now=market.now)
    assert apply(market).id != application.id


def test_two_firms_may_use_the_same_contract_number(market: Market) -> None:
    assert apply(market).id != apply(market, "rival").id


def test_an_appeal_is_heard_once_by_a_fresh_person_and_still_needs_two(market: Market) -> None:
    application = apply(market)
    review(market, application, "checker", "refuse", "wrong contract")
    with market.sessions.write() as session:
        service.appeal_application(
            session, market.actors["factory"], application.id, reason="it is the right one", now=market.now
        )
    with pytest.raises(FourEyesError):
        review(market, application, "checker", "check")
    # Nobody had checked it, so the hearing is only the first of the two.
    with market.sessions.read() as session:
        stored = session.get_one(Application, application.id)
        assert [str(step) for step in list_decisions(stored, list_reviews(session, stored.id))] == ["check", "refuse"]
    with pytest.raises(ConflictError, match="appealed"):
        review(market, application, "operator", "approve")
    review(market, application, "operator", "check")
    with pytest.raises(FourEyesError):
        review(market, application, "checker", "approve")
    review(market, application, "approver", "approve")
    assert balance_of(market).awarded_fen == 30_000


def test_who_decided_before_and_who_made_whose_account_keeps_nobody_from_hearing_an_appeal(market: Market) -> None:
    application = apply(market)
    review(market, application, "checker", "refuse", "wrong contract")
    with market.sessions.write() as session:
        session.get_one(User, market.actors["approver"].user_id).added_by = market.actors["checker"].user_id
        service.appeal_application(session, market.actors["factory"], application.id, reason="no", now=market.now)
    review(market, application, "operator", "check")
    review(market, application, "approver", "approve")
    assert balance_of(market).awarded_fen == 30_000


def test_the_two_of_one_round_are_of_different_hands_though_one_of_them_hears_an_appeal(market: Market) -> None:
    application = apply(market)
    review(market, application, "checker", "check")
    review(market, application, "operator", "refuse", "too much")
    with market.sessions.write() as session:
        session.get_one(User, market.actors["approver"].user_id).added_by = market.actors["checker"].user_id
        service.appeal_application(session, market.actors["factory"], application.id, reason="no", now=market.now)
    with pytest.raises(SameHandError):
        review(market, application, "approver", "approve")


def test_an_appeal_against_the_second_person_is_decided_by_a_third(market: Market) -> None:
    application = apply(market)
    review(market, application, "checker", "check")
    review(market, application, "approver", "refuse", "too much")
    with market.sessions.write() as session:
        service.appeal_application(session, market.actors["factory"], application.id, reason="no", now=market.now)
    for who in ("checker", "approver"):
        with pytest.raises(FourEyesError):
            review(market, application, who, "approve")
    review(market, application, "operator", "refuse", "still too much")
    with market.sessions.write() as session, pytest.raises(ConflictError, match="once"):
        service.appeal_application(session, market.actors["factory"], application.id, reason="no", now=market.now)


def test_exclusive_programmes_do_not_share_a_contract(market: Market) -> None:
    with market.sessions.write() as session:
        found = service.find_programme(session, "model")
        rule = service.rule_of_day(session, found.id, market.now)
        assert rule is not None
        body = {**rule.body, "exclusive_with": ["compute"]}
        drafted = service.draft_rule(
            session, market.actors["checker"], programme="model", body=body, effective_from_at=market.now,
            effective_to_at=None, source="test", now=market.now,
        )  # fmt: skip
        service.approve_rule(session, market.actors["approver"], drafted.id, now=market.now)
    apply(market, programme="compute")
    with pytest.raises(ExclusiveProgrammeError, match="Compute voucher"):
        apply(market, programme="model")
    apply(market, programme="model", contract_no="HT-2")


def test_what_is_left_lapses_into_the_fund_by_a_posting(market: Market) -> None:
    before = fund_left(market, "compute")
    grant = market.award("compute", 20_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market)
    assert grant.lapse_at == shanghai(2027, 1, 1) + timedelta(days=60)
    with market.sessions.write() as session:
        assert service.lapse_grants(session, grant.lapse_at - timedelta(seconds=1)) == 0
        assert service.lapse_grants(session, grant.lapse_at) == 1
        assert service.lapse_grants(session, grant.lapse_at) == 0
    row = balance_of(market, "compute")
    assert (row.settled_fen, row.left_fen, row.returned_fen) == (600, 0, 19_400)
    assert row.grant.state is GrantState.LAPSED
    assert fund_left(market, "compute") == before - 600
    assert_books(market)


def test_revocation_lets_held_money_settle_and_returns_the_rest_later(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    quote = market.quote(offer="private")
    with market.sessions.write() as session:
        order = orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key="k", now=market.now)
        with pytest.raises(InvalidValueError):
            service.revoke_grant(session, market.actors["operator"], grant.id, reason=" ", now=market.now)
        with pytest.raises(ForbiddenError):
            service.revoke_grant(session, market.actors["auditor"], grant.id, reason="x", now=market.now)
        service.revoke_grant(session, market.actors["operator"], grant.id, reason="false papers", now=market.now)
        with pytest.raises(GrantEndedError):
            service.revoke_grant(session, market.actors["operator"], grant.id, reason="again", now=market.now)
    held = balance_of(market)
    assert (held.held_fen, held.left_fen, held.returned_fen) == (2100, 0, 27_900)
    assert [line.voucher_fen for line in market.quote(offer="private").lines] == [0, 0]
    with market.sessions.write() as session:
        orders.settle_order(session, order.id, metered={"device_ms": 0, "trained_tokens": 1_000_000}, now=market.now)
        assert service.lapse_grants(session, market.now) == 1
    row = balance_of(market)
    assert (row.held_fen, row.settled_fen, row.left_fen, row.returned_fen) == (0, 1500, 0, 28_500)
    assert_books(market)


def test_money_of_a_lapsed_grant_no_longer_counts_against_the_cap(market: Market) -> None:
    grant = market.award("model", YEAR_CAP)
    with pytest.raises(CapExceededError):
        market.award("model", 100, contract_no="B")
    with market.sessions.write() as session:
        service.revoke_grant(session, market.actors["operator"], grant.id, reason="asked for", now=market.now)
    market.award("model", YEAR_CAP, contract_no="C")


def test_a_claw_back_is_noted_once_and_an_ended_grant_passes_it_to_the_fund(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    before = fund_left(market)
    with market.sessions.write() as session:
        service.revoke_grant(session, market.actors["operator"], grant.id, reason="false papers", now=market.now)
        account = session.get_one(Account, grant.account_id)
        payable = session.scalars(
            select(Account).where(Account.organisation_id == "platform", Account.kind == "platform_income")
        ).one()
        posted = Posted("correction", "cor_1", "usr_x", market.now)
        post_group(session, "cor_1", [move("tra_cor", payable, account, amount_fen=100, code="corrected")], posted)
        for _ in range(2):
            service.claw_back(
                session, grant_id=grant.id, charge_id="chg_1", correction_id="cor_1", amount_fen=100,
                reason="metered too much", now=market.now,
            )  # fmt: skip
        rows = list(session.scalars(select(ClawBack)))
        assert [(row.amount_fen, row.to_fund) for row in rows] == [(100, True)]
    row = balance_of(market)
    assert (row.settled_fen, row.left_fen, row.returned_fen) == (2000, 0, 28_000)
    assert fund_left(market) == before + 28_000
    assert_books(market)


def test_every_step_is_an_event_with_its_person(market: Market) -> None:
    application = apply(market)
    review(market, application, "checker", "check")
    review(market, application, "approver", "approve")
    with market.sessions.write() as session:
        grant = session.scalars(select(Grant)).one()
        service.revoke_grant(session, market.actors["operator"], grant.id, reason="test", now=market.now)
    with market.sessions.read() as session:
        rows = session.scalars(select(Event).where(Event.subject.in_((application.id, grant.id))).order_by(Event.seq))
        found = [(row.topic, row.actor_id) for row in rows]
    person = {name: actor.user_id for name, actor in market.actors.items()}
    assert found == [
        ("application.submitted", person["factory"]),
        ("application.checked", person["checker"]),
        ("application.approved", person["approver"]),
        ("grant.awarded", person["approver"]),
        ("grant.revoked", person["operator"]),
        ("grant.returned", "system"),
    ]


def accept(market: Market, quote: Quote, key: str) -> str:
    with market.sessions.write() as session:
        return orders.accept_quote(session, market.actors["factory"], quote.id, idempotency_key=key, now=market.now).id


def held_fen(market: Market, programme: str) -> tuple[int, int]:
    """Return what is held of the firm's cash and of its grant of a programme."""
    with market.sessions.read() as session:
        return orders.wallet(session, market.owner("factory")).held_fen, balance_of(market, programme).held_fen


def test_a_quote_of_last_year_holds_nothing_of_last_years_voucher(market: Market) -> None:
    market.award("compute", 20_000)
    market.fund("factory", 10_000, "bank-1")
    market.now = shanghai(2026, 12, 31, 23, 50)
    late, in_time = market.quote(), market.quote()
    assert [line.voucher_fen for line in late.lines] == [600, 0]
    market.now = shanghai(2026, 12, 31, 23, 59)
    accept(market, in_time, "in-time")
    market.now = shanghai(2027, 1, 1, 0, 5)
    before = held_fen(market, "compute")
    with pytest.raises(QuoteStaleError, match="period 2026; today is in 2027"):
        accept(market, late, "late")
    assert held_fen(market, "compute") == before == (3601, 600)
    fresh = market.quote()
    assert fresh.voucher_fen == 0
    accept(market, fresh, "late")  # the key is free: nothing was ordered with it
    assert held_fen(market, "compute") == (3601 + 4201, 600)
    assert_books(market)


def test_a_quote_on_a_grant_revoked_since_holds_nothing_even_of_money_that_came_back(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    first, second = market.quote(offer="private"), market.quote(offer="private")
    order_id = accept(market, first, "first")
    with market.sessions.write() as session:
        service.revoke_grant(session, market.actors["operator"], grant.id, reason="false papers", now=market.now)
    with market.sessions.write() as session:
        orders.refund_order(session, order_id, fault="provider", reason_code="power", now=market.now)
    assert balance_of(market).left_fen == 2100  # until it goes back to the fund
    with pytest.raises(QuoteStaleError, match="is revoked"):
        accept(market, second, "second")
    assert held_fen(market, "model") == (0, 0)
    assert_books(market)
