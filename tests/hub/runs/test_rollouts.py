"""Rollouts: a share of the calls, promoted or taken back, by the owner, by errors, by the cases of the probe."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import select

from hub.clock import to_us
from hub.deployments import rollout_rules as rules
from hub.deployments.rollouts import watch_rollouts
from hub.deployments.tables import ObservedReplica, Rollout
from hub.events.tables import Event
from hub.jobs.tables import Job, JobState
from hub.metering.service import accept_usage
from hub.tuning.kinds import PROBE_KIND
from hub.tuning.probing import queue_probes
from serving import contract
from serving.contract import engine_name
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_deployments import add_adapter, deploy, lead, models, observe
from tests.hub.runs.test_scaling import running, wanted

NAME = "factory-co/orders"


class Stage:
    """Two versions of one name: `stable` behind the alias, `version` on its way."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.stable = add_adapter(scene, "a")
        deploy(scene, self.stable)
        self.epoch = lead(scene)
        observe(scene, self.epoch, a="ready")
        self.version = add_adapter(scene, "b")
        self.sent = 0

    def start(self, percent: int = 5, **more: Any) -> dict[str, Any]:
        body = {"version_id": self.version, "percent": percent, **more}
        answer = self.scene.call("POST", "/api/v1/rollouts", "factory", json=body)
        assert answer.status_code == 202, answer.json
        observe(self.scene, self.epoch, a="ready", b="ready")
        return answer.json  # type: ignore[return-value]

    def step(self, rollout_id: str, step: str, body: dict[str, Any] | None = None, who: str = "factory") -> Any:
        return self.scene.call("POST", f"/api/v1/rollouts/{rollout_id}/{step}", who, json=body)

    def read(self) -> dict[str, Any]:
        newest: dict[str, Any] = self.scene.call("GET", "/api/v1/rollouts", "factory").json["rollouts"][0]  # type: ignore[index]
        return newest

    def shares(self) -> list[tuple[str, int]]:
        return [(target.version_id, target.weight) for target in models(self.scene)[NAME].targets]

    def call(self, version_id: str, *, good: int = 0, bad: int = 0) -> None:
        """Let calls of a version end, well or by the engine's fault."""
        reasons = [contract.EndReason.STOP] * good + [contract.EndReason.UPSTREAM_DIED] * bad
        records = tuple(self._record(version_id, reason, number) for number, reason in enumerate(reasons))
        with self.scene.sessions.write() as session:
            accept_usage(session, contract.UsageBatch("gw", 1, self.sent, records), self.scene.work.clock())
        self.sent += len(records)

    def watch(self) -> int:
        with self.scene.sessions.write() as session:
            return watch_rollouts(session, self.scene.work.clock())

    def topics(self) -> list[str]:
        with self.scene.sessions.read() as session:
            found = session.scalars(select(Event.topic).where(Event.topic.like("rollout.%")).order_by(Event.seq))
            return list(found)

    def _record(self, version_id: str, reason: contract.EndReason, number: int) -> contract.UsageRecord:
        at = to_us(self.scene.work.clock())
        name = f"req_{self.sent + number}"
        owner = self.scene.actors["factory"].organisation_id
        ids = (name, 1, "alw_1", owner, "key_1", None, version_id, "d" * 64, "prc_1", "rep_1", 1)
        return contract.UsageRecord(*ids, 5, 0, 5, at, at, reason, contract.UsageStatus.COMPLETE, False)


@pytest.fixture
def stage(scene_on_both: Scene) -> Stage:
    return Stage(scene_on_both)


def test_a_share_grows_and_the_promoted_version_takes_the_name(stage: Stage) -> None:
    started = stage.start(5)
    assert started["state"] == "waiting"
    assert stage.read()["state"] == "running"
    assert stage.shares() == [(stage.version, 5), (stage.stable, 95)]
    assert stage.step(started["id"], "share", {"percent": 50}).json["percent"] == 50
    assert stage.shares() == [(stage.version, 50), (stage.stable, 50)]
    assert stage.step(started["id"], "promote").json["state"] == "promoted"
    assert stage.shares() == [(stage.version, 1)]
    assert stage.step(started["id"], "promote").json["state"] == "promoted"
    assert stage.step(started["id"], "take-back").status_code == 409
    rolled = stage.scene.call("POST", "/api/v1/deployments/roll-back", "factory", json={"public_name": NAME})
    assert rolled.json["version_id"] == stage.stable  # type: ignore[index]
    assert stage.shares() == [(stage.stable, 1)]
    assert stage.topics() == ["rollout.started", "rollout.began", "rollout.shifted", "rollout.promoted"]


