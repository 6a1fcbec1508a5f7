"""Cases S4-03 to S4-09 and S4-12 of the threat list: hostile settings, bases, floods, cancellations and trainers."""

import json
import math
from typing import Any

import openai
import pytest
from sqlalchemy import func, select

from finetune.recipe_bounds import BOUNDS, WISHES
from finetune.spec import Event, Progress
from hub.ledger.tables import Transfer
from hub.orders.tables import Order, OrderState
from hub.tuning.progress import MAX_CURVE_POINTS, locate_attempt, read_curve
from hub.tuning.service import MAX_OPEN_RUNS
from hub.tuning.states import TERMINAL, TRAINED, UNORDERED, RunState
from hub.tuning.streaming import Position, Source, stream_run
from hub.tuning.tables import Run
from tests.hub.runs.openai_client import make_client
from tests.hub.runs.scene import Scene, run_until, sound_rows

OVER = {str(state) for state in TERMINAL}
HOSTILE: list[tuple[str, Any]] = [
    ("learning_rate", 0),
    ("learning_rate", -1),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", 1e9),
    ("epochs", 10**6),
    ("rank", 10**6),
    ("batch_tokens", 0),
    ("batch_rows", 0),
    ("epochs", "3"),
    ("epochs", True),
    ("output_dir", "/etc"),
    ("deepspeed", "x.json"),
    ("report_to", "http://evil.example"),
    ("__class__", 1),
    ("x" * 5000, 1),
]


HOSTILE_BASES = (
    "/etc/passwd",
    "../../etc",
    "operator-co/../operator-co/base",
    "operator-co/base/../../x",
    "operator-co/base@1/../2",
    "operator-co/base@main",
    "file:///etc/passwd",
    "https://evil.example/model",
    "hf://meta/llama",
    "C:\\models",
    "$(id)",
)


def create(scene: Scene, dataset_id: str, **changes: Any) -> Any:
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders"} | changes
    return scene.call(
        "POST", "/api/v1/runs", "factory", data=json.dumps(body), headers={"Content-Type": "application/json"}
    )


def order(scene: Scene, dataset_id: str, **recipe: float) -> str:
    """Create, plan, quote and accept a run; returns its id."""
    run_id = str(create(scene, dataset_id, recipe=recipe).json["id"])
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] == "planned")
    path = f"/api/v1/runs/{run_id}"
    quote = scene.call("POST", f"{path}/quote", "factory", json={"offer_id": scene.offers["city"]}).json
    assert quote is not None
    headers = {"Idempotency-Key": run_id}
    accepted = scene.call("POST", f"{path}/accept", "factory", json={"quote_id": quote["id"]}, headers=headers)
    assert accepted.status_code == 202, accepted.json
    return run_id


def count_runs(scene: Scene) -> int:
    with scene.sessions.read() as session:
        return session.scalar(select(func.count()).select_from(Run)) or 0


def count_transfers(scene: Scene) -> int:
    with scene.sessions.read() as session:
        return session.scalar(select(func.count()).select_from(Transfer)) or 0


def test_s4_03_rows_that_cannot_be_trained_are_refused_before_any_charge(scene: Scene) -> None:
    moved = count_transfers(scene)
    for content in (b"", b"\n \n", sound_rows(1)):
        answer = scene.upload(content)
        if answer.status_code == 202:
            dataset_id = str(answer.json["id"])  # type: ignore[index]
            worker = scene.make_worker()
            run_until(worker, lambda key=dataset_id: scene.dataset_state(key) != "checking")  # type: ignore[misc]
            assert scene.dataset_state(dataset_id) == "blocked"
            assert create(scene, dataset_id).status_code == 409
        else:
            assert answer.status_code == 422, answer.text
    assert (count_runs(scene), count_transfers(scene)) == (0, moved)


def test_s4_06_a_job_name_with_shell_characters_is_refused_or_inert(scene: Scene) -> None:
    dataset_id, client = scene.add_dataset(), make_client(scene)
    for name in ("$(touch x)", "a;b", "a\nb", "`id`", "../x", "a b", "-rf", "名字"):
        assert create(scene, dataset_id, model_name=name).status_code == 422, name
    file = f"file-{dataset_id.partition('_')[2]}"
    job = client.fine_tuning.jobs.create(model=scene.base, training_file=file, suffix="$(touch x)\n; rm -rf /")
    assert job.model_extra is not None
    run_id = str(job.model_extra["guanmo"]["run_id"])
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    done = scene.read_run(run_id)
    assert (done["model_name"], done["state"]) == ("factory-co/touch-x-rm-rf", "succeeded")
    assert list(scene.home.rglob("x")) == []


