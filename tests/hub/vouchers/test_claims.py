"""Claims: each fen of used voucher money once, backed by papers, with a pack of the same bytes each time."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from hub.claims import service
from hub.claims.rules import ClaimStepError, DifferenceUnexplainedError, NothingToClaimError
from hub.claims.tables import Claim, ClaimLine
from hub.errors import ForbiddenError, FourEyesError, InvalidValueError, NotFoundError
from hub.filings.service import withdraw_filing
from hub.filings.tables import Filing
from hub.ledger.movements import reverse
from hub.ledger.service import Posted, find_account, post_group
from hub.ledger.tables import PLATFORM, AccountKind, Transfer
from hub.orders import service as orders
from hub.orders.rules import FilingEndedError
from hub.organisations.ownership import declare_owner
from hub.organisations.tables import OwnerKind
from hub.vouchers.papers import InvoiceUsedError, withdraw_paper
from hub.vouchers.related import rule_on_pair
from hub.vouchers.service import LineToCover, find_cover
from hub.vouchers.tables import Grant, Verdict
from registry.store import FolderStore
from tests.hub.money.market import Market
from tests.hub.vouchers.steps import add_invoice, apply, assert_books, buy, draft, review


@pytest.fixture
def used(market: Market) -> Market:
    """The factory has used 2100 fen of its model voucher on one fine-tune, and handed in the invoice."""
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    add_invoice(market, grant.id)
    return market


def build(market: Market, claim: Claim, home: Path) -> tuple[str, bytes]:
    target = io.BytesIO()
    with market.sessions.read() as session:
        digest = service.write_pack(session, FolderStore(home), session.get_one(Claim, claim.id), target)
    return digest, target.getvalue()


def submit(market: Market, claim: Claim, who: str = "approver", digest: str = "a" * 64) -> None:
    with market.sessions.write() as session:
        service.submit_claim(session, market.actors[who], claim.id, pack_sha256=digest, now=market.now)


def reverse_voucher(market: Market) -> None:
    """Take one settled voucher transfer back into its grant, as a correction does."""
    with market.sessions.write() as session:
        transfer = session.scalars(
            select(Transfer).where(Transfer.code == "voucher_settled").order_by(Transfer.seq)
        ).first()
        assert transfer is not None
        income = find_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK)
        assert income is not None
        # The clearing account is empty, so the money comes from the bank here.
        back = reverse("tra_back", transfer, code="corrected")
        movement = replace(back, debit_id=income.id, reverses_id=None)
        post_group(session, "grp_back", [movement], Posted("correction", "cor_1", "usr_x", market.now))


def test_a_claim_runs_from_draft_to_reconciled(used: Market) -> None:
    claim = draft(used)
    assert (claim.amount_fen, claim.number, claim.state) == (2100, 1, "drafted")
    with pytest.raises(FourEyesError):
        submit(used, claim, "checker")
    submit(used, claim)
    with used.sessions.write() as session:
        operator = used.actors["operator"]
        with pytest.raises(InvalidValueError, match="reference"):
            service.record_payment(session, operator, claim.id, paid_fen=2000, reference=" ", now=used.now)
        with pytest.raises(InvalidValueError, match="direction"):
            service.record_payment(session, operator, claim.id, paid_fen=-5, reference="r", now=used.now)
        service.record_payment(session, operator, claim.id, paid_fen=2000, reference="TR-1", now=used.now)
        with pytest.raises(ClaimStepError):
            service.record_payment(session, operator, claim.id, paid_fen=2000, reference="TR-1", now=used.now)
        with pytest.raises(DifferenceUnexplainedError, match="-100"):
            service.reconcile_claim(session, operator, claim.id, reason="", now=used.now)
        done = service.reconcile_claim(session, operator, claim.id, reason="authority caps at 2000", now=used.now)
        assert (done.state, done.ended_reason) == ("reconciled", "authority caps at 2000")
        bank = find_account(session, organisation_id=PLATFORM, kind=AccountKind.BANK)
        assert bank is not None
        assert bank.balance_fen == -12_000
    assert_books(used)


def test_no_fen_is_claimed_twice(used: Market) -> None:
    claim = draft(used)
    with pytest.raises(NothingToClaimError):
        draft(used)
    with used.sessions.read() as session:
        lines = service.list_lines(session, claim.id)
    copied = {column.key: getattr(lines[0], column.key) for column in ClaimLine.__table__.columns}
    with pytest.raises(IntegrityError), used.sessions.write() as session:
        session.add(ClaimLine(**{**copied, "id": "cln_copy", "position": 99}))


def test_a_withdrawn_draft_frees_its_money_and_a_submitted_one_stays(used: Market) -> None:
    claim = draft(used)
    with used.sessions.write() as session:
        with pytest.raises(InvalidValueError):
            service.withdraw_claim(session, used.actors["checker"], claim.id, reason="", now=used.now)
        service.withdraw_claim(session, used.actors["checker"], claim.id, reason="too early", now=used.now)
    again = draft(used)
    assert (again.amount_fen, again.number) == (2100, 2)
    submit(used, again)
    with used.sessions.write() as session, pytest.raises(ClaimStepError):
        service.withdraw_claim(session, used.actors["checker"], again.id, reason="x", now=used.now)


def test_what_the_authority_refuses_can_be_claimed_again(used: Market, tmp_path: Path) -> None:
    claim = draft(used)
    with used.sessions.write() as session, pytest.raises(ClaimStepError, match="drafted and cannot become refused"):
        service.refuse_claim(session, used.actors["operator"], claim.id, reason="x", now=used.now)
    digest, content = build(used, claim, tmp_path)
    submit(used, claim, digest=digest)
    with used.sessions.write() as session:
        for who in ("factory", "auditor"):
            with pytest.raises(ForbiddenError):
                service.refuse_claim(session, used.actors[who], claim.id, reason="x", now=used.now)
        with pytest.raises(InvalidValueError, match="with a reason"):
            service.refuse_claim(session, used.actors["operator"], claim.id, reason=" ", now=used.now)
        refused = service.refuse_claim(session, used.actors["operator"], claim.id, reason="form 3 lacks", now=used.now)
        assert (refused.state, refused.ended_reason, refused.pack_sha256) == ("refused", "form 3 lacks", digest)
        with pytest.raises(ClaimStepError):
            service.record_payment(session, used.actors["operator"], claim.id, paid_fen=1, reference="r", now=used.now)
    assert build(used, claim, tmp_path) == (digest, content)
    with used.sessions.read() as session:
        states = {found.state for _, found in service.list_own_lines(session, used.owner("factory"))}
    assert states == {"refused"}
    again = draft(used, period="2026-11-01--2026-11-30")
    assert (again.number, again.amount_fen) == (2, 2100)
    assert_books(used)


def test_money_without_an_invoice_waits_and_says_why(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    with pytest.raises(NothingToClaimError, match="2100 fen are left out, first because: invoice missing for 2026-11"):
        draft(market)
    add_invoice(market, grant.id)
    assert draft(market).amount_fen == 2100


def test_an_invoice_counts_once_and_a_wrong_one_can_be_taken_out(market: Market) -> None:
    first = market.award("model", 30_000)
    second = market.award("compute", 30_000)
    paper = add_invoice(market, first.id)
    with pytest.raises(InvoiceUsedError):
        add_invoice(market, second.id)
    with market.sessions.write() as session:
        with pytest.raises(NotFoundError):
            withdraw_paper(session, market.actors["rival"], paper, now=market.now)
        withdraw_paper(session, market.actors["factory"], paper, now=market.now)
    add_invoice(market, second.id)


def test_related_parties_are_left_out_until_cleared(market: Market) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    add_invoice(market, grant.id)
    with market.sessions.write() as session:
        for who in ("factory", "provider"):
            declare_owner(
                session, market.actors[who], market.owner(who), kind=OwnerKind.LEGAL_PERSON, name="王建国",
                code="", share_bp=None, now=market.now,
            )  # fmt: skip
    claim = draft(market)
    # The provider's hour is left out, the operator's tuning is claimed.
    assert claim.amount_fen == 1500
    assert [(item["amount_fen"], item["code"]) for item in claim.left_out] == [(600, "related_parties")]
    assert "王建国" in claim.left_out[0]["zh"]
    with market.sessions.write() as session:
        rule_on_pair(
            session, market.actors["operator"], market.owner("factory"), market.owner("provider"),
            verdict=Verdict.CLEARED, reason="namesakes", now=market.now,
        )  # fmt: skip
    assert draft(market).amount_fen == 600


def test_money_taken_back_after_a_claim_is_netted_in_the_next(used: Market) -> None:
    submit(used, draft(used))
    reverse_voucher(used)
    claim = draft(used)
    assert claim.amount_fen == -600
    submit(used, claim)
    with used.sessions.write() as session:
        service.record_payment(
            session, used.actors["operator"], claim.id, paid_fen=-600, reference="TR-2", now=used.now
        )
    assert_books(used)


def test_the_pack_has_everything_and_the_same_bytes_each_time(used: Market, tmp_path: Path) -> None:
    claim = draft(used)
    digest, content = build(used, claim, tmp_path / "store")
    submit(used, claim, digest=digest)
    assert build(used, claim, tmp_path / "store") == (digest, content)
    assert hashlib.sha256(content).hexdigest() == digest
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        manifest = json.loads(archive.read("manifest.json"))
        listed = [line.split("  ") for line in archive.read("SHA256SUMS").decode().splitlines()]
        sums = {name: sha256 for sha256, name in listed}
        for name in names:
            if name != "SHA256SUMS":
                assert hashlib.sha256(archive.read(name)).hexdigest() == sums[name]
        lines = archive.read("lines.csv").decode().splitlines()
        meters = [json.loads(archive.read(name)) for name in names if name.startswith("meter/")]
    assert {name.split("/")[0] for name in names} == {
        "SHA256SUMS", "filings", "lines.csv", "manifest.json", "meter", "payments", "rules",
    }  # fmt: skip
    assert manifest["claim"]["amount_fen"] == 2100
    assert {paper["kind"] for paper in manifest["papers"]} == {"contract", "invoice", "filing"}
    # These tests keep no documents, so each one is named as a gap.
    assert len(manifest["gaps"]) == 3
    assert manifest["demonstration"] is True
    assert len(lines) == 3
    assert ",F-1" in lines[1]
    assert sum(meter["voucher_fen"] for meter in meters) == 2100
    assert all(meter["order"]["quote_sha256"] for meter in meters)


def test_a_kept_document_goes_into_the_pack(market: Market, tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "evidence.pdf").write_bytes(b"%PDF-1.4 contract")
    store = FolderStore(tmp_path / "store")
    digest = store.add_folder(folder).digest
    application = apply(market, evidence=[{"kind": "contract", "name": "../../合同.pdf", "digest": digest}])
    review(market, application, "checker", "check")
    review(market, application, "approver", "approve")
    market.fund("factory", 10_000, "bank-1")
    buy(market, offer="private")
    with market.sessions.read() as session:
        grant_id = session.scalars(select(Grant.id)).one()
    add_invoice(market, grant_id)
    claim = draft(market)
    _, content = build(market, claim, tmp_path / "store")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        papers = [name for name in archive.namelist() if name.startswith("papers/")]
        assert [name.split("/")[-1] for name in papers] == [f"contract-{digest[:16]}.pdf"]
        assert archive.read(papers[0]) == b"%PDF-1.4 contract"


def test_calls_and_top_ups_are_claimed_with_their_records(market: Market, tmp_path: Path) -> None:
    grant = market.award("model", 30_000)
    market.fund("factory", 10_000, "bank-1")
    allowance = market.draw("k")
    market.send(market.record(allowance.allowance_id, "req_1", (1_000_000, 0, 100_000)))  # type: ignore[union-attr]
    market.close(allowance.allowance_id, through_seq=1)  # type: ignore[union-attr]
    market.settle()
    add_invoice(market, grant.id)
    claim = draft(market)
    assert claim.amount_fen == 140
    with zipfile.ZipFile(io.BytesIO(build(market, claim, tmp_path)[1])) as archive:
        meters = [json.loads(archive.read(name)) for name in archive.namelist() if name.startswith("meter/")]
        filings = [name for name in archive.namelist() if name.startswith("filings/")]
    assert [call["prompt_tokens"] for meter in meters for call in meter["calls"]] == [1_000_000]
    assert len(filings) == 1


def test_claims_are_the_operators_and_the_auditor_reads_them(used: Market) -> None:
    for who in ("factory", "auditor", "provider"):
        with pytest.raises(ForbiddenError):
            draft(used, who)
    claim = draft(used)
    with used.sessions.read() as session:
        assert service.find_claim(session, used.actors["auditor"], claim.id).id == claim.id
        with pytest.raises(NotFoundError):
            service.find_claim(session, used.actors["factory"], claim.id)
        assert service.list_own_lines(session, used.owner("factory")) == []
    submit(used, claim)
    with used.sessions.read() as session:
        assert len(service.list_own_lines(session, used.owner("factory"))) == 2
        assert service.list_own_lines(session, used.owner("rival")) == []


def test_bad_input_is_refused_and_the_books_stay(used: Market) -> None:
    for programme, period, error in (
        ("coffee", "2026-11", NotFoundError),
        ("model", "november", InvalidValueError),
        ("model", "2027-01", NothingToClaimError),
        ("edge_node", "2026-11", NothingToClaimError),
    ):
        with pytest.raises(error):
            draft(used, programme=programme, period=period)
    assert_books(used)


def test_the_database_keeps_four_eyes_and_lines(used: Market) -> None:
    claim = draft(used)
    for statement in (
        "UPDATE claims SET submitted_by = drafted_by WHERE id = :id",
        "UPDATE claims SET amount_fen = 1 WHERE id = :id",
        "UPDATE claim_lines SET amount_fen = 1 WHERE claim_id = :id",
        "DELETE FROM claims WHERE id = :id",
    ):
        with pytest.raises(DatabaseError), used.sessions.write() as session:
            session.execute(text(statement), {"id": claim.id})


def test_a_filing_withdrawn_stops_new_vouchers_and_leaves_what_was_settled(used: Market) -> None:
    with used.sessions.write() as session:
        filing = session.scalars(select(Filing)).one()
        withdraw_filing(session, used.actors["operator"], filing.id, reason="authority's letter", now=used.now)
    assert draft(used).amount_fen == 2100
    line = LineToCover(used.owner("factory"), "trained_tokens", 1000, filed_base=False, via_city_platform=False)
    with used.sessions.read() as session:
        assert [item.code for item in find_cover(session, line, used.now).refusals] == ["base_not_filed"]
    quote = used.quote(offer="private")
    with used.sessions.write() as session, pytest.raises(FilingEndedError):
        orders.accept_quote(session, used.actors["factory"], quote.id, idempotency_key="k2", now=used.now)