def test_taking_back_is_at_once_and_leaves_both_callable_by_number(stage: Stage) -> None:
    rollout_id = stage.start(25)["id"]
    assert stage.step(rollout_id, "take-back").json["reason_code"] == "by_owner"
    assert stage.shares() == [(stage.stable, 1)]
    assert {f"{NAME}@1", f"{NAME}@2"} <= models(stage.scene).keys()
    assert stage.step(rollout_id, "share", {"percent": 50}).status_code == 409
    assert stage.step(rollout_id, "promote").status_code == 409
    assert stage.start(50)["state"] == "running"


def test_too_many_errors_take_it_back_and_the_engines_weather_does_not(stage: Stage) -> None:
    stage.start(50)
    stage.call(stage.stable, good=80, bad=20)
    stage.call(stage.version, good=15, bad=4)
    assert stage.watch() == 0, "too few calls to judge"
    stage.call(stage.version, good=1)
    assert stage.watch() == 0, "as bad as the stable one"
    stage.call(stage.version, bad=10)
    assert stage.watch() == 1
    assert (stage.read()["state"], stage.read()["reason_code"]) == ("taken_back", rules.ERRORS)
    assert stage.shares() == [(stage.stable, 1)]
    assert stage.watch() == 0


def test_a_version_that_cannot_be_loaded_never_gets_a_call(stage: Stage) -> None:
    body = {"version_id": stage.version, "percent": 50}
    assert stage.scene.call("POST", "/api/v1/rollouts", "factory", json=body).status_code == 202
    observe(stage.scene, stage.epoch, a="ready", b="failed")
    assert stage.shares() == [(stage.stable, 1)]
    assert stage.watch() == 1
    assert stage.read()["reason_code"] == "load_failed"


def test_a_version_taken_back_while_it_waits_takes_the_name_only_when_deployed_anew(stage: Stage) -> None:
    body = {"version_id": stage.version, "percent": 50}
    started = stage.scene.call("POST", "/api/v1/rollouts", "factory", json=body).json
    assert started["state"] == "waiting"  # type: ignore[index]
    assert stage.step(started["id"], "take-back").json["state"] == "taken_back"  # type: ignore[index]
    observe(stage.scene, stage.epoch, a="ready", b="ready")
    assert f"{NAME}@2" in models(stage.scene)
    assert stage.shares() == [(stage.stable, 1)]
    assert stage.scene.call("DELETE", f"/api/v1/versions/{stage.version}/deploy", "factory").status_code == 200
    deploy(stage.scene, stage.version)
    observe(stage.scene, stage.epoch, a="ready", b="ready")
    assert stage.shares() == [(stage.version, 1)]


def test_undeploying_either_version_ends_it(stage: Stage) -> None:
    stage.start(50)
    stage.scene.call("DELETE", f"/api/v1/versions/{stage.version}/deploy", "factory")
    assert (stage.read()["state"], stage.read()["reason_code"]) == ("taken_back", "undeployed")
    assert stage.shares() == [(stage.stable, 1)]


def test_what_does_not_fit_is_refused(stage: Stage) -> None:
    def start(version_id: str, who: str = "factory", percent: int = 5) -> int:
        body = {"version_id": version_id, "percent": percent}
        return stage.scene.call("POST", "/api/v1/rollouts", who, json=body).status_code

    assert start(stage.stable) == 409, "it answers already"
    assert start(stage.version, percent=100) == 422
    assert start(stage.version, who="rival") == 404
    rollout_id = stage.start(5)["id"]
    assert start(stage.version) == 409, "one at a time"
    assert stage.step(rollout_id, "promote", who="rival").status_code == 404
    third = add_adapter(stage.scene, "c")
    deploy(stage.scene, third)
    observe(stage.scene, stage.epoch, a="ready", b="ready", c="ready")
    assert stage.shares() == [(stage.version, 5), (stage.stable, 95)], "the alias waits for the rollout's end"


