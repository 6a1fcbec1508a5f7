"""The gate asks an engine of its own: published, held, quarantined, not measured, overridden, measured again."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion, VersionState
from hub.clock import read_clock, to_us
from hub.compute.tables import Node
from hub.deployments.tables import Evaluation, ObservedReplica, ReplicaSet
from hub.events.tables import Event
from hub.jobs.loop import JobLoop, Kind
from hub.jobs.tables import Job, JobState
from hub.orders.tables import BillVersion, Order, OrderState
from hub.tuning.examining import EVALUATION_NAME, PROBE_NAME, collect_questions
from hub.tuning.gating import gate_run
from hub.tuning.progress import locate_attempt
from hub.tuning.proving import queue_proofs
from hub.worker import list_chores
from serving import contract
from tests.hub.runs.openai_client import report_ready
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_deployments import lead
from tests.hub.runs.test_merging import merged_set, quick_merge
from tests.hub.runs.test_scaling import running, wanted

__all__ = ["quick_merge"]
OVER = {"succeeded", "held", "failed"}
SOUND = {"base": -3.01, "adapter": -0.52}


class Engine:
    """Answers like an engine: log-probabilities by served name, one text for each prompt."""

    def __init__(self, logprobs: dict[str, float]) -> None:
        self.logprobs = logprobs
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = engine.answer(body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = "base" if body["model"] == "base" else "adapter"
        if name not in self.logprobs:
            return 404, {"error": {"message": "no such model"}}
        prompts = body["prompt"]
        if "prompt_logprobs" in body:
            told = [[None, *({str(token): {"logprob": self.logprobs[name]}} for token in ids[1:])] for ids in prompts]
            return 200, {"choices": [{"index": at, "text": "", "prompt_logprobs": one} for at, one in enumerate(told)]}
        said = [
            {"index": at, "text": "a fact" if ids == [9] else f"{name} says", "finish_reason": "stop"}
            for at, ids in enumerate(prompts)
        ]
        return 200, {"choices": said[::-1]}  # in any order, as the protocol allows


@pytest.fixture
def engines() -> Iterator[Callable[[dict[str, float]], Engine]]:
    started: list[Engine] = []

    def start(logprobs: dict[str, float]) -> Engine:
        started.append(Engine(logprobs))
        return started[-1]

    yield start
    for engine in started:
        engine.server.shutdown()
        engine.server.server_close()


def make_worker(scene: Scene) -> JobLoop:
    return scene.make_worker(run_gate=Kind(gate_run, "beside"))


def train(scene: Scene, **recipe: float) -> str:
    """Train with the twin up to the gate and keep evaluated rows as the trainer would; returns the run's id."""
    run_id = str(scene.order_run(epochs=3, **recipe)["id"])
    worker = make_worker(scene)
    run_until(worker, lambda: has_wish(scene))
    worker.hand_back()
    out = locate_attempt(scene.home, run_id, 1)
    rows = [
        {"row": at + 1, "expected": "adapter says", "base_logprob": -3.0, "adapter_logprob": -0.5, "ids": [1, 2, 3, 4],
         "learn": [[2, 4]]}
        for at in range(4)
    ]  # fmt: skip
    (out / EVALUATION_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / PROBE_NAME).write_text(json.dumps({"ids": [9, 8, 7], "learn": [[1, 3]], "expected": "a fact"}) + "\n")
    return run_id


