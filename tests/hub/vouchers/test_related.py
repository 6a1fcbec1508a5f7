"""Related parties: declared owners and money that goes round block vouchers until an officer has decided."""

from datetime import timedelta

import pytest

from hub.errors import ForbiddenError, InvalidValueError, NotFoundError
from hub.ledger.movements import move
from hub.ledger.service import Posted, open_account, post_group
from hub.ledger.tables import AccountKind
from hub.organisations.ownership import confirm_owner, declare_owner, end_owner, find_shared_owners, list_unconfirmed
from hub.organisations.rules import make_demo_uscc
from hub.organisations.service import find_organisation
from hub.organisations.tables import Owner, OwnerKind
from hub.vouchers import service
from hub.vouchers.related import Relation, find_relation, rule_on_pair
from hub.vouchers.service import LineToCover
from hub.vouchers.tables import Verdict
from tests.hub.money.market import Market


def declare(market: Market, who: str, name: str, *, by: str | None = None, **more: object) -> Owner:
    facts = {"kind": OwnerKind.LEGAL_PERSON, "code": "", "share_bp": None, **more}
    with market.sessions.write() as session:
        return declare_owner(
            session,
            market.actors[by or who],
            market.owner(who),
            name=name,
            now=market.now,
            **facts,  # type: ignore[arg-type]  # the test's own words
        )


def relation(market: Market, buyer: str = "factory", seller: str = "provider") -> Relation:
    with market.sessions.read() as session:
        return find_relation(session, market.owner(buyer), market.owner(seller), window_days=90, now=market.now)


def decide(market: Market, verdict: Verdict, who: str = "operator", reason: str = "looked at the papers") -> None:
    with market.sessions.write() as session:
        rule_on_pair(
            session, market.actors[who], market.owner("factory"), market.owner("provider"),
            verdict=verdict, reason=reason, now=market.now,
        )  # fmt: skip


def pay(market: Market, buyer: str, seller: str, days_ago: int = 0) -> None:
    """Let one firm's purchase pay another, as settlements do: out of its clearing account into a payable."""
    at = market.now - timedelta(days=days_ago)
    with market.sessions.write() as session:
        cash = open_account(session, organisation_id=market.owner(buyer), kind=AccountKind.FIRM_CASH, now=at)
        clearing = open_account(session, organisation_id=market.owner(buyer), kind=AccountKind.CLEARING, now=at)
        payable = open_account(session, organisation_id=market.owner(seller), kind=AccountKind.PAYABLE, now=at)
        key = f"{buyer}-{seller}-{days_ago}"
        moves = [
            move(f"in-{key}", cash, clearing, amount_fen=10, code="paid"),
            move(f"out-{key}", clearing, payable, amount_fen=10, code="income_seller"),
        ]
        post_group(session, f"grp-{key}", moves, Posted("order", "ord_x", "usr_x", at))


def covers(market: Market) -> tuple[list[str], list[str]]:
    line = LineToCover(
        market.owner("factory"), "device_ms", 1000, filed_base=True, via_city_platform=True,
        seller_id=market.owner("provider"),
    )  # fmt: skip
    with market.sessions.read() as session:
        answer = service.find_cover(session, line, market.now)
    return [cover.programme for cover in answer.covers], [refusal.code for refusal in answer.refusals]


def test_strangers_are_not_related(market: Market) -> None:
    declare(market, "factory", "王建国")
    declare(market, "provider", "李红")
    assert (relation(market).signs, relation(market).blocks) == ((), False)


@pytest.mark.parametrize(
    ("mine", "theirs", "sign"),
    [
        ({"name": "王建国"}, {"name": "王建国"}, "legal_person:王建国"),
        (
            {"name": "王建国", "code": "12345X"},
            {"name": "王建国", "code": "12345x", "kind": OwnerKind.HOLDER, "share_bp": 3000},
            "holder:王建国",
        ),
        (
            {"name": "Mother Ltd", "code": make_demo_uscc(77), "kind": OwnerKind.HOLDER},
            {"name": "Mother Limited", "code": make_demo_uscc(77), "kind": OwnerKind.HOLDER},
            "holder:Mother Ltd",
        ),
    ],
)
def test_shared_owners_are_signs(market: Market, mine: dict[str, object], theirs: dict[str, object], sign: str) -> None:
    declare(market, "factory", **mine)  # type: ignore[arg-type]
    declare(market, "provider", **theirs)  # type: ignore[arg-type]
    assert [found.key for found in relation(market).signs] == [sign]
    assert relation(market).blocks


