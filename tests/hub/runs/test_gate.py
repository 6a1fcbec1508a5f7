"""The publish gate: known ways in which an adapter is silently ignored, and the figures of the task."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion, VersionState
from hub.deployments.tables import ObservedReplica
from hub.tuning.gate import Case, LogProbs, bound_gain, judge_parity, overlap_f1, score_cases
from hub.tuning.progress import locate_attempt
from hub.tuning.proving import EVALUATION_NAME, queue_proofs
from hub.worker import list_chores
from tests.hub.runs.openai_client import report_ready
from tests.hub.runs.scene import Scene, run_until

BASE, TRAINED = [-3.0, -2.5, -4.0], [-0.4, -0.2, -0.9]


def shifted(values: list[float], by: float) -> list[float]:
    return [value + by for value in values]


@pytest.mark.parametrize(
    ("trained", "served_base", "served", "code"),
    [
        (TRAINED, shifted(BASE, 0.01), shifted(TRAINED, -0.02), "proven"),
        (TRAINED, BASE, BASE, "adapter_not_applied"),  # target names that the engine does not know
        (BASE, BASE, BASE, "adapter_no_effect"),  # a B matrix of zeros
        (TRAINED, shifted(BASE, 1.0), shifted(TRAINED, 1.0), "base_differs"),  # another base
        (TRAINED, BASE, shifted(TRAINED, -1.0), "adapter_differs"),  # some other adapter, or a wrong scale
    ],
)
def test_an_adapter_that_is_not_the_trained_one_is_told_by_its_cause(
    trained: list[float], served_base: list[float], served: list[float], code: str
) -> None:
    found = judge_parity(LogProbs(BASE, trained, served_base, served))
    assert (found.passed, found.code) == (code == "proven", code)


def test_scores_of_a_json_task_with_few_answers() -> None:
    cases = [Case('{"seal": 1}', "no", '{"seal": 1}'), Case('{"seal": 2}', '{"seal": 2}', '{"seal": 2}')] * 10
    scores = score_cases(cases)
    assert scores["exact_match"] | {"gain_low": 0, "gain_high": 0} == {
        "base": 0.5,
        "adapter": 1.0,
        "gain_low": 0,
        "gain_high": 0,
    }
    assert scores["exact_match"]["gain_low"] > 0.2
    assert scores["json_valid"]["base"] == 0.5
    assert scores["labels"]['{"seal": 1}'] == {"precision": 1.0, "recall": 1.0, "support": 10}


def test_f1_counts_words_or_chinese_characters() -> None:
    assert overlap_f1("replace the seal", "replace seal") == pytest.approx(0.8)
    assert overlap_f1("更换密封", "更换密封圈") == pytest.approx(8 / 9)
    assert overlap_f1("", "x") == 0


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_the_interval_holds_the_mean_gain(pairs: list[tuple[int, int]]) -> None:
    base, adapter = [float(one) for one, _ in pairs], [float(two) for _, two in pairs]
    low, high = bound_gain(base, adapter)
    mean = (sum(adapter) - sum(base)) / len(pairs)
    assert -1 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


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
        if "prompt_logprobs" in body:
            told = [None] + [{str(token): {"logprob": self.logprobs[name]}} for token in body["prompt"][1:]]
            return 200, {"choices": [{"index": 0, "text": "", "prompt_logprobs": told}]}
        return 200, {"choices": [{"index": at, "text": f"{name} says"} for at in range(len(body["prompt"]))]}


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


def serve_run(scene: Scene, engine: Engine) -> str:
    """Train with the twin, keep evaluated rows as the trainer would, report the adapter ready on the engine."""
    run_id = str(scene.order_run(epochs=3)["id"])
    worker = scene.make_worker()
    run_until(worker, lambda: scene.read_run(run_id)["state"] == "succeeded")
    rows = [
        {"row": at, "expected": "adapter says", "base_logprob": -3.0, "adapter_logprob": -0.5, "ids": [1, 2, 3, 4],
         "learn": [[2, 4]]}
        for at in range(4)
    ]  # fmt: skip
    path = locate_attempt(scene.home, run_id, 1) / EVALUATION_NAME
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    version_id = scene.read_run(run_id)["version_id"]
    assert scene.call("POST", f"/api/v1/versions/{version_id}/deploy", "factory").status_code in (200, 201, 202)
    report_ready(scene)
    with scene.sessions.write() as session:
        session.scalars(select(ObservedReplica)).one().url = engine.url
        assert queue_proofs(session, now=scene.work.clock()) == 1
    run_until(worker, lambda: "served" in scene.read_run(run_id)["gate"])
    with scene.sessions.write() as session:
        assert queue_proofs(session, now=scene.work.clock()) == 0
    return run_id


def read_state(scene: Scene, run_id: str) -> VersionState:
    with scene.sessions.read() as session:
        return session.get_one(ModelVersion, scene.read_run(run_id)["version_id"]).state


def test_a_served_adapter_is_proven_with_the_customers_own_cases(
    scene: Scene, engines: Callable[[dict[str, float]], Engine]
) -> None:
    run_id = serve_run(scene, engines({"base": -3.01, "adapter": -0.52}))
    gate = scene.read_run(run_id)["gate"]
    assert gate["served"]["code"] == "proven"
    assert gate["served"]["adapter_error"] == pytest.approx(0.02)
    assert gate["scores"]["exact_match"] == {"base": 0.0, "adapter": 1.0, "gain_low": 1.0, "gain_high": 1.0}
    assert gate["scores"]["cases"][0] == {"expected": "adapter says", "base": "base says", "adapter": "adapter says"}
    assert read_state(scene, run_id) is VersionState.PRIVATE
    assert "queue proofs" in [chore.name for chore in list_chores()]


@pytest.mark.parametrize(
    ("logprobs", "code"),
    [({"base": -3.0, "adapter": -3.0}, "adapter_not_applied"), ({"base": -3.0}, "adapter_not_loaded")],
)
def test_an_adapter_that_the_engine_ignores_is_quarantined(
    scene: Scene, engines: Callable[[dict[str, float]], Engine], logprobs: dict[str, float], code: str
) -> None:
    run_id = serve_run(scene, engines(logprobs))
    assert scene.read_run(run_id)["gate"]["served"]["code"] == code
    assert read_state(scene, run_id) is VersionState.QUARANTINED
