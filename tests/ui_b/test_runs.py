"""A run's page while it trains, when it is done, when it failed, and who may see it."""

import re
from pathlib import Path

import pytest

import finetune
from hub.actor import Actor, Role
from hub.tuning.rerunning import compare_rerun
from hub.tuning.tables import Run
from marketplace_ui.durations import show_duration
from marketplace_ui.journey_words import REASONS
from marketplace_ui.pages import runs
from marketplace_ui.rerun_words import name_difference
from tests.hub.runs.scene import run_until
from tests.ui.world import World
from tests.ui_b.conftest import Shop
from tests.ui_b.scene import add_data, finish_run, make_worker, order_run, plan_run


def test_done_run_shows_scores_money_lineage_and_what_is_next(shop: Shop) -> None:
    page = shop.world.visit("factory").get(f"/runs/{shop.shown['done']}").text
    for text in ("10.0 %", "90.0 %", "Settled", "Released", "set by you", "Base weights", "Registering the version"):
        assert text in page, text
    assert 'action="/endpoints/deploy"' in page
    assert 'href="/models/demo-precision/orders@1"' in page
    assert 'data-over="yes"' in page
    held, charged, released = (
        int(re.search(rf"{label}</dt><dd><span class=\"money\">¥([0-9.]+)<", page)[1].replace(".", ""))  # type: ignore[index]
        for label in ("Held on acceptance", "Charged", "Released")
    )
    assert held == charged + released


def test_run_page_shows_band_health_log_and_checkpoints(shop: Shop) -> None:
    for language, words in (
        (
            "en",
            (
                "healthy at most",
                "Held-out loss below the base",
                "Try a checkpoint",
                "Held-out token accuracy",
                "Log",
                "Load",
            ),
        ),
        ("zh", ("健康范围上限", "留出损失低于基座", "检查点试用", "留出词元准确率", "日志", "加载")),
    ):
        page = shop.world.visit("factory", language).get(f"/runs/{shop.shown['done']}").text
        for text in words:
            assert text in page, text
        assert "held_out_loss=" in page
        assert re.search(r">9\d\.\d %</td>", page)
        assert len(re.findall(r'name="step" value="(\d+)"', page)) == 5
    assert "/tryouts" not in shop.world.visit("operator").get(f"/runs/{shop.shown['done']}").text


def test_failed_run_names_cause_refund_and_next_step(shop: Shop) -> None:
    chinese = shop.world.visit("factory", "zh").get(f"/runs/{shop.shown['failed']}").text
    assert "基座文件与登记的指纹不符" in chinese
    assert "原因在：" in chinese
    assert "base_changed" in chinese
    assert "修改后重试" in chinese
    assert '收费 <span class="money">¥0.00</span>' in chinese


def test_every_code_that_ends_a_run_has_cause_and_next_step() -> None:
    raised = r'(?:RunError|DataError|BaseError|LimitError|OutOfMemoryError)\(\s*"([a-z_]+)"'
    sources = [path.read_text() for path in Path(finetune.__file__).parent.glob("*.py")]
    codes = {code for source in sources for code in re.findall(raised, source)}
    assert len(codes) > 12
    only_of_checks_and_other_callers = {"file_missing", "missing_field"}
    ours = {"lost", "stalled", "max_duration", "artifact_corrupt", "gate_regression", "gate_not_measured"}
    proofs = {"adapter_no_effect", "adapter_not_applied", "adapter_differs", "base_differs", "adapter_not_loaded"}
    assert codes - only_of_checks_and_other_callers | ours | proofs <= set(REASONS)


def test_the_page_of_a_tuned_version_shows_its_card_in_both_languages(shop: Shop) -> None:
    path = "/models/demo-precision/orders@1"
    english, chinese = (shop.world.visit("factory", language).get(path).text for language in ("en", "zh"))
    for text in ("Model card", "Intended use and limits", "Licence of the base", "device time, s", "our measurement"):
        assert text in english
    for text in ("模型卡", "用途与局限", "基座的许可", "设备时间（秒）"):
        assert text in chinese
    assert "Model card" not in shop.world.visit("factory").get("/models/guanmo/demo-zh").text


def test_a_rerun_shows_what_differs_before_its_button(shop: Shop) -> None:
    path = f"/runs/{shop.shown['done']}"
    client = shop.world.visit("factory")
    assert f'href="{path}/rerun"' in client.get(path).text
    page = client.get(f"{path}/rerun").text
    for text in ("Training data", "Training code", "Version of torch", f'action="{path}/rerun"'):
        assert text in page
    assert "Weights of the base" not in page
    chinese = shop.world.visit("factory", "zh").get(f"{path}/rerun").text
    assert "训练数据" in chinese
    assert "确认并重跑" in chinese
    assert shop.world.visit("integrator").get(f"{path}/rerun").status_code == 404


def test_every_thing_that_a_rerun_compares_has_its_words(shop: Shop) -> None:
    with shop.world.sessions.read() as session, shop.world.app.test_request_context():
        run = session.get_one(Run, shop.shown["done"])
        actor = Actor(run.created_by, run.organisation_id, Role.FACTORY)
        found = compare_rerun(session, actor, run.id, home=shop.world.home, now=shop.world.now)
        assert all(name_difference(name) for name in found["compared"])


def test_list_shows_states_and_costs(shop: Shop) -> None:
    page = shop.world.visit("factory", "zh").get("/runs").text
    for text in ("已完成", "失败", "待报价", "已报价", "demo-precision/orders"):
        assert text in page
    assert "还没有微调任务" in shop.world.visit("developer", "zh").get("/runs").text


