"""Vouchers: programmes as data, four eyes by person, caps and funds, and which voucher pays for a line."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from hub.actor import Actor, Role
from hub.errors import ConflictError, ForbiddenError, FourEyesError, InvalidValueError
from hub.ledger.audit import check_books
from hub.vouchers import service
from hub.vouchers.programmes import SHIPPED, fund_account, release_due_tranches, rule_of_day
from hub.vouchers.rules import (
    CapExceededError,
    FundExhaustedError,
    ProgrammeClosedError,
    RuleRefusedError,
    period_of,
    read_body,
)
from hub.vouchers.service import Cover, CoverAnswer, LineToCover
from tests.hub.money.market import PAPER, Market

YUAN = 100


def ask(market: Market, meter: str, amount_fen: int, **facts: bool) -> CoverAnswer:
    line = LineToCover(
        market.owner("factory"),
        meter,
        amount_fen,
        filed_base=facts.get("filed", True),
        via_city_platform=facts.get("city", True),
    )
    with market.sessions.read() as session:
        return service.find_cover(session, line, market.now)


def draft(market: Market, actor: Actor, **changes: object) -> str:
    with market.sessions.write() as session:
        programme = service.find_programme(session, "model")
        rule = rule_of_day(session, programme.id, market.now)
        assert rule is not None
        return service.draft_rule(
            session,
            actor,
            programme="model",
            body={**rule.body, **changes},
            effective_from_at=market.now,
            effective_to_at=None,
            source="test",
            now=market.now,
        ).id


def test_shipped_programmes_are_those_of_the_papers() -> None:
    shipped = {item["code"]: item for item in json.loads(SHIPPED.read_text(encoding="utf-8"))}
    assert len(shipped) == 7
    model, compute, edge = (read_body(shipped[code]["rule"]["body"]) for code in ("model", "compute", "edge_node"))
    assert (model.per_firm_cap_fen, model.cap_period, model.needs_filed_base) == (1_000_000 * YUAN, "lifetime", True)
    assert "share" in model.our_defaults
    assert (compute.share and (compute.share.num, compute.share.den)) == (1, 2)
    assert (compute.cap_period, compute.needs_city_platform, compute.needs_filed_base) == ("calendar_year", True, False)
    assert (edge.share and (edge.share.num, edge.share.den)) == (3, 10)
    assert [tranche["amount_fen"] for tranche in shipped["compute"]["tranches"]] == [
        15_000_000 * YUAN,
        35_000_000 * YUAN,
    ]
    assert shipped["scenario_model"]["fund_fen"] == 300_000_000 * YUAN


def test_seeding_twice_changes_nothing_and_needs_two_persons(market: Market) -> None:
    with market.sessions.write() as session:
        before = [row.id for row in service.list_programmes(session)]
        service.seed_programmes(session, "usr_a", "usr_b", market.now)
        assert [row.id for row in service.list_programmes(session)] == before
        with pytest.raises(FourEyesError):
            service.seed_programmes(session, "usr_a", "usr_a", market.now)


def test_funds_open_with_what_is_released(market: Market) -> None:
    with market.sessions.write() as session:
        compute = service.find_programme(session, "compute")
        assert fund_account(session, compute.id, market.now).balance_fen == 50_000_000 * YUAN
        assert release_due_tranches(session, market.now) == 0
        assert check_books(session) == []


def test_a_tranche_waits_for_its_day(market: Market) -> None:
    with market.sessions.write() as session:
        compute = service.find_programme(session, "compute")
        releases = [tranche.release_at for tranche in service.list_tranches(session, compute.id)]
    assert releases == [datetime(2025, 4, 22, 16, tzinfo=UTC), datetime(2025, 12, 31, 16, tzinfo=UTC)]


def test_award_moves_money_from_the_fund_to_the_firm(market: Market) -> None:
    grant = market.award("model", 30_000)
    with market.sessions.read() as session:
        balance = service.list_grants(session, market.owner("factory"))[0]
        assert (balance.grant.id, balance.awarded_fen, balance.left_fen) == (grant.id, 30_000, 30_000)
        assert grant.period_key == "lifetime"
        assert service.list_grants(session, market.owner("rival")) == []
        assert check_books(session) == []


@pytest.mark.parametrize("who", ["checker", "factory_operator", "applicant_operator"])
def test_four_eyes_are_told_apart_by_person(market: Market, who: str) -> None:
    factory = market.actors["factory"]
    market.actors["factory_operator"] = Actor("usr_other", factory.organisation_id, Role.OPERATOR)
    market.actors["applicant_operator"] = Actor(factory.user_id, market.owner("operator"), Role.OPERATOR)
    with market.sessions.write() as session:
        application = service.apply_for_voucher(
            session, factory, programme="model", asked_fen=100, contract_no="HT", evidence=[PAPER], now=market.now
        )
        market.review(session, application.id, "checker", "check")
        with pytest.raises(FourEyesError):
            market.review(session, application.id, who, "approve")


def test_approval_needs_a_check_first_and_a_refusal_its_reason(market: Market) -> None:
    with market.sessions.write() as session:
        application = service.apply_for_voucher(
            session,
            market.actors["factory"],
            programme="model",
            asked_fen=100,
            contract_no="HT",
            evidence=[PAPER],
            now=market.now,
        )
        with pytest.raises(ConflictError, match="submitted"):
            market.review(session, application.id, "approver", "approve")
        with pytest.raises(InvalidValueError, match="reason"):
            market.review(session, application.id, "checker", "refuse")
        market.review(session, application.id, "checker", "refuse", "invoice missing")
        assert application.state == "refused"
        with pytest.raises(ForbiddenError):
            service.review_application(
                session, market.actors["auditor"], application.id, decision="check", reason="", now=market.now
            )


def test_one_contract_is_subsidised_once_but_may_be_asked_again_after_a_refusal(market: Market) -> None:
    def apply() -> str:
        with market.sessions.write() as session:
            return service.apply_for_voucher(
                session,
                market.actors["factory"],
                programme="model",
                asked_fen=100,
                contract_no="HT",
                evidence=[PAPER],
                now=market.now,
            ).id

    first = apply()
    with pytest.raises(ConflictError, match="HT"):
        apply()
    with market.sessions.write() as session:
        market.review(session, first, "checker", "refuse", "wrong contract")
    assert apply() != first


def test_programme_whose_objects_are_not_held_refuses_with_its_reason(market: Market) -> None:
    with pytest.raises(ProgrammeClosedError, match="does not hold edge nodes"):
        market.award("edge_node", 100)


def test_award_stops_at_the_firms_cap(market: Market) -> None:
    market.award("model", 60_000_000, contract_no="A")
    with pytest.raises(CapExceededError, match="40000000 fen are left"):
        market.award("model", 60_000_000, contract_no="B")
    market.award("model", 40_000_000, contract_no="C")


def test_award_stops_at_the_released_fund(market: Market) -> None:
    with market.sessions.write() as session:
        fund = fund_account(session, service.find_programme(session, "model").id, market.now)
        fund_id = fund.id
        session.execute(
            text("UPDATE ledger_accounts SET debits_posted = credits_posted - 50 WHERE id = :id"), {"id": fund_id}
        )
    with pytest.raises(FundExhaustedError, match="50 fen left"):
        market.award("model", 51)


def test_missing_evidence_and_too_much_asked_are_refused(market: Market) -> None:
    with market.sessions.write() as session:
        for asked, evidence in ((100, []), (100_000_001, [PAPER]), (0, [PAPER])):
            with pytest.raises(InvalidValueError):
                service.apply_for_voucher(
                    session,
                    market.actors["factory"],
                    programme="model",
                    asked_fen=asked,
                    contract_no="HT",
                    evidence=evidence,
                    now=market.now,
                )


def test_compute_voucher_comes_first_and_alone(market: Market) -> None:
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 300, contract_no="B")
    answer = ask(market, "device_ms", 1201)
    assert [(cover.programme, cover.amount_fen) for cover in answer.covers] == [("compute", 300)]
    answer = ask(market, "device_ms", 301)
    assert [(cover.programme, cover.amount_fen) for cover in answer.covers] == [("compute", 150)]


def test_model_voucher_covers_compute_only_where_no_compute_voucher_does(market: Market) -> None:
    market.award("model", 30_000, contract_no="A")
    market.award("compute", 30_000, contract_no="B")
    answer = ask(market, "device_ms", 1201, city=False)
    assert [(cover.programme, cover.amount_fen) for cover in answer.covers] == [("model", 600)]
    assert [refusal.code for refusal in answer.refusals] == ["not_via_city_platform"]


@pytest.mark.parametrize("meter", ["trained_tokens", "prompt", "cached", "completion"])
def test_model_voucher_covers_tuning_and_calls(market: Market, meter: str) -> None:
    market.award("model", 30_000)
    with market.sessions.read() as session:
        covers = service.cover(
            session,
            organisation_id=market.owner("factory"),
            meter=meter,
            amount_fen=999,
            filed_base=True,
            via_city_platform=False,
            now=market.now,
        )
    assert [(cover.programme, cover.amount_fen, cover.share_num, cover.share_den) for cover in covers] == [
        ("model", 499, 1, 2)
    ]


def test_unfiled_base_gets_no_model_voucher_and_the_reason(market: Market) -> None:
    market.award("model", 30_000)
    answer = ask(market, "trained_tokens", 1000, filed=False)
    assert answer.covers == []
    assert [(refusal.programme, refusal.code) for refusal in answer.refusals] == [("model", "base_not_filed")]


def test_last_years_compute_grant_pays_nothing_this_year(market: Market) -> None:
    market.award("compute", 30_000)
    market.now = datetime(2026, 12, 31, 15, 59, tzinfo=UTC)
    assert ask(market, "device_ms", 1000).covers
    market.now += timedelta(minutes=1)  # New Year in Shanghai, still December in UTC
    answer = ask(market, "device_ms", 1000, filed=False)
    assert answer.covers == []
    assert [refusal.code for refusal in answer.refusals] == ["no_grant", "base_not_filed"]


def test_lines_of_one_bill_share_a_grant(market: Market) -> None:
    grant = market.award("model", 600)
    line = LineToCover(market.owner("factory"), "trained_tokens", 1000, True, False, reserved={grant.id: 400})
    with market.sessions.read() as session:
        covers: list[Cover] = service.find_cover(session, line, market.now).covers
    assert [cover.amount_fen for cover in covers] == [200]


def test_rules_change_by_version_and_by_two_persons(market: Market) -> None:
    market.award("model", 30_000)
    rule_id = draft(market, market.actors["checker"], share={"num": 3, "den": 10})
    assert ask(market, "trained_tokens", 1000).covers[0].amount_fen == 500
    with market.sessions.write() as session:
        with pytest.raises(FourEyesError):
            service.approve_rule(session, market.actors["checker"], rule_id, now=market.now)
        service.approve_rule(session, market.actors["approver"], rule_id, now=market.now)
        with pytest.raises(ConflictError):
            service.approve_rule(session, market.actors["operator"], rule_id, now=market.now)
    cover = ask(market, "trained_tokens", 1000).covers[0]
    assert (cover.amount_fen, cover.rule_version_id) == (300, rule_id)


def test_a_refused_draft_says_why_and_never_counts(market: Market) -> None:
    market.award("model", 30_000)
    rule_id = draft(market, market.actors["checker"], share={"num": 3, "den": 10})
    taken_back = draft(market, market.actors["checker"], share={"num": 4, "den": 10})
    with market.sessions.write() as session:
        for who in ("factory", "auditor"):
            with pytest.raises(ForbiddenError):
                service.refuse_rule(session, market.actors[who], rule_id, reason="x", now=market.now)
        with pytest.raises(InvalidValueError, match="needs its reason"):
            service.refuse_rule(session, market.actors["approver"], rule_id, reason=" ", now=market.now)
        refused = service.refuse_rule(session, market.actors["approver"], rule_id, reason="says half", now=market.now)
        assert (refused.state, refused.refusal_reason, refused.approved_by) == ("refused", "says half", None)
        own = service.refuse_rule(session, market.actors["checker"], taken_back, reason="typed wrong", now=market.now)
        assert own.refused_by == own.drafted_by
        steps: list[Callable[..., object]] = [service.approve_rule, partial(service.refuse_rule, reason="x")]
        for step in steps:
            with pytest.raises(ConflictError, match=f"was refused by {market.actors['approver'].user_id}"):
                step(session, market.actors["operator"], rule_id, now=market.now)
    assert ask(market, "trained_tokens", 1000).covers[0].amount_fen == 500
    with market.sessions.write() as session:
        approved = service.rule_of_day(session, service.find_programme(session, "model").id, market.now)
        assert approved is not None
        with pytest.raises(ConflictError, match="was approved by"):
            service.refuse_rule(session, market.actors["approver"], approved.id, reason="x", now=market.now)


def test_broken_rules_are_refused(market: Market) -> None:
    for changes in ({"share": {"num": 3, "den": 2}}, {"eligible_meters": ["coffee"]}, {"colour": "red"}):
        with pytest.raises(RuleRefusedError):
            draft(market, market.actors["checker"], **changes)


def test_the_database_keeps_rules_and_four_eyes(market: Market) -> None:
    rule_id = draft(market, market.actors["checker"])
    for statement in (
        "UPDATE rule_versions SET body = '{}' WHERE id = :id",
        "UPDATE rule_versions SET approved_by = drafted_by, state = 'approved' WHERE id = :id",
        "UPDATE rule_versions SET state = 'refused' WHERE id = :id",
        "UPDATE rule_versions SET state = 'refused', refused_by = 'usr_x' WHERE id = :id",
    ):
        with pytest.raises(DatabaseError), market.sessions.write() as session:
            session.execute(text(statement), {"id": rule_id})


def test_tax_comes_off_before_the_share_and_the_share_is_floored_once(market: Market) -> None:
    market.award("model", 30_000)
    rule_id = draft(market, market.actors["checker"], tax="excl", vat_bp=1300)
    with market.sessions.write() as session:
        service.approve_rule(session, market.actors["approver"], rule_id, now=market.now)
    cover = ask(market, "trained_tokens", 11_301).covers[0]
    # 11301 / 1.13 / 2 = 5000.44 fen; as one fraction 50/113.
    assert (cover.share_num, cover.share_den, cover.amount_fen) == (50, 113, 5000)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tax": "excl"}, "vat_bp"),
        ({"share_base": "actual_paid"}, "share_base"),
        ({"share_base": "verified_investment"}, "share_base"),
        ({"cap_counts": ["settled"]}, "cap_counts"),
    ],
)
def test_words_that_would_change_nothing_are_refused(market: Market, changes: dict[str, object], field: str) -> None:
    with pytest.raises(RuleRefusedError, match=field):
        draft(market, market.actors["checker"], **changes)


def test_a_rule_may_count_its_years_in_another_zone() -> None:
    rule = read_body(json.loads(SHIPPED.read_text(encoding="utf-8"))[1]["rule"]["body"])
    new_year = datetime(2026, 12, 31, 20, tzinfo=UTC)
    assert (period_of(rule, new_year, "Asia/Shanghai"), period_of(rule, new_year, "UTC")) == ("2027", "2026")
