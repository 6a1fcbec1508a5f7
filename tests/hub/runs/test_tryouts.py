"""Evaluated checkpoints are tried out: named in OpenAI's list, called by their owner alone, gone by themselves."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion, VersionState
from hub.clock import read_clock
from hub.deployments.aliases import find_alias
from hub.deployments.service import end_tryouts
from hub.deployments.snapshot import build_snapshot
from hub.deployments.tables import Deployment
from hub.tuning.openai_ids import show_job
from hub.tuning.progress import locate_attempt
from hub.tuning.tryouts import TRYOUT_TIME
from tests.hub.runs.openai_client import make_client, report_ready
from tests.hub.runs.scene import Scene, run_until


def train(scene: Scene) -> dict[str, Any]:
    run = scene.order_run(epochs=3, validations=3)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] == "succeeded")
    return scene.read_run(run["id"])


def open_tryout(scene: Scene, run_id: str, step: int) -> str:
    path = f"/api/v1/runs/{run_id}/tryouts"
    answer = scene.call("POST", path, "factory", json={"step": step})
    assert answer.status_code == 202, answer.json
    shown = scene.call("GET", path, "factory").json["checkpoints"]  # type: ignore[index]
    assert next(row for row in shown if row["step"] == step)["state"] == "queued"
    run_until(scene.make_worker(), lambda: list_open(scene) != [])
    return str(answer.json["model"])  # type: ignore[index]


def list_open(scene: Scene) -> list[Deployment]:
    with scene.sessions.read() as session:
        query = select(Deployment).where(Deployment.until_at.is_not(None), Deployment.stopped_at.is_(None))
        return list(session.scalars(query))


def test_a_checkpoint_answers_its_owner_for_an_hour_and_never_becomes_the_model(scene: Scene) -> None:
    run = train(scene)
    name = open_tryout(scene, run["id"], 2)
    assert name.endswith("-step-2@1")
    report_ready(scene)
    with scene.sessions.read() as session:
        models = {model.public_name: model for model in build_snapshot(session, now=read_clock()).models}
        assert find_alias(session, name.partition("@")[0]) is None
        version = session.scalars(select(ModelVersion).where(ModelVersion.state == VersionState.DRAFT)).one()
    assert models[name].organisation_id == scene.actors["factory"].organisation_id
    assert (str(models[name].visibility), models[name].owner_may_call) == ("private", True)
    shown = scene.call("GET", f"/api/v1/runs/{run['id']}/tryouts", "factory").json
    assert shown is not None
    assert [(row["step"], row["state"]) for row in shown["checkpoints"]] == [(1, None), (2, "ready"), (3, None)]
    assert scene.call("POST", f"/api/v1/versions/{version.id}/submit", "factory").status_code >= 400
    with scene.sessions.write() as session:
        assert end_tryouts(session, now=read_clock() + TRYOUT_TIME - timedelta(minutes=1)) == 0
        assert end_tryouts(session, now=read_clock() + TRYOUT_TIME + timedelta(minutes=1)) == 1
    with scene.sessions.read() as session:
        assert name not in {model.public_name for model in build_snapshot(session, now=read_clock()).models}


def test_nobody_else_opens_one_and_only_evaluated_steps_have_one(scene: Scene) -> None:
    run = train(scene)
    path = f"/api/v1/runs/{run['id']}/tryouts"
    for who in ("rival", "operator", "auditor"):
        assert scene.call("POST", path, who, json={"step": 1}).status_code in (403, 404), who
    missing = scene.call("POST", path, "factory", json={"step": 7})
    assert (missing.status_code, missing.json["field"]) == (404, "step")  # type: ignore[index]
    assert "1, 2, 3" in missing.text


def test_openais_list_names_every_evaluated_checkpoint(scene: Scene) -> None:
    run = train(scene)
    listed = make_client(scene).fine_tuning.jobs.checkpoints.list(show_job(run["id"])).data
    assert [point.step_number for point in listed] == [3, 2, 1]
    assert listed[0].fine_tuned_model_checkpoint == "factory-co/orders@1"
    assert listed[2].fine_tuned_model_checkpoint == open_tryout(scene, run["id"], 1)
    assert len({point.id for point in listed}) == 3
    told = [point.metrics.model_dump() for point in listed]
    assert [one["full_valid_mean_token_accuracy"] for one in told] == [0.75, pytest.approx(2 / 3), 0.5]
    assert all(one["valid_mean_token_accuracy"] == one["full_valid_mean_token_accuracy"] for one in told)
    assert {one["train_mean_token_accuracy"] for one in told} == {None}
    shown = scene.call("GET", f"/api/v1/runs/{run['id']}/tryouts", "factory").json["checkpoints"]  # type: ignore[index]
    assert [one["valid_token_accuracy"] for one in shown] == [0.5, pytest.approx(2 / 3), 0.75]


def test_a_checkpoint_of_an_older_trainer_has_no_token_accuracy(scene: Scene) -> None:
    run = train(scene)
    lines = locate_attempt(scene.settings.home, run["id"], 1) / "progress.jsonl"
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert sum("valid_token_accuracy" in line["metrics"] for line in told) == 4
    for line in told:
        line["metrics"].pop("valid_token_accuracy", None)
    lines.write_text("".join(json.dumps(line) + "\n" for line in told))
    listed = make_client(scene).fine_tuning.jobs.checkpoints.list(show_job(run["id"])).data
    assert [point.step_number for point in listed] == [3, 2, 1]
    assert {point.metrics.full_valid_mean_token_accuracy for point in listed} == {None}
    assert all(point.metrics.full_valid_loss for point in listed)
