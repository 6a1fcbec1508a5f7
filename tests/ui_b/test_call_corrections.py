"""The operator corrects hosted calls and bills late ones on the settlement desk; both languages, refusals kept."""

from itertools import count

from flask.testing import FlaskClient
from sqlalchemy import select

from hub.clock import to_us
from hub.metering.service import accept_usage
from hub.orders import service as orders
from hub.orders.tables import BillVersion, RatedUsage
from serving import contract
from tests.ui.pages import CHINESE, read_page
from tests.ui.world import World

_serial = count(1)


def make_call(world: World, *, late: bool = False) -> tuple[str, str]:
    """Let the factory call the adapter on sale for some fen; return the request and its bill line (none if late)."""
    name, owner, version = f"ui-{next(_serial)}", world.actors["factory"].organisation_id, world.versions["orders"]
    price, at = version.price_version_id or "", to_us(world.now)
    with world.sessions.write() as session:
        wanted = contract.AllowanceRequest("gw-ui", 1, name, owner, None, price, 400_000_000)
        piece = orders.grant_allowance(session, wanted, world.now)
        assert isinstance(piece, contract.AllowanceGrant)
        record = contract.UsageRecord(
            name, 0, piece.allowance_id, owner, "key_1", None, version.id, "d" * 64, price, "rep_1", 1,
            50_000, 0, 90_000, at, at, contract.EndReason.STOP, contract.UsageStatus.COMPLETE, False,
        )  # fmt: skip
        batch, done = contract.UsageBatch("gw-ui", 1, next(_serial), (record,)), piece.allowance_id
        if late:
            orders.close_allowance(session, contract.AllowanceClose(done, 0, 0), world.now)
        accept_usage(session, batch, world.now, check=lambda fresh: orders.check_records(session, fresh))
        if not late:
            orders.close_allowance(session, contract.AllowanceClose(done, 0, 0), world.now)
        orders.settle_tranches(session, world.now)
        rated = session.get(RatedUsage, (name, 0))
        return name, rated.bill_line_id if rated else ""


def post(client: FlaskClient, **form: str) -> tuple[int, str]:
    answer = client.post("/operator/settlement/call-corrections", data=form)
    return answer.status_code, answer.text


def test_a_refund_of_one_call_is_posted_and_shown(market: World) -> None:
    call, line_id = make_call(market)
    form = {"bill_line_id": line_id, "call_fault": "platform", "calls": call, "call_reason": "engine failed"}
    assert post(market.visit("operator"), **form)[0] == 302
    with market.sessions.read() as session:
        version = session.scalars(select(BillVersion).where(BillVersion.bill_line_id == line_id)).one()
        assert (version.fault, version.fee_fen < 0) == ("platform", True)
    for language in ("zh", "en"):
        page = market.visit("operator", language).get("/operator/settlement").text
        assert line_id in page
        assert language == "zh" or [text for text in read_page(page).texts if CHINESE.search(text)] == []
    firm = market.visit("factory").get("/statement").text
    assert "Correction" in firm


def test_a_late_call_is_listed_and_billed_once(market: World) -> None:
    call, _ = make_call(market, late=True)
    operator = market.visit("operator")
    page = operator.get("/operator/settlement").text
    assert call in page
    fields = {name: page.split(f'name="{name}" value="')[1].split('"')[0] for name in ("gateway_id", "gateway_epoch")}
    fields["seq"] = page.split('name="seq" value="')[1].split('"')[0]
    answer = operator.post("/operator/settlement/late-calls", data=fields | {"late_reason": "gateway came back"})
    assert answer.status_code == 302
    assert 'name="seq"' not in operator.get("/operator/settlement").text


def test_what_is_wrong_is_said_and_what_was_typed_is_kept(market: World) -> None:
    call, line_id = make_call(market)
    operator = market.visit("operator")
    status, text = post(operator, bill_line_id=line_id, call_fault="", calls=f"{call} x", call_reason="why")
    assert (status, "Line 1" in text, f"{call} x" in text) == (422, True, True)
    status, text = post(operator, bill_line_id="bil_none", call_fault="", calls="r:0 1 0 1", call_reason="why")
    assert (status, "bil_none" in text) == (422, True)


def test_an_auditor_sees_the_desk_and_may_not_correct(market: World) -> None:
    call, line_id = make_call(market)
    auditor = market.visit("auditor")
    assert "Late call records" in auditor.get("/operator/settlement").text
    status, _ = post(auditor, bill_line_id=line_id, call_fault="platform", calls=call, call_reason="why")
    assert status == 403
