"""The way to an order on the pages: steps, bounds of the recipe, offers, quote, acceptance."""

from datetime import timedelta

from sqlalchemy import delete, select

from finetune.recipe_fixed import list_fixed
from finetune.spec import BOUNDS, Source
from hub.clock import read_clock
from hub.compute.tables import Device, Offer
from hub.orders.tables import Order
from hub.tuning.recipe_words import TEXTS_ZH
from hub.tuning.states import RunState
from hub.tuning.tables import Run
from marketplace_ui.format import show_date
from marketplace_ui.journey_words import FAMILIES
from tests.hub.runs.test_speeds import add_done
from tests.ui.world import World
from tests.ui_b.conftest import Shop
from tests.ui_b.scene import id_in, plan_run


def test_every_value_of_a_recipe_has_its_words() -> None:
    fixed = list_fixed("cpu", has_fast_bf16=False)
    assert set(FAMILIES["recipe"]) == {*BOUNDS, "use_dora", *fixed}
    words = {str(item.value) for item in fixed.values()} - {"fp32", "bf16", "AdamW"}
    assert set(TEXTS_ZH) == {*words, *Source}


def test_the_recipe_shows_reason_and_source_of_old_plans_and_new(market: World, data: str) -> None:
    client = market.visit("factory", "zh")
    run_id = plan_run(market, client, data, name="sources", **{"recipe-epochs": "7"})
    page = client.get(f"/runs/{run_id}").text
    assert "您的设置" in page
    assert "按长度分桶" in page
    with market.sessions.write() as session:
        run = session.get_one(Run, run_id)
        kept = {name: {"value": 1, "reason": "an old reason"} for name in ("epochs", "rank")}
        run.plan = {name: part for name, part in (run.plan or {}).items() if name != "fixed"} | {"recipe": kept}
    old = client.get(f"/runs/{run_id}").text
    assert "an old reason" in old
    assert "您的设置" in old
    assert "不可调整的选择" not in old


def test_steps_lead_from_base_to_data_to_recipe(shop: Shop) -> None:
    client = shop.world.visit("factory", "zh")
    first = client.get("/runs/new").text
    assert "DEMO-备案-0001" in first
    assert "模型券" in first
    assert "该基座没有有效备案" in first
    second = client.get("/runs/new?base=guanmo/demo-zh").text
    assert f'value="{shop.shown["ready"]}" required' in second
    assert f'value="{shop.shown["broken"]}" required disabled' in second
    third = client.get(f"/runs/new?base=guanmo/demo-zh&data={shop.shown['ready']}").text
    assert 'name="recipe-learning_rate"' in third
    assert 'aria-current="step"' in third


def test_switches_of_the_recipe_reach_the_run_and_come_back(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="probed", **{"recipe-probe_learning_rate": "yes"})
    with market.sessions.read() as session:
        assert session.get_one(Run, run_id).recipe == {"probe_learning_rate": 1}
    again = client.get(f"/runs/new?base=guanmo/demo-zh&data={data}&from={run_id}").text
    switches = {
        name: line
        for line in again.split("<input")
        for name in ("probe_learning_rate", "use_rslora")
        if f'name="recipe-{name}"' in line
    }
    assert ["checked" in switches[name] for name in ("probe_learning_rate", "use_rslora")] == [True, False]


def test_training_in_4_bits_is_shown_and_told_why_it_cannot_be_chosen(market: World, data: str) -> None:
    path = f"/runs/new?base=guanmo/demo-zh&data={data}"
    with market.sessions.write() as session:
        before = {offer.id: offer.device for offer in session.scalars(select(Offer))}
    texts = {Device.CPU: ("it needs a GPU", "需要 GPU"), Device.CUDA: ("trained in bf16", "尚不支持 4 位训练")}
    for device, words in texts.items():
        _set_devices(market, dict.fromkeys(before, device))
        for language, text in zip(("en", "zh"), words, strict=True):
            page = market.visit("factory", language).get(path).text
            (box,) = [part.split(">")[0] for part in page.split("<input") if 'name="recipe-load_in_4bit"' in part]
            assert "disabled" in box
            assert text in page
    _set_devices(market, before)


def test_offers_and_quotes_show_the_speed_that_they_go_by_with_its_date(market: World, data: str) -> None:
    client, chinese = market.visit("factory"), market.visit("factory", "zh")
    run_id = plan_run(market, client, data, name="taught")
    offer = id_in(client.get(f"/runs/{run_id}").text, "off")
    assert "too few completed fine-tunes to measure" in client.get(f"/offers/{offer}").text
    assert "by steps of this base timed on a device of this kind" in client.get(f"/runs/{run_id}").text
    at = read_clock() - timedelta(days=1)
    with market.sessions.write() as session:
        made = add_done(session, run_id, offer, [(30_000, 300_000, at)] * 3)
    try:
        for path in (f"/offers/{offer}", "/offers", f"/offers/compare?offer={offer}"):
            assert "median of 3 fine-tunes, newest" in client.get(path).text
            assert "3 次微调的中位数" in chinese.get(path).text
        assert client.post(f"/runs/{run_id}/quote", data={"offer_id": offer}).status_code == 302
        quoted = client.get(f"/runs/{run_id}").text.split('id="quote"')[1].split("</section>")[0]
        assert "by 3 completed runs of this base" in quoted
        assert show_date(at) in quoted
        assert "次同基座微调" in chinese.get(f"/runs/{run_id}").text
    finally:
        with market.sessions.write() as session:
            session.execute(delete(Run).where(Run.id.in_(made)))
    assert "completed runs of this base" not in client.get(f"/runs/{run_id}").text, "what it went by is no more"