def report_evaluation(scene: Scene, url: str, *, adapter: str = "ready") -> None:
    """Report, as the pool controller does, the engines that evaluations wish for."""
    leader = scene.internal("POST", "pool/lead", "pool", json={"controller_id": "c", "contract_version": 1}).json
    assert leader is not None, leader
    with scene.sessions.read() as session:
        found = session.execute(
            select(ReplicaSet, ModelVersion)
            .join(Evaluation, Evaluation.set_id == ReplicaSet.id)
            .join(ModelVersion, ModelVersion.id == Evaluation.version_id)
            .where(Evaluation.ended_at.is_(None))
        ).all()
    assert found
    replicas = [
        contract.ObservedReplica(
            replica_id=f"rep_{row.id}", replica_epoch=1, set_id=row.id, slot_id="slo_x", allocation_epoch=1, url=url,
            state=contract.ReplicaState.READY, reason_code=None, since_at=to_us(read_clock()), device_ms=1,
        )
        for row, _ in found
    ]  # fmt: skip
    adapters = [
        contract.ObservedAdapter(
            digest=version.artifact_digest,
            ready_on=(f"rep_{row.id}",) if adapter == "ready" else (),
            state=contract.AdapterState(adapter),
            reason_code=None if adapter == "ready" else "load_failed",
        )
        for row, version in found
    ]
    message = contract.Observed(
        epoch=leader["epoch"], generation_seen=1, replicas=tuple(replicas), adapters=tuple(adapters), wants=()
    )
    answer = scene.internal("PUT", "pool/observed", "pool", json=contract.encode(message))
    assert answer.status_code == 200, answer.json


def gate(scene: Scene, engine: Engine) -> dict[str, Any]:
    """Train and let the gate ask an engine; returns the run when it is over."""
    run_id = train(scene)
    report_evaluation(scene, engine.url)
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)
    return scene.read_run(run_id)


def read_version(scene: Scene, run_id: str) -> ModelVersion:
    with scene.sessions.read() as session:
        return session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)).one()


def read_order(scene: Scene) -> Order:
    with scene.sessions.read() as session:
        return session.scalars(select(Order)).one()


def wait_in_vain(scene: Scene, run_id: str, passed: timedelta) -> None:
    """Let the gate's job look as old as `passed`, then work until the run is over."""
    with scene.sessions.write() as session:
        job = session.scalars(select(Job).where(Job.kind == "run.gate", Job.subject == run_id)).one()
        job.created_at, job.run_after = job.created_at - passed, read_clock()
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)


def test_a_sound_adapter_is_published_on_the_engines_figures(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run = gate(scene, engines(SOUND))
    assert (run["state"], run["gate"]["rule"], run["gate"]["code"]) == ("succeeded", "serving_engine", "passed")
    assert run["gate"]["parity"]["adapter_error"] == pytest.approx(0.02)
    scores = run["gate"]["scores"]
    assert scores["exact_match"] == {"base": 0.0, "adapter": 1.0, "gain_low": 1.0, "gain_high": 1.0}
    assert (scores["stop_rate"]["adapter"], scores["probe"]["adapter"], scores["probe"]["n"]) == (1.0, 1.0, 1)
    assert read_version(scene, run["id"]).state is VersionState.PRIVATE
    assert read_order(scene).state is OrderState.SETTLED
    with scene.sessions.read() as session:
        assert session.scalars(select(Evaluation)).one().ended_at is not None


def test_the_owners_cases_are_shown_to_the_owner_only(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run = gate(scene, engines(SOUND))
    path = f"/api/v1/runs/{run['id']}/cases"
    found = scene.call("GET", path, "factory").json
    assert found is not None
    case = found["cases"][0]
    assert (case["expected"], case["base"], case["adapter"]) == ("adapter says", "base says", "adapter says")
    assert case["question"].startswith("Pump ")
    for other in ("operator", "rival", "auditor"):
        assert scene.call("GET", path, other).status_code in (403, 404), other
        shown = scene.call("GET", f"/api/v1/runs/{run['id']}", other)
        assert "adapter says" not in shown.text
    with scene.sessions.read() as session:
        assert all("adapter says" not in str(event.payload) for event in session.scalars(select(Event)))


def test_answers_that_recur_are_labels_for_their_owner_and_no_figure_of_the_gate(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run_id = train(scene)
    path = locate_attempt(scene.home, run_id, 1) / EVALUATION_NAME
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + [line.replace("adapter says", "seal leaks") for line in lines[2:]]))
    report_evaluation(scene, engines(SOUND).url)
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)
    found = scene.call("GET", f"/api/v1/runs/{run_id}/cases", "factory").json
    assert found is not None
    assert found["labels"] == {
        "adapter says": {"precision": 0.5, "recall": 1.0, "support": 2},
        "seal leaks": {"precision": 0.0, "recall": 0.0, "support": 2},
    }
    for who in ("factory", "operator"):
        assert "seal leaks" not in scene.call("GET", f"/api/v1/runs/{run_id}", who).text