def test_s4_04_hostile_settings_are_refused_and_only_listed_keys_reach_the_trainer(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    for name, value in HOSTILE:
        refused = create(scene, dataset_id, recipe={name: value})
        # NaN and infinity are no JSON: the body is refused before its fields are read.
        wanted = 422 if not isinstance(value, float) or math.isfinite(value) else 400
        assert refused.status_code == wanted, (name, value, refused.text)
        assert len(refused.text) < 2000
    for smuggled in ("output_dir", "deepspeed", "report_to"):
        refused = create(scene, dataset_id, **{smuggled: "x"})
        assert refused.status_code == 422, smuggled
    assert count_runs(scene) == 0
    sound = {"learning_rate": 1e-3, "epochs": 2, "rank": 8}
    run_id = order(scene, dataset_id, **sound)
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    for spec in (scene.home / "runs" / run_id).rglob("spec.json"):
        assert set(json.loads(spec.read_text())["recipe"]) == set(sound) < set(BOUNDS) | set(WISHES)


def test_s4_04_the_openai_shape_refuses_them_too(scene: Scene) -> None:
    client = make_client(scene)
    file = client.files.create(file=("a.jsonl", b'{"messages": []}\n'), purpose="fine-tune").id
    hostile: dict[str, tuple[Any, ...]] = {
        "n_epochs": (10**6, 0),
        "batch_size": (0,),
        "learning_rate_multiplier": (0, -1, 1e9),
        "output_dir": ("/etc",),
    }
    for name, values in hostile.items():
        for value in values:
            body = {"hyperparameters": {name: value}}
            with pytest.raises(openai.BadRequestError) as refused:
                client.fine_tuning.jobs.create(model=scene.base, training_file=file, extra_body=body)
            assert refused.value.param == f"hyperparameters.{name}"
    assert count_runs(scene) == 0


def test_s4_05_a_base_is_an_id_or_name_of_the_catalogue(scene: Scene) -> None:
    dataset_id, client = scene.add_dataset(), make_client(scene)
    file = f"file-{dataset_id.partition('_')[2]}"
    for base in HOSTILE_BASES:
        assert create(scene, dataset_id, base=base).status_code == 404, base
        with pytest.raises(openai.NotFoundError) as refused:
            client.fine_tuning.jobs.create(model=base, training_file=file)
        assert refused.value.param == "model", base
    assert count_runs(scene) == 0


def test_s4_05_the_plan_pins_the_base_by_its_digests(scene: Scene) -> None:
    run_id = order(scene, scene.add_dataset(), epochs=1)
    (spec,) = (scene.home / "runs" / run_id).glob("plan-1/spec.json")
    base = json.loads(spec.read_text())["base"]
    assert len(base["weights_digest"]) == len(base["tokenizer_digest"]) == 64
    assert base["path"].startswith(str(scene.settings.artifacts))


def test_s4_07_a_thousand_jobs_meet_the_quota_and_one_key_is_one_job(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders"}
    same = {
        scene.call("POST", "/api/v1/runs", "factory", json=body, headers={"Idempotency-Key": "once"}).json["id"]  # type: ignore[index]
        for _ in range(20)
    }
    assert len(same) == 1
    answers = [scene.call("POST", "/api/v1/runs", "factory", json=body) for _ in range(1000)]
    taken = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(taken), len(refused)) == (MAX_OPEN_RUNS - 1, 1001 - MAX_OPEN_RUNS)
    assert {answer.json["code"] for answer in refused} == {"run_quota"}  # type: ignore[index]
    assert count_runs(scene) == MAX_OPEN_RUNS


def cancel(scene: Scene, run_id: str) -> str:
    answer = scene.call("POST", f"/api/v1/runs/{run_id}/cancel", "factory")
    assert answer.status_code == 202, answer.json
    return str(answer.json["state"])  # type: ignore[index]


def test_s4_08_cancel_at_every_state_twice_releases_the_hold_once(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    for state in set(RunState) - TERMINAL - UNORDERED - TRAINED:
        run_id = order(scene, dataset_id, epochs=1)
        with scene.sessions.write() as session:
            run = session.get_one(Run, run_id)
            run.state, run.attempt, run.fence = state, 1, 1
        cancel(scene, run_id)
        cancel(scene, run_id)
        run_until(scene.make_worker(), lambda run_id=run_id: scene.read_run(run_id)["state"] in OVER)  # type: ignore[misc]
        done = scene.read_run(run_id)
        assert (done["state"], done["reason_code"]) == ("cancelled", "user_cancelled"), state
        with scene.sessions.read() as session:
            closed = session.get_one(Order, done["order_id"])
        assert (closed.state, closed.charged_fen) == (OrderState.REFUNDED, 0), state
        moved = count_transfers(scene)
        assert cancel(scene, run_id) == "cancelled"
        run_until(scene.make_worker(), lambda: True)
        assert count_transfers(scene) == moved, state


def test_s4_08_cancel_before_an_order_and_after_the_work_changes_no_money(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    planned = str(create(scene, dataset_id).json["id"])
    assert [cancel(scene, planned), cancel(scene, planned)] == ["cancelled", "cancelled"]
    run_id = order(scene, dataset_id, epochs=1)
    for state in TRAINED:
        with scene.sessions.write() as session:
            session.get_one(Run, run_id).state = state
        assert cancel(scene, run_id) == str(state)
    with scene.sessions.write() as session:
        session.get_one(Run, run_id).state = RunState.QUEUED
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] == "succeeded")
    moved = count_transfers(scene)
    assert [cancel(scene, run_id), cancel(scene, run_id)] == ["succeeded", "succeeded"]
    assert count_transfers(scene) == moved


def write_lines(scene: Scene, run_id: str, lines: list[str]) -> None:
    with (locate_attempt(scene.home, run_id, 1) / "progress.jsonl").open("a") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def tell(seq: int, step: int, *, attempt: int = 1, **metrics: Any) -> str:
    return Progress(attempt, attempt, seq, 0, Event.STEP, step=step, metrics=metrics).to_json()


def test_s4_09_a_trainers_hostile_lines_do_no_harm(scene: Scene) -> None:
    run_id = order(scene, scene.add_dataset(), epochs=4, validations=2)
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] == "succeeded")
    html = "<script>alert(1)</script>"
    write_lines(
        scene,
        run_id,
        [
            tell(1001, 900, attempt=2, loss=7.0),  # of an attempt that is not this folder's
            tell(1002, 2, loss=5.0),  # a step that goes back
            tell(1003, 5, loss=1.5).replace("1.5", "NaN"),
            tell(1004, 6, loss=1.5).replace("1.5", "1e999"),
            tell(1005, 7, loss=html, stage=html),
            tell(1006, 8, loss=0.5).replace('"step":8', '"step":"8"'),
            "not a line",
            tell(1007, 9, loss=0.25),
        ],
    )
    curve = {point["step"]: point["loss"] for point in scene.read_run(run_id)["curve"] if "loss" in point}
    assert (curve[2], curve[5], curve[6], curve[9]) == (5.0, None, None, 0.25)
    assert not {8, 900} & set(curve)
    source = Source(scene.sessions, scene.home, run_id, scene.actors["factory"].organisation_id)
    sent = "".join(stream_run(source, Position(), stream_s=0.0))
    for line in sent.split("\n"):
        if line.startswith("data: "):
            json.loads(line.removeprefix("data: "), parse_constant=pytest.fail)
    log = scene.call("GET", f"/api/v1/runs/{run_id}/log", "factory").text
    assert "script" not in log


