"""What a person of each role does with the pages of money: from a line to its records, to its correction; reports."""

import re

import pytest
from markupsafe import Markup

from hub.actor import Role
from hub.ledger.periods import month_key
from hub.orders.elapsed import ELAPSED
from hub.orders.settlement import METERED
from hub.organisations.service import create_user
from marketplace_ui.phone_table import label_cells
from marketplace_ui.words import WORDS
from tests.ui_money.pages import PAGES
from tests.ui_vouchers.scene import Scene

RECORD_STATES = (
    "hub.compute.tables:MeterState",
    "hub.compute.tables:HoldState",
    "hub.orders.tables:OrderState",
    "serving.contract:UsageStatus",
)


@pytest.mark.parametrize(
    ("row", "labelled"),
    [
        ("<tr><td>1</td><td>2</td></tr>", '<tr><td data-label="A &amp; B">1</td><td>2</td></tr>'),
        ('<tr><th scope="row">1</th></tr>', '<tr><th scope="row" data-label="A &amp; B">1</th></tr>'),
        (
            '<tr><td colspan="2">all</td><td class="money">3</td></tr>',
            '<tr><td colspan="2">all</td><td class="money" data-label="C">3</td></tr>',
        ),
        ('<tr><td data-label="own">1</td></tr>', '<tr><td data-label="own">1</td></tr>'),
        ("<tr><td>1</td><td>2</td><td>3</td><td>4</td></tr>", None),
    ],
)
def test_cells_name_their_columns(row: str, labelled: str | None) -> None:
    found = label_cells(Markup(row), [("A & B", ""), ("", ""), ("C", "money")])  # noqa: S704  the row is ours
    assert str(found) == labelled if labelled else str(found).endswith("<td>4</td></tr>")


def test_every_line_of_the_statement_opens_its_records(scene: Scene) -> None:
    month = scene.ids["month"]
    for language in ("zh", "en"):
        factory = scene.world.visit("factory", language)
        page = factory.get(f"/statement?month={month}").text
        lines = re.findall(r'href="(/statement/lines/[^"]+)"', page)
        assert len(lines) == page.count("<tr>") - 2 - page.partition('id="balances"')[2].count("<tr>")
        for line in lines:
            shown = factory.get(line)
            assert shown.status_code == 200
            assert f"/statement?month={month}&amp;" in shown.text
            assert re.search(r"<td[^>]*>(?:prompt|device_ms|complete|accepted)<", shown.text) is None
        assert scene.world.visit("integrator", language).get(lines[0]).status_code == 404


def test_every_state_and_figure_of_a_record_has_a_word() -> None:
    from importlib import import_module

    members: set[str] = set()
    for place in RECORD_STATES:
        module, name = place.split(":")
        members |= {str(member) for member in getattr(import_module(module), name)}
    assert len(members) > 8
    assert members <= set(WORDS["raw_state"])
    assert {*METERED, ELAPSED} <= set(WORDS["raw_figure"])


def test_a_line_leads_the_operator_to_its_correction(scene: Scene) -> None:
    operator = scene.world.visit("operator")
    owner = scene.world.actors["factory"].organisation_id
    page = operator.get(f"/statement?month={scene.ids['month']}&organisation_id={owner}").text
    orders = re.findall(r'href="(/operator/settlement\?order_id=(ord_\w+))#correct"', page)
    calls = re.findall(r'href="(/operator/settlement\?bill_line_id=(bil_\w+))#correct-calls"', page)
    assert len(orders) > 3
    assert [line for _, line in calls] == [scene.ids["line"]]
    for address, key in (orders[0], calls[0]):
        assert f'value="{key}"' in operator.get(address).text
    for who in ("auditor", "factory"):
        own = scene.world.visit(who).get(f"/statement?month={scene.ids['month']}&organisation_id={owner}").text
        assert "/operator/settlement?" not in own


def test_the_report_tells_what_changed_against_the_last_one(scene: Scene) -> None:
    month = scene.ids["month"]
    page = scene.world.visit("auditor").get(f"/operator/reports/{month}").text
    changes = page.partition('id="changes"')[2]
    last = re.search(r'href="/operator/reports/(\d{4}-\d\d)"', changes)
    assert last
    assert last[1] < month
    assert "+¥50,000.00" in changes
    assert "Data-asset first steps" in changes
    assert "the fund" in changes
    first = scene.world.visit("operator").get(f"/operator/reports/{last[1]}").text
    assert "No earlier report of this length" in first
    assert "与上一份报告相比" in scene.world.visit("operator", "zh").get(f"/operator/reports/{month}").text