def _set_devices(market: World, devices: dict[str, Device]) -> None:
    with market.sessions.write() as session:
        for offer in session.scalars(select(Offer)):
            offer.device = devices[offer.id]


def test_values_out_of_bounds_stay_typed_beside_their_message(market: World, data: str) -> None:
    form = {"base": "guanmo/demo-zh", "data": data, "name": "typed-name", "recipe-epochs": "999", "recipe-rank": "8"}
    answer = market.visit("factory").post("/runs/new", data=form)
    assert answer.status_code == 422
    assert 'value="999"' in answer.text
    assert 'value="typed-name"' in answer.text
    assert "give a whole number from 1 – 50" in answer.text
    named = market.visit("factory").post("/runs/new", data=form | {"recipe-epochs": "", "name": "Bad Name"})
    assert named.status_code == 422
    assert 'id="e-name"' in named.text


def test_quoted_page_shows_bill_rule_offers_and_what_is_held(shop: Shop) -> None:
    page = shop.world.visit("factory").get(f"/runs/{shop.shown['quoted']}").text
    assert page.count('name="offer_id"') == 3
    assert "Compute voucher" in page
    assert "rule version 1" in page
    assert "Held on acceptance" in page
    assert "valid until" in page
    assert page.count("Via the city platform") == 2


def test_insisting_on_a_model_voucher_for_an_unfiled_base_is_refused(market: World, data: str) -> None:
    client = market.visit("factory", "zh")
    run_id = plan_run(market, client, data, base="guanmo/demo-trial", name="trial")
    offer = id_in(client.get(f"/runs/{run_id}").text, "off")
    answer = client.post(f"/runs/{run_id}/quote", data={"offer_id": offer, "insist": "yes"})
    assert answer.status_code == 409
    assert "不能使用模型券" in answer.text
    assert client.post(f"/runs/{run_id}/quote", data={}).status_code == 409
    assert client.post(f"/runs/{run_id}/quote", data={"offer_id": offer}).status_code == 302
    assert "该基座没有有效备案" in client.get(f"/runs/{run_id}").text


def test_two_clicks_are_one_order_and_strangers_cannot_click(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="twice")
    offer = id_in(client.get(f"/runs/{run_id}").text, "off")
    assert client.post(f"/runs/{run_id}/quote", data={"offer_id": offer}).status_code == 302
    quote = id_in(client.get(f"/runs/{run_id}").text, "quo")
    for who in ("developer", "provider", "auditor"):
        answer = market.visit(who).post(f"/runs/{run_id}/accept", data={"quote_id": quote})
        assert answer.status_code in (403, 404)
    for _ in range(2):
        assert client.post(f"/runs/{run_id}/accept", data={"quote_id": quote}).status_code == 302
    with market.sessions.read() as session:
        assert len(session.scalars(select(Order).where(Order.subject == run_id)).all()) == 1
    assert market.visit("developer").get(f"/runs/{run_id}").status_code == 404
    assert client.post(f"/runs/{run_id}/cancel").status_code == 302


def test_a_changed_recipe_takes_the_place_of_the_plan(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="changed", **{"recipe-epochs": "7"})
    page = client.get(f"/runs/new?base=guanmo/demo-zh&data={data}&from={run_id}").text
    assert 'value="7"' in page
    assert 'value="changed"' in page
    plan_run(market, client, data, name="changed", **{"from": run_id, "recipe-epochs": "8"})
    with market.sessions.read() as session:
        assert session.get_one(Run, run_id).state is RunState.CANCELLED


def test_no_money_says_what_is_short(market: World, data: str) -> None:
    client = market.visit("integrator")
    from tests.ui_b.scene import add_data

    own = add_data(market, client)
    run_id = plan_run(market, client, own, name="poor", **{"recipe-epochs": "50"})
    offer = id_in(client.get(f"/runs/{run_id}").text, "off")
    client.post(f"/runs/{run_id}/quote", data={"offer_id": offer})
    page = client.get(f"/runs/{run_id}").text
    assert "Your cash is short of" in page
    answer = client.post(f"/runs/{run_id}/accept", data={"quote_id": id_in(page, "quo")})
    assert answer.status_code == 409
    assert "fen are available" in answer.text