def test_deleting_the_data_erases_what_the_gate_kept_of_it(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run = gate(scene, engines(SOUND))
    assert scene.call("GET", f"/api/v1/runs/{run['id']}/cases", "factory").json["cases"]  # type: ignore[index]
    dataset_id = scene.call("GET", "/api/v1/datasets", "factory").json["datasets"][0]["id"]  # type: ignore[index]
    receipt = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    (erased,) = receipt["runs"]
    assert (erased["run_id"], erased["files_removed"]) == (run["id"], 2)
    assert scene.call("GET", f"/api/v1/runs/{run['id']}/cases", "factory").json["cases"] == []  # type: ignore[index]
    left = [
        path for path in (scene.home / "runs").rglob("*") if path.is_file() and b"adapter says" in path.read_bytes()
    ]
    assert left == []


@pytest.mark.parametrize("logprobs", [{"base": -3.0, "adapter": -3.0}, {"base": -3.0, "adapter": -1.9}])
def test_an_adapter_that_the_engine_ignores_or_mistakes_is_quarantined_for_good(
    scene: Scene, engines: Callable[[dict[str, float]], Engine], logprobs: dict[str, float]
) -> None:
    run = gate(scene, engines(logprobs))
    assert (run["state"], run["version_id"], run["fault"]) == ("failed", None, "platform")
    assert run["reason_code"] == run["gate"]["code"] in ("adapter_not_applied", "adapter_differs")
    assert read_version(scene, run["id"]).state is VersionState.QUARANTINED
    reason = {"reason": "we want it all the same, for the night shift"}
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/publish", "factory", json=reason).status_code == 409
    assert read_order(scene).state is OrderState.REFUNDED, "what is not what was trained is our fault"


def test_a_worse_adapter_is_held_as_a_draft_until_its_owner_says_why(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run_id = train(scene)
    path = locate_attempt(scene.home, run_id, 1) / EVALUATION_NAME
    path.write_text(path.read_text().replace('"adapter_logprob": -0.5', '"adapter_logprob": -3.9'))
    report_evaluation(scene, engines({"base": -3.0, "adapter": -3.9}).url)
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)
    run = scene.read_run(run_id)
    assert (run["state"], run["reason_code"]) == ("held", "gate_regression")
    version = read_version(scene, run_id)
    assert version.state is VersionState.DRAFT
    assert scene.call("POST", f"/api/v1/versions/{version.id}/deploy", "factory").status_code == 409
    path_ = f"/api/v1/runs/{run_id}/publish"
    assert scene.call("POST", path_, "factory", json={"reason": "short"}).status_code == 422
    assert scene.call("POST", path_, "rival", json={"reason": "we want to use it"}).status_code == 404
    reason = "only the spelling of part numbers matters here"
    assert scene.call("POST", path_, "factory", json={"reason": reason}).status_code == 202
    assert read_version(scene, run_id).state is VersionState.PRIVATE
    with scene.sessions.read() as session:
        told = session.scalars(select(Event).where(Event.topic == "run.gate_overridden")).one()
    assert (told.payload["reason"], told.actor_id) == (reason, scene.actors["factory"].user_id)
    assert told.payload["gate"]["code"] == "gate_regression"


def test_without_an_engine_it_is_held_and_may_be_measured_again(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run_id = train(scene)
    wait_in_vain(scene, run_id, timedelta(minutes=16))
    run = scene.read_run(run_id)
    assert (run["state"], run["reason_code"]) == ("held", "gate_not_measured")
    assert run["gate"]["why"] == "no_engine"
    assert read_order(scene).state is OrderState.SETTLED
    assert scene.call("POST", f"/api/v1/runs/{run_id}/measure", "factory").status_code == 202
    worker = make_worker(scene)
    run_until(worker, lambda: has_wish(scene))
    report_evaluation(scene, engines(SOUND).url)
    run_until(worker, lambda: scene.read_run(run_id)["version_id"] is not None)
    measured = scene.read_run(run_id)["gate"]
    assert (measured["code"], "why" in measured, "reason" in measured) == ("passed", False, False)
    assert scene.call("POST", f"/api/v1/runs/{run_id}/measure", "factory").status_code == 409


def test_without_room_for_an_engine_it_is_held_once_it_waited_long_enough(scene: Scene) -> None:
    with scene.sessions.write() as session:
        session.scalars(select(Node)).one().serve_slots = 0
    run_id = str(scene.order_run(epochs=3)["id"])

    def waits() -> bool:
        with scene.sessions.read() as session:
            job = session.scalar(select(Job).where(Job.kind == "run.gate"))
            return job is not None and job.state is JobState.WAITING and job.attempts > 0

    run_until(make_worker(scene), waits)
    assert (scene.read_run(run_id)["state"], has_wish(scene)) == ("gating", False)
    wait_in_vain(scene, run_id, timedelta(minutes=16))
    run = scene.read_run(run_id)
    assert (run["state"], run["reason_code"]) == ("held", "gate_not_measured")
    assert (run["gate"]["why"], run["gate"]["reason"]) == ("no_room", "no room for an engine")
    assert read_order(scene).state is OrderState.SETTLED


def has_wish(scene: Scene) -> bool:
    with scene.sessions.read() as session:
        return session.scalar(select(Evaluation.id).where(Evaluation.ended_at.is_(None))) is not None


def test_an_adapter_that_no_engine_can_load_is_held_with_the_engines_reason(scene: Scene) -> None:
    run_id = train(scene)
    report_evaluation(scene, "http://127.0.0.1:9", adapter="failed")
    wait_in_vain(scene, run_id, timedelta(minutes=2))
    run = scene.read_run(run_id)
    assert (run["state"], run["reason_code"], run["gate"]["reason"]) == ("held", "gate_not_measured", "load_failed")
    assert run["gate"]["why"] == "engine_failed"


def test_rows_beyond_the_engines_context_are_left_out(tmp_path: Path) -> None:
    lines = [
        {"row": 1, "expected": "a", "base_logprob": -1, "adapter_logprob": -1, "ids": [1] * size}
        | {"learn": [[size - 4, size]]}
        for size in (50, 90, 99, 100, 200)
    ]
    (tmp_path / EVALUATION_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = collect_questions(tmp_path, None, max_tokens=14, context_tokens=100)
    assert asked is not None
    assert [len(question.ids) for question in asked.task] == [50, 90]
    longer = collect_questions(tmp_path, None, max_tokens=500, context_tokens=100)
    assert longer is not None
    assert longer.max_tokens == 50


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
def test_rows_whose_texts_hold_other_ends_of_lines_are_read(tmp_path: Path, mark: str) -> None:
    answer, question = f"seal{mark}leaks", f"Pump{mark}7"
    row = {"row": 1, "expected": answer, "base_logprob": -1, "adapter_logprob": -1, "ids": [1] * 5, "learn": [[2, 5]]}
    for name, line in (
        (EVALUATION_NAME, row),
        (PROBE_NAME, {"ids": [9, 8, 7], "learn": [[1, 3]], "expected": answer}),
        ("valid.jsonl", {"messages": [{"role": "user", "content": question}]}),
    ):
        (tmp_path / name).write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    asked = collect_questions(tmp_path, tmp_path / "valid.jsonl", max_tokens=4)
    assert asked is not None
    assert [[found.expected for found in paper] for paper in (asked.task, asked.probe)] == [[answer], [answer]]
    assert asked.texts == [question]


def test_cancelling_at_the_gate_changes_nothing(scene: Scene) -> None:
    run_id = train(scene)
    assert scene.call("POST", f"/api/v1/runs/{run_id}/cancel", "factory").status_code == 202
    assert scene.read_run(run_id)["cancel_requested_at"] is None


@pytest.mark.parametrize(
    ("logprobs", "code"),
    [
        (SOUND, "proven"),
        ({"base": -3.0, "adapter": -3.0}, "adapter_not_applied"),
        ({"base": -3.0}, "adapter_not_loaded"),
    ],
)
def test_the_engine_of_the_callers_is_proven_too(
    scene: Scene, engines: Callable[[dict[str, float]], Engine], logprobs: dict[str, float], code: str
) -> None:
    run = gate(scene, engines(SOUND))
    assert scene.call("POST", f"/api/v1/versions/{run['version_id']}/deploy", "factory").status_code in (200, 201, 202)
    report_ready(scene)
    with scene.sessions.write() as session:
        session.scalars(select(ObservedReplica)).one().url = engines(logprobs).url
        assert queue_proofs(session, now=scene.work.clock()) == 1
    run_until(make_worker(scene), lambda: "served" in scene.read_run(run["id"])["gate"])
    assert scene.read_run(run["id"])["gate"]["served"]["code"] == code
    wanted = VersionState.PRIVATE if code == "proven" else VersionState.QUARANTINED
    assert read_version(scene, run["id"]).state is wanted
    with scene.sessions.read() as session:
        corrected = [(found.fault, found.fee_fen < 0) for found in session.scalars(select(BillVersion))]
    assert corrected == ([] if code == "proven" else [("platform", True)]), "a settled bill is given back"
    with scene.sessions.write() as session:
        assert queue_proofs(session, now=scene.work.clock()) == 0
    assert "queue proofs" in [chore.name for chore in list_chores()]


def report_apart(scene: Scene, version: ModelVersion, base_url: str, merged_url: str) -> None:
    """Report an engine of every wanted set, and the adapter on those whose weights carry it."""
    epoch, now = lead(scene), wanted(scene)
    own = {row.set_id for row in now.replica_sets if row.merged}
    replicas = tuple(replace(one, url=merged_url if one.set_id in own else base_url) for one in running(now))
    carrying = tuple(one.replica_id for one in replicas if one.set_id in own)
    adapter = contract.ObservedAdapter(version.artifact_digest, carrying, contract.AdapterState.READY)
    message = contract.Observed(epoch, now.generation, replicas, (adapter,))
    assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200


@pytest.mark.usefixtures("quick_merge")
def test_weights_that_carry_the_adapter_are_never_asked_for_the_base(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    base, merged = engines(SOUND).url, engines({"base": -0.52, "adapter": -0.52}).url
    run_id = train(scene, use_dora=1)
    run_until(make_worker(scene), lambda: merged_set(scene) is not None)
    version = read_version(scene, run_id)
    report_apart(scene, version, base, merged)
    run_until(make_worker(scene), lambda: scene.read_run(run_id)["state"] in OVER)
    assert (scene.read_run(run_id)["state"], scene.read_run(run_id)["gate"]["code"]) == ("succeeded", "passed")
    assert merged_set(scene) is None
    assert scene.call("POST", f"/api/v1/versions/{version.id}/deploy", "factory").status_code == 202
    run_until(make_worker(scene), lambda: merged_set(scene) is not None)
    report_apart(scene, version, base, merged)
    with scene.sessions.write() as session:
        assert queue_proofs(session, now=scene.work.clock()) == 1
    run_until(make_worker(scene), lambda: "served" in scene.read_run(run_id)["gate"])
    assert scene.read_run(run_id)["gate"]["served"]["code"] == "proven"