def test_days_that_make_no_range_are_refused_above_the_preview_and_stay_typed(scene: Scene) -> None:
    days = {"from_day": "2026-12-15", "to_day": "2026-11-03"}
    auditor = scene.world.visit("auditor")
    page = auditor.get("/operator/reports", query_string=days).text
    assert "a range goes forward" in page
    assert "Nothing in this period" not in page
    for name, day in days.items():
        assert f'name="{name}" value="{day}"' in page
    whole = auditor.get("/operator/reports", query_string={"from_day": "2026-11-03", "to_day": "2026-12-15"}).text
    assert "a range goes forward" not in whole


def test_a_report_of_any_days_is_previewed_and_issued(scene: Scene) -> None:
    operator, month = scene.world.visit("operator"), scene.ids["month"]
    days = {"from_day": f"{month}-01", "to_day": f"{month}-09"}
    shown = operator.get("/operator/reports", query_string=days).text
    assert f"{month}-01--{month}-09" in shown
    half = operator.post("/operator/reports", data={"from_day": f"{month}-01", "to_day": ""})
    assert half.status_code == 422
    assert "is not a month, quarter, year or range of days" in half.text
    both = operator.post("/operator/reports", data=days | {"period": month})
    assert (both.status_code, "not both" in both.text) == (422, True)
    issued = operator.post("/operator/reports", data=days)
    assert issued.location == f"/operator/reports/{month}-01--{month}-09?done=issued"
    page = operator.get(issued.location).text
    assert "the same bytes as issued" in page
    assert "No earlier report of this length" in page
    running = month_key(scene.world.now)
    refused = operator.post("/operator/reports", data={"from_day": f"{running}-01", "to_day": f"{running}-01"})
    assert refused.status_code == 422
    assert "A preview is possible now" in refused.text


def test_an_offer_says_why_the_model_voucher_pays_for_no_rental(scene: Scene) -> None:
    said = {"en": "device time rented by itself has none", "zh": "单独租用算力没有基座模型"}
    for language, text in said.items():
        page = scene.world.visit("developer", language).get(f"/offers/{scene.ids['offer']}")
        assert page.status_code == 200
        assert text in page.text
        assert "no valid filing" not in page.text
        assert "没有有效备案" not in page.text


def test_an_award_under_way_is_not_asked_for_again(scene: Scene) -> None:
    grant = f"/vouchers/grants/{scene.ids['grant_data_asset']}"
    page = scene.world.visit("factory").get(grant).text
    assert "Ask for it" not in page
    assert "¥50,000.00" in page.partition("Redemptions")[2]
    refused = scene.world.visit("factory").post(f"{grant}/redemptions")
    assert refused.status_code == 422
    assert "asks for this award already" in refused.text
    assert "No fee to redeem" not in scene.world.visit("auditor").get(grant).text


def test_a_checked_request_is_not_taken_back_on_its_page(scene: Scene) -> None:
    grant, factory = f"/vouchers/grants/{scene.ids['grant_data_asset']}", scene.world.visit("factory")
    operator = scene.world.visit("operator")

    def find(state: str) -> str:
        found = operator.get(f"/api/v1/redemptions?state={state}").json["items"]  # type: ignore[index]
        return str(next(row["id"] for row in found if row["grant_id"] == scene.ids["grant_data_asset"]))

    checked = find("checked")
    assert f"{checked}/withdraw" not in factory.get(grant).text
    refused = factory.post(f"{grant}/redemptions/{checked}/withdraw")
    assert (refused.status_code, "until an officer checks it" in refused.text) == (422, True)


@pytest.mark.parametrize("who", sorted(PAGES))
def test_only_officers_find_forms_on_the_settlement_desk(scene: Scene, who: str) -> None:
    answer = scene.world.visit(who).get("/operator/settlement")
    role = scene.world.actors[who].role
    assert answer.status_code == (200 if role in (Role.OPERATOR, Role.AUDITOR) else 403)
    assert ('action="/operator/settlement/' in answer.text) is (role is Role.OPERATOR)


def add_person(scene: Scene, who: str, firm: str, role: Role) -> None:
    world = scene.world
    world.credentials[who] = {"email": f"{who}@demo.example", "password": "open-sesame-42"}
    with world.sessions.write() as session:
        create_user(
            session,
            organisation_id=world.actors[firm].organisation_id,
            name=who,
            role=role,
            now=world.now,
            **world.credentials[who],
        )


def test_a_rentals_orders_are_shown_to_the_paying_firm_whatever_role_a_person_has(scene: Scene) -> None:
    add_person(scene, "their-planner", "provider", Role.FACTORY)
    add_person(scene, "our-lender", "factory", Role.PROVIDER)
    for who, shown in (("their-planner", False), ("provider", False), ("our-lender", True), ("factory", True)):
        answer = scene.world.visit(who).get(f"/rentals/{scene.ids['rental_over']}")
        assert answer.status_code == 200
        assert (scene.ids["order"] in answer.text, "charged" in answer.text) == (shown, shown), who
        assert "Raw meter records" in answer.text