def test_s4_09_a_million_points_are_thinned(scene: Scene) -> None:
    run_id = order(scene, scene.add_dataset(), epochs=1)
    out = locate_attempt(scene.home, run_id, 1)
    out.mkdir(parents=True)
    head, tail = tell(7, 7, loss=0.5).split('"seq":7,"step":7')
    write_lines(scene, run_id, [f'{head}"seq":{n},"step":{n}{tail}' for n in range(1, 1_000_001)])
    points = read_curve(scene.home, run_id)
    assert MAX_CURVE_POINTS // 2 < len(points) <= 2 * MAX_CURVE_POINTS
    assert (points[-1]["step"], len({point["step"] for point in points})) == (1_000_000, len(points))
    source = Source(scene.sessions, scene.home, run_id, scene.actors["factory"].organisation_id)
    sent = [text for text in stream_run(source, Position(), stream_s=0.0) if "event: progress" in text]
    assert len(sent) <= 2 * MAX_CURVE_POINTS
    assert '"step": 1000000' in sent[-1]


def test_s4_09_a_result_of_another_run_or_fence_is_none(scene: Scene) -> None:
    run_id = order(scene, scene.add_dataset(), epochs=2, patience=8)
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    done = scene.read_run(run_id)
    assert (done["state"], done["fault"], done["version_id"]) == ("failed", "platform", None)
    assert {row["reason_code"] for row in done["attempts"]} == {"lost"}
    with scene.sessions.read() as session:
        assert session.get_one(Order, done["order_id"]).charged_fen == 0


def test_s4_12_a_trainer_that_fills_the_disk_or_forks_is_not_charged(scene: Scene) -> None:
    run_id = order(scene, scene.add_dataset(), epochs=2, patience=9)
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    done = scene.read_run(run_id)
    assert (done["state"], done["fault"]) == ("failed", "platform")
    with scene.sessions.read() as session:
        closed = session.get_one(Order, done["order_id"])
    assert (closed.state, closed.charged_fen) == (OrderState.REFUNDED, 0)
    assert scene.work.launch.list_mine() == []
    assert all(path.stat().st_size <= 100_000 for path in locate_attempt(scene.home, run_id, 1).glob("large*"))