def test_running_page_polls_streams_and_can_be_cancelled(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="live", **{"recipe-epochs": "50"})
    order_run(market, client, run_id)
    worker = make_worker(market)
    run_until(worker, lambda: re.search(r"step \d+ of", client.get(f"/runs/{run_id}").text) is not None)
    page = client.get(f"/runs/{run_id}").text
    assert 'hx-trigger="every 3s, run-changed from:body"' in page
    assert f'data-events="/api/v1/runs/{run_id}/events?after=' in page
    assert '<progress class="bar"' in page
    assert "Cost so far" in page
    assert client.post(f"/runs/{run_id}/cancel").status_code == 302
    assert "Stops at its next safe point" in client.get(f"/runs/{run_id}").text
    run_until(worker, lambda: 'data-over="yes"' in client.get(f"/runs/{run_id}").text)
    page = client.get(f"/runs/{run_id}").text
    assert "only the metered part is billed" in page
    assert "You cancelled" in page


def test_a_queued_run_shows_its_place_is_paused_and_goes_on(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="parked")
    order_run(market, client, run_id)
    assert "place 1 in the queue" in client.get(f"/runs/{run_id}").text
    assert client.post(f"/runs/{run_id}/pause").status_code == 302
    page = client.get(f"/runs/{run_id}").text
    assert f'action="/runs/{run_id}/resume"' in page
    assert "place 1 in the queue" not in page
    assert client.post(f"/runs/{run_id}/resume").status_code == 302
    assert f'action="/runs/{run_id}/pause"' in client.get(f"/runs/{run_id}").text
    assert client.post(f"/runs/{run_id}/cancel").status_code == 302
    assert 'data-over="yes"' in client.get(f"/runs/{run_id}").text


def test_a_result_no_better_than_its_base_is_held_and_said(market: World, data: str) -> None:
    client = market.visit("factory")
    run_id = plan_run(market, client, data, name="worse", **{"recipe-min_delta": "0.1"})
    order_run(market, client, run_id)
    page = finish_run(market, client, run_id)
    assert "did not pass the publish gate" in page
    assert f'action="/runs/{run_id}/publish"' in page
    assert 'action="/endpoints/deploy"' not in page


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("pause", "only a queued or training run can be paused"),
        ("resume", "only a paused run can be resumed"),
        ("measure", "only a held run that no engine was asked about can be measured again"),
    ],
)
def test_a_step_that_comes_too_late_is_refused_on_the_runs_own_page(shop: Shop, step: str, said: str) -> None:
    answer = shop.world.visit("factory").post(f"/runs/{shop.shown['done']}/{step}")
    assert answer.status_code == 409
    assert said in answer.text
    assert "Base weights" in answer.text


def test_what_needs_deleted_data_says_so_on_its_page(market: World) -> None:
    client = market.visit("factory")
    dataset_id = add_data(market, client)
    run_id = plan_run(market, client, dataset_id, name="gone")
    order_run(market, client, run_id)
    finish_run(market, client, run_id)
    assert client.post(f"/datasets/{dataset_id}/delete").status_code == 302
    again = client.post(f"/runs/{run_id}/rerun")
    assert (again.status_code, "Confirm and run again" in again.text) == (409, True)
    anew = client.post("/runs/new", data={"base": "guanmo/demo-zh", "data": dataset_id, "name": "anew"})
    assert (anew.status_code, "Choose data" in anew.text) == (422, True)
    for answer in (again, anew):
        assert re.search(r'role="alert">.{0,400}deleted', answer.text, re.DOTALL), answer.text[:3000]


def test_the_list_leads_to_older_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    client = shop.world.visit("factory")
    whole = re.findall(r'href="/runs/(run_[0-9a-f]+)"', client.get("/runs").text)
    assert len(whole) == 4
    monkeypatch.setattr(runs, "PAGE_RUNS", 3)  # a page of fifty would take fifty runs
    newest = client.get("/runs").text
    following = re.search(r'href="(/runs\?before=run_[0-9a-f]+)" rel="next"', newest)
    assert following
    older = client.get(following[1]).text
    found = [re.findall(r'href="/runs/(run_[0-9a-f]+)"', page) for page in (newest, older)]
    assert (found[0] + found[1], len(found[0])) == (whole, 3)
    assert 'rel="next"' not in older
    assert "First page" in older


def test_an_unordered_run_offers_its_steps_to_its_own_firm_alone(shop: Shop) -> None:
    path = f"/runs/{shop.shown['planned']}"
    for who, offered in (("factory", True), ("operator", False)):
        page = shop.world.visit(who).get(path).text
        assert ("Get the quote" in page, "Change the recipe" in page) == (offered, offered), who


def test_operator_looks_on_but_others_do_not(shop: Shop) -> None:
    path = f"/runs/{shop.shown['done']}"
    operator = shop.world.visit("operator").get(path)
    assert operator.status_code == 200
    assert "/endpoints/deploy" not in operator.text
    for who in ("developer", "integrator", "provider"):
        assert shop.world.visit(who).get(path).status_code == 404
        assert shop.world.visit(who).post(f"{path}/cancel").status_code == 404


def test_durations_read_as_a_person_says_them(shop: Shop) -> None:
    lengths = (4_000, 119_900, 754_200, 3_660_000)
    with shop.world.app.test_request_context(headers={"Accept-Language": "en"}):
        assert [show_duration(length) for length in lengths] == ["4.0 s", "119.9 s", "12 min 34 s", "1 h 1 min"]
    with shop.world.app.test_request_context(headers={"Accept-Language": "zh"}):
        assert show_duration(754_200) == "12 分 34 秒"
