"""The life of a run through the API and a worker: plan, quote, order, training, version, money."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.compute.tables import HoldState, Rental
from hub.events.tables import Event
from hub.jobs.tables import Job
from hub.orders.tables import Order, OrderState
from hub.tuning.endings import fail_orphaned_runs
from hub.tuning.keeping_holds import keep_holds
from hub.tuning.kinds import TRAIN_KIND
from hub.tuning.ordering import queue_accepted_runs
from hub.tuning.progress import find_commit, locate_attempt
from hub.tuning.stopping import end_long_pauses
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.twin_trainer import STEP_MS, TOKENS_PER_STEP

OVER = {"succeeded", "failed", "cancelled", "held", "invalid"}


def finish(scene: Scene, run: dict[str, Any]) -> dict[str, Any]:
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] in OVER)
    return scene.read_run(run["id"])


def read_order(scene: Scene, run: dict[str, Any]) -> Order:
    with scene.sessions.read() as session:
        return session.get_one(Order, run["order_id"])


def read_rentals(scene: Scene) -> list[HoldState]:
    """Return the states of all rentals, first to last."""
    with scene.sessions.read() as session:
        return list(session.scalars(select(Rental.state).order_by(Rental.id)))


def test_a_plan_shows_tokens_recipe_and_device_time_of_each_offer(scene: Scene) -> None:
    run = scene.start_run(epochs=4)
    assert run["state"] == "planned"
    assert run["plan"]["tokens"] == 4 * TOKENS_PER_STEP
    assert run["plan"]["recipe"]["rank"]["reason"] == "default"
    # 400 tokens at the measured 500 a second, half a second beside, a quarter more
    assert {row["offer_id"]: row["device_ms"] for row in run["estimates"]} == {
        scene.offers["city"]: 1875,  # at least a second of training
        scene.offers["bay"]: 1875,
    }


def test_a_run_becomes_a_version_and_settles_on_its_meter(scene_on_both: Scene) -> None:
    scene = scene_on_both
    run = finish(scene, scene.order_run(epochs=4))
    assert run["state"] == "succeeded", run["message"]
    order = read_order(scene, run)
    assert order.state is OrderState.SETTLED
    assert order.metered is not None
    assert order.metered["trained_tokens"] == 4 * TOKENS_PER_STEP
    assert order.metered["device_ms"] == 800
    assert order.charged_fen == 800 * 3600 // 3_600_000 + 400 * 5 // 100
    with scene.sessions.read() as session:
        version = session.get_one(ModelVersion, run["version_id"])
        rental = session.scalars(select(Rental)).one()
    assert version.artifact_digest == run["artifact_digest"]
    assert (scene.home / "artifacts" / version.artifact_digest / "adapter_model.safetensors").is_file()
    assert version.rank == 8
    assert version.lineage["plan_digest"] == run["plan_digest"]
    assert (rental.state, rental.device_ms) == (HoldState.RELEASED, 850)
    assert run["accept_to_first_step_ms"] > 0
    assert [point["step"] for point in run["curve"]] == [1, 2, 3, 4]


def test_every_state_on_the_way_is_an_event(scene: Scene) -> None:
    run = finish(scene, scene.order_run())
    with scene.sessions.read() as session:
        topics = session.scalars(select(Event.topic).where(Event.subject == run["id"]).order_by(Event.seq)).all()
    names = [topic.removeprefix("run.") for topic in topics]
    assert names[:5] == ["created", "planned", "quoted", "queued", "provisioning"]
    assert names[-3:] == ["gating", "publishing", "succeeded"]


def test_accepting_twice_with_the_same_key_is_one_order(scene: Scene) -> None:
    run = scene.order_run()
    path = f"/api/v1/runs/{run['id']}/accept"
    body, headers = {"quote_id": run["quote_id"]}, {"Idempotency-Key": "key-1"}
    again = scene.call("POST", path, "factory", json=body, headers=headers)
    assert again.status_code == 202
    assert again.json["order"]["id"] == run["order_id"]  # type: ignore[index]
    with scene.sessions.read() as session:
        assert len(session.scalars(select(Order)).all()) == 1
    other = scene.call("POST", path, "factory", json=body, headers={"Idempotency-Key": "key-2"})
    assert other.status_code == 409
    missing = scene.call("POST", path, "factory", json=body)
    assert (missing.status_code, missing.json["field"]) == (422, "Idempotency-Key")  # type: ignore[index]


def test_a_quote_accepted_through_orders_is_queued_by_the_sweep(scene: Scene) -> None:
    run = scene.start_run()
    path = f"/api/v1/runs/{run['id']}/quote"
    quote = scene.call("POST", path, "factory", json={"offer_id": scene.offers["bay"]}).json
    accepted = scene.call(
        "POST",
        f"/api/v1/quotes/{quote['id']}/accept",
        "factory",
        json={"idempotency_key": "k"},  # type: ignore[index]
    )
    assert accepted.status_code in (200, 201), accepted.json
    assert scene.read_run(run["id"])["state"] == "quoted"
    with scene.sessions.write() as session:
        assert queue_accepted_runs(session, now=scene.work.clock()) == 1
        assert queue_accepted_runs(session, now=scene.work.clock()) == 0
    assert finish(scene, run)["state"] == "succeeded"


def accept_aside(scene: Scene, run: dict[str, Any], offer: str, key: str) -> str:
    """Quote a run and accept the quote through the orders' own address; returns the order's id."""
    path = f"/api/v1/runs/{run['id']}/quote"
    quote = scene.call("POST", path, "factory", json={"offer_id": scene.offers[offer]}).json
    assert quote is not None
    path = f"/api/v1/quotes/{quote['id']}/accept"
    accepted = scene.call("POST", path, "factory", json={"idempotency_key": key})
    assert accepted.status_code == 201, accepted.json
    return str(accepted.json["id"])  # type: ignore[index]


def test_two_accepted_quotes_of_a_run_are_one_training_and_the_second_is_given_back(scene_on_both: Scene) -> None:
    scene = scene_on_both
    run, other = scene.start_run(), scene.start_run()
    first, second = accept_aside(scene, run, "bay", "first"), accept_aside(scene, run, "city", "second")
    third = accept_aside(scene, other, "bay", "third")
    with scene.sessions.write() as session:
        assert queue_accepted_runs(session, now=scene.work.clock()) == 2
        assert queue_accepted_runs(session, now=scene.work.clock()) == 0
    queued = scene.read_run(run["id"])
    assert (queued["state"], queued["order_id"], queued["offer_id"]) == ("queued", first, scene.offers["bay"])
    assert (scene.read_run(other["id"])["state"], scene.read_run(other["id"])["order_id"]) == ("queued", third)
    with scene.sessions.read() as session:
        orders = {order.id: order for order in session.scalars(select(Order))}
        subjects = session.scalars(select(Job.subject).where(Job.kind == TRAIN_KIND)).all()
    assert {key: order.state for key, order in orders.items()} == {
        first: OrderState.HELD,
        second: OrderState.REFUNDED,
        third: OrderState.HELD,
    }
    assert (orders[second].reason_code, orders[second].charged_fen) == ("superseded", 0)
    assert sorted(subjects) == sorted([run["id"], other["id"]])


def test_an_order_that_comes_after_its_run_was_queued_is_not_kept_alive(scene: Scene) -> None:
    run = scene.start_run()
    path = f"/api/v1/runs/{run['id']}/quote"
    late = scene.call("POST", path, "factory", json={"offer_id": scene.offers["city"]}).json
    assert late is not None
    accept_aside(scene, run, "bay", "first")
    with scene.sessions.write() as session:
        assert queue_accepted_runs(session, now=scene.work.clock()) == 1
    path = f"/api/v1/quotes/{late['id']}/accept"
    assert scene.call("POST", path, "factory", json={"idempotency_key": "late"}).status_code == 201
    now = scene.work.clock()
    with scene.sessions.write() as session:
        # Half of the lease is over: the run's own order is renewed. Then the lease of the other has run out.
        assert [keep_holds(session, now + timedelta(minutes=minutes)) for minutes in (40, 61)] == [0, 1]
        states = {order.quote_id == late["id"]: order.state for order in session.scalars(select(Order))}
    assert states == {False: OrderState.HELD, True: OrderState.REFUNDED}


def test_a_killed_trainer_is_resumed_from_its_last_commit(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=5, patience=7))
    assert run["state"] == "succeeded"
    assert [(row["attempt"], row["state"], row["reason_code"]) for row in run["attempts"]] == [
        (1, "lost", "lost"),
        (2, "ended", "done"),
    ]
    # no step was trained twice: the second attempt began behind the first one's last commit
    assert [point["step"] for point in run["curve"]] == [1, 2, 3, 4, 5]


def test_a_platform_fault_is_refunded_in_full(scene: Scene) -> None:
    run = finish(scene, scene.order_run(validations=13))
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "base_changed", "platform")
    order = read_order(scene, run)
    assert (order.state, order.charged_fen) == (OrderState.REFUNDED, 0)


def test_data_that_changed_where_the_platform_keeps_them_are_no_fault_of_their_owner(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=5, clip_norm=9.5))
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "data_changed", "platform")
    assert run["trained_tokens"] == 2 * TOKENS_PER_STEP, "which their owner would have paid"
    order = read_order(scene, run)
    assert (order.state, order.charged_fen) == (OrderState.REFUNDED, 0)


def test_a_cancelled_run_pays_what_was_committed(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "running")
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/cancel", "factory").status_code == 202
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "cancelled")
    order = read_order(scene, run)
    assert order.state is OrderState.REFUNDED
    assert order.metered is not None
    assert 0 < order.metered["trained_tokens"] < 50 * TOKENS_PER_STEP
    assert 0 < order.charged_fen < order.held_fen
    assert scene.work.launch.list_mine() == []


def ask(scene: Scene, run: dict[str, Any], wish: str) -> str:
    """Cancel, pause or resume a run; returns its state."""
    answer = scene.call("POST", f"/api/v1/runs/{run['id']}/{wish}", "factory")
    assert answer.status_code == 202, answer.json
    return str(answer.json["state"])  # type: ignore[index]


def read_meter(scene: Scene, run: dict[str, Any]) -> tuple[int, int]:
    """Return what the order of a cancelled run was billed for: tokens and device time in ms."""
    order = read_order(scene, run)
    assert (order.state, order.reason_code) == (OrderState.REFUNDED, "user_cancelled")
    assert order.metered is not None
    tokens, device_ms = order.metered["trained_tokens"], order.metered["device_ms"]
    assert order.charged_fen == device_ms * 3600 // 3_600_000 + tokens * 5 // 100
    return tokens, device_ms


def test_a_run_cancelled_while_paused_pays_what_was_committed_before_the_pause(scene: Scene) -> None:
    run = scene.order_run(epochs=50, warmup_ratio=0.2)
    worker = scene.make_worker()
    run_until(worker, lambda: find_commit(scene.home, run["id"], 1) is not None)
    ask(scene, run, "pause")
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "paused")
    commit = find_commit(scene.home, run["id"], 1)
    assert commit is not None
    assert ask(scene, run, "cancel") == "cancelled"
    assert read_meter(scene, run) == (commit.tokens, commit.device_ms)
    assert commit.tokens >= TOKENS_PER_STEP


def test_a_run_cancelled_while_it_recovers_pays_what_was_committed_before_the_loss(scene: Scene) -> None:
    run = scene.order_run(epochs=5, patience=7)
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "recovering")
    worker.hand_back()
    assert ask(scene, run, "cancel") == "cancelled"
    assert read_meter(scene, run) == (2 * TOKENS_PER_STEP, 2 * STEP_MS)


@pytest.mark.parametrize("is_held", [True, False], ids=["held by a worker", "back in the queue"])
def test_a_pause_of_a_run_that_recovers_frees_its_devices(scene: Scene, is_held: bool) -> None:
    run = scene.order_run(epochs=5, patience=7)
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "recovering")
    assert read_rentals(scene) == [HoldState.ACTIVE], "kept for the next attempt"
    if not is_held:
        worker.hand_back()
    assert ask(scene, run, "pause") == ("recovering" if is_held else "paused")
    run_until(worker, lambda: scene.read_run(run["id"])["state"] == "paused")
    assert read_rentals(scene) == [HoldState.RELEASED]
    assert ask(scene, run, "resume") == "queued"
    assert finish(scene, run)["state"] == "succeeded"
    assert read_rentals(scene) == [HoldState.RELEASED, HoldState.RELEASED]


def test_out_of_memory_is_tried_once_in_smaller_parts(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=4, clip_norm=7))
    assert run["state"] == "succeeded"
    assert [row["reason_code"] for row in run["attempts"]] == ["out_of_memory", "done"]
    spec = json.loads((locate_attempt(scene.home, run["id"], 2) / "spec.json").read_text())
    assert spec["limits"]["batch_tokens"] == 128
    assert run["trained_tokens"] == run["plan"]["tokens"]


def test_out_of_memory_twice_names_the_setting_and_is_refunded(scene: Scene) -> None:
    run = finish(scene, scene.order_run(clip_norm=8))
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "out_of_memory", "platform")
    assert "128 tokens at once; lower recipe.batch_tokens" in run["message"]
    assert read_order(scene, run).charged_fen == 0


def test_a_loss_that_is_no_number_is_tried_once_at_half_the_rate_and_never_billed_twice(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=4, clip_norm=9))
    assert run["state"] == "succeeded"
    assert [row["reason_code"] for row in run["attempts"]] == ["nan_loss", "done"]
    spec = json.loads((locate_attempt(scene.home, run["id"], 2) / "spec.json").read_text())
    assert (spec["rate_factor"], spec["recipe"]["clip_norm"]["value"]) == (0.5, 9)
    order = read_order(scene, run)
    assert order.metered is not None
    assert order.metered["trained_tokens"] == run["trained_tokens"] == run["plan"]["tokens"]
    with scene.sessions.read() as session:
        told = session.scalars(select(Event).where(Event.subject == run["id"], Event.topic == "run.recovering")).all()
    assert [event.payload["reason_code"] for event in told] == ["nan_loss"]


def test_a_loss_that_is_no_number_twice_ends_the_run_with_a_refund(scene: Scene) -> None:
    run = finish(scene, scene.order_run(clip_norm=10))
    assert (run["state"], run["reason_code"], run["fault"]) == ("failed", "nan_loss", "platform")
    assert [row["reason_code"] for row in run["attempts"]] == ["nan_loss", "nan_loss"]
    assert "twice, the second time at 50 % of the learning rate" in run["message"]
    assert read_order(scene, run).charged_fen == 0


def test_a_queued_run_is_paused_resumed_and_cancelled_without_a_worker(scene: Scene) -> None:
    run = scene.order_run()
    path = f"/api/v1/runs/{run['id']}"
    assert scene.call("POST", f"{path}/pause", "factory").json["state"] == "paused"  # type: ignore[index]
    assert scene.call("POST", f"{path}/pause", "factory").status_code == 202
    with scene.sessions.write() as session:
        assert fail_orphaned_runs(session, now=scene.work.clock()) == 0
        assert end_long_pauses(session, now=scene.work.clock() + timedelta(days=6)) == 0
    assert scene.call("POST", f"{path}/resume", "factory").json["state"] == "queued"  # type: ignore[index]
    assert scene.call("POST", f"{path}/cancel", "factory").json["state"] == "cancelled"  # type: ignore[index]
    assert (read_order(scene, run).state, read_order(scene, run).charged_fen) == (OrderState.REFUNDED, 0)
    refused = scene.call("POST", f"{path}/resume", "factory")
    assert (refused.status_code, refused.json["code"]) == (409, "run_state")  # type: ignore[index]


def test_a_pause_of_a_week_is_cancelled_and_the_rest_goes_back(scene: Scene) -> None:
    run = scene.order_run()
    scene.call("POST", f"/api/v1/runs/{run['id']}/pause", "factory")
    with scene.sessions.write() as session:
        assert end_long_pauses(session, now=scene.work.clock() + timedelta(days=8)) == 1
    assert scene.read_run(run["id"])["state"] == "cancelled"
    assert read_order(scene, run).charged_fen == 0


def test_an_adapter_no_better_than_its_base_is_held(scene: Scene) -> None:
    run = finish(scene, scene.order_run(min_delta=0.09))
    assert (run["state"], run["version_id"]) == ("held", None)
    assert (run["gate"]["code"], run["gate"]["rule"]) == ("gate_regression", "serving_engine")
    assert read_order(scene, run).state is OrderState.SETTLED


def test_an_unfiled_base_takes_no_model_voucher(scene: Scene) -> None:
    run = scene.start_run()
    body = {"offer_id": scene.offers["city"], "use_model_voucher": True}
    refused = scene.call("POST", f"/api/v1/runs/{run['id']}/quote", "factory", json=body)
    assert (refused.status_code, refused.json["code"]) == (409, "base_not_filed")  # type: ignore[index]
    scene.add_filing()
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/quote", "factory", json=body).status_code == 201


def test_runs_are_their_organisations_own(scene: Scene) -> None:
    run = scene.start_run()
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/events", None),
        ("POST", "/cancel", None),
        ("POST", "/quote", {"offer_id": scene.offers["city"]}),
        ("POST", "/accept", {"quote_id": "quo_1"}),
    ):
        options: dict[str, Any] = {"json": body} if body else {}
        answer = scene.call(
            method, f"/api/v1/runs/{run['id']}{path}", "rival", headers={"Idempotency-Key": "k"}, **options
        )
        assert (answer.status_code, answer.json["code"]) == (404, "not_found"), path  # type: ignore[index]
    assert scene.call("GET", "/api/v1/runs", "rival").json == {"runs": []}
    assert scene.read_run(run["id"])["state"] == "planned"


def test_events_replay_from_any_position(scene: Scene) -> None:
    run = finish(scene, scene.order_run(epochs=3))
    path = f"/api/v1/runs/{run['id']}/events"
    whole = read_stream(scene, path, "")
    assert [kind for _, kind in whole][-1] == "end"
    assert {kind for _, kind in whole} == {"state", "progress", "end"}
    for index in (0, 3, len(whole) - 3):
        assert read_stream(scene, path, whole[index][0]) == whole[index + 1 :]
    assert scene.call("GET", path, "factory", headers={"Last-Event-ID": "x"}).status_code == 422


def read_stream(scene: Scene, path: str, after: str) -> list[tuple[str, str]]:
    answer = scene.call("GET", path, "factory", headers={"Last-Event-ID": after} if after else {})
    assert answer.content_type.startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block.startswith("id: ")]
    return [(lines[0][4:], lines[1][7:]) for lines in (block.split("\n") for block in blocks)]