@contextmanager
def run_engine() -> Iterator[tuple[str, dict[str, str]]]:
    """An engine that answers every chat with the text set for its served name."""
    answers: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = json.dumps({"choices": [{"index": 0, "message": {"content": answers[body["model"]]}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def engine() -> Iterator[tuple[str, dict[str, str]]]:
    with run_engine() as running_engine:
        yield running_engine


@pytest.mark.parametrize(("answer", "state"), [("replace seal 4", "running"), ("replace nothing", "taken_back")])
def test_the_probe_asks_both_versions_the_owners_cases(
    scene: Scene, engine: tuple[str, dict[str, str]], answer: str, state: str
) -> None:
    stage, (url, answers) = Stage(scene), engine
    answers |= {engine_name("a" * 64): "replace seal 4", engine_name("b" * 64): answer}
    stage.start(50, cases=[{"prompt": "pump leaks", "expected": "replace seal 4"}])
    with scene.sessions.write() as session:
        for replica in session.scalars(select(ObservedReplica)):
            replica.url = url
        assert queue_probes(session, now=scene.work.clock()) == 1
    run_until(scene.make_worker(), lambda: stage.read()["probe"] is not None)
    told = stage.read()
    assert (told["state"], told["probe"]["stable"], told["probe"]["cases"]) == (state, 1.0, 1)
    assert told["reason_code"] == (rules.WORSE if state == "taken_back" else None)
    with scene.sessions.write() as session:
        assert queue_probes(session, now=scene.work.clock()) == 0
        assert session.scalars(select(Rollout.probe)).one()["measure"] == "f1"


def test_the_probe_asks_each_version_on_the_engine_where_it_answers(scene: Scene) -> None:
    stage = Stage(scene)
    stage.start(50, cases=[{"prompt": "pump leaks", "expected": "replace seal 4"}])
    digests = "a" * 64, "b" * 64
    (plain,) = running(wanted(scene))
    with run_engine() as (one, answers_of_one), run_engine() as (other, answers_of_other):
        answers_of_one[engine_name(digests[0])] = answers_of_other[engine_name(digests[1])] = "replace seal 4"
        replicas = (replace(plain, replica_id="rep_0", url=one), replace(plain, replica_id="rep_1", url=other))
        adapters = tuple(
            contract.ObservedAdapter(digest, (replica.replica_id,), contract.AdapterState.READY)
            for digest, replica in zip(digests, replicas, strict=True)
        )
        message = contract.Observed(stage.epoch, wanted(scene).generation, replicas, adapters)
        assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200
        with scene.sessions.write() as session:
            assert queue_probes(session, now=scene.work.clock()) == 1
        run_until(scene.make_worker(), lambda: stage.read()["probe"] is not None)
    probe = stage.read()["probe"]
    assert (probe["cases"], probe["stable"], probe["candidate"]) == (1, 1.0, 1.0)


@pytest.mark.parametrize("step", ["promote", "take-back"])
def test_a_rollout_that_is_over_is_probed_no_more(scene: Scene, step: str) -> None:
    stage = Stage(scene)
    rollout_id = stage.start(50, cases=[{"prompt": "pump leaks", "expected": "replace seal 4"}])["id"]
    with scene.sessions.write() as session:
        assert queue_probes(session, now=scene.work.clock()) == 1
    assert stage.step(rollout_id, step).status_code == 200
    run_until(scene.make_worker(), lambda: read_probe_job(scene).state is JobState.DONE)
    assert read_probe_job(scene).failures == 0
    assert stage.read()["probe"] is None


def read_probe_job(scene: Scene) -> Job:
    with scene.sessions.read() as session:
        return session.scalars(select(Job).where(Job.kind == PROBE_KIND)).one()