def test_namesakes_with_other_codes_are_not_related(market: Market) -> None:
    declare(market, "factory", "王建国", code="123456")
    declare(market, "provider", "王建国", code="654321")
    assert not relation(market).blocks


def test_a_firm_that_holds_the_other_is_related_either_way(market: Market) -> None:
    with market.sessions.read() as session:
        uscc = find_organisation(session, market.owner("factory")).uscc
    declare(market, "provider", "factory", code=uscc, kind=OwnerKind.HOLDER)
    assert relation(market).blocks
    assert relation(market, "provider", "factory").blocks


def test_a_relation_stops_the_voucher_with_a_reason_until_an_officer_clears_it(market: Market) -> None:
    market.award("compute", 30_000)
    assert covers(market)[0] == ["compute"]
    declare(market, "factory", "王建国")
    declare(market, "provider", "王建国")
    assert covers(market) == ([], ["related_parties", "related_parties"])
    lines = market.quote().lines
    assert [line.voucher_fen for line in lines] == [0, 0]
    assert "王建国" in str(lines[0].notes)
    decide(market, Verdict.CLEARED)
    assert covers(market)[0] == ["compute"]
    # A clearance is for the signs that stood: a new one blocks again.
    declare(market, "factory", "李红", kind=OwnerKind.HOLDER)
    declare(market, "provider", "李红", kind=OwnerKind.HOLDER)
    assert covers(market)[0] == []


def test_an_officer_may_find_a_relation_without_any_sign(market: Market) -> None:
    market.award("compute", 30_000)
    decide(market, Verdict.RELATED, reason="same address, same telephone")
    assert covers(market)[0] == []
    decide(market, Verdict.CLEARED, reason="moved out")
    assert covers(market)[0] == ["compute"]


def test_a_decision_is_an_officers_with_a_reason(market: Market) -> None:
    with pytest.raises(ForbiddenError):
        decide(market, Verdict.CLEARED, who="auditor")
    with pytest.raises(InvalidValueError, match="reason"):
        decide(market, Verdict.CLEARED, reason="  ")


def test_money_that_goes_round_within_the_window_is_a_sign(market: Market) -> None:
    market.fund("provider", 1000, "b1")
    market.fund("rival", 1000, "b2")
    pay(market, "provider", "factory", days_ago=91)
    assert not relation(market).blocks
    pay(market, "provider", "factory", days_ago=89)
    assert [sign.key for sign in relation(market).signs] == ["circular_flow"]


def test_money_that_comes_back_through_a_third_firm_is_a_sign(market: Market) -> None:
    market.fund("provider", 1000, "b1")
    market.fund("rival", 1000, "b2")
    pay(market, "provider", "rival")
    assert not relation(market).blocks
    pay(market, "rival", "factory")
    assert [sign.key for sign in relation(market).signs] == [f"circular_flow:{market.owner('rival')}"]
    assert "rival" in relation(market).signs[0].en


def test_owners_are_declared_by_the_firm_and_confirmed_by_the_operator(market: Market) -> None:
    owner = declare(market, "factory", "王建国")
    with market.sessions.write() as session:
        assert [row.id for row in list_unconfirmed(session)] == [owner.id]
        with pytest.raises(ForbiddenError):
            confirm_owner(session, market.actors["factory"], owner.id, now=market.now)
        confirm_owner(session, market.actors["operator"], owner.id, now=market.now)
        assert list_unconfirmed(session) == []
        with pytest.raises(ForbiddenError, match="confirmed"):
            end_owner(session, market.actors["factory"], owner.id, now=market.now)
        end_owner(session, market.actors["operator"], owner.id, now=market.now)
        assert find_shared_owners(session, market.owner("factory"), market.owner("provider")) == []
    with pytest.raises(NotFoundError):
        declare(market, "factory", "x", by="rival")
    with pytest.raises(InvalidValueError, match="code"):
        declare(market, "factory", "x", code="12")
