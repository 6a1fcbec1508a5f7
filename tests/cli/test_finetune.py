"""`guanmo finetune` against the hub's application: what the terminal shows and how it ends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from hub.cli import finetune as commands
from hub.database import Sessions
from hub.tuning.openai_ids import show_job
from tests.hub.conftest import empty_database, sessions  # noqa: F401
from tests.hub.runs.conftest import end_processes
from tests.hub.runs.openai_client import chat_rows, make_client
from tests.hub.runs.scene import Scene, build_scene, run_until


@pytest.fixture
def scene(sessions: Sessions, tmp_path: Path) -> Iterator[Scene]:  # noqa: F811
    built = build_scene(sessions, tmp_path / "home")
    yield built
    end_processes(built)


@pytest.fixture
def client(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> openai.OpenAI:
    made = make_client(scene)
    monkeypatch.setattr(commands, "_connect", lambda key, url: made)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(commands.finetune, [*arguments, "--key", "gm_x"])


def test_watch_list_pause_resume_and_cancel(scene: Scene, client: openai.OpenAI) -> None:
    file = client.files.create(file=("orders.jsonl", chat_rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=scene.base, training_file=file.id, metadata={"guanmo_deploy": "false"}, hyperparameters={"n_epochs": 4}
    )
    run_until(scene.make_worker(), lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
    watched = run("watch", job.id)
    assert watched.exit_code == 0, watched.output
    assert "factory-co/base-ft@1" in watched.output
    assert "completed" in watched.output
    assert "succeeded" in run("list").output
    assert run("watch", job.id.replace("ftjob-", "run_")).exit_code == 0
    refused = run("pause", job.id)
    assert isinstance(refused.exception, commands.JobCallError)
    assert "only a queued or training run can be paused" in refused.exception.en
    assert "succeeded" in run("cancel", job.id).output


def test_a_running_job_shows_the_healthy_band_and_what_to_look_at(scene: Scene, client: openai.OpenAI) -> None:
    run_id = scene.order_run(epochs=50, validations=10, warmup_ratio=0.2)["id"]
    job_id, worker = show_job(run_id), scene.make_worker()

    def read_now() -> dict[str, Any]:
        found: dict[str, Any] = client.fine_tuning.jobs.retrieve(job_id).model_extra["guanmo"]["progress"]  # type: ignore[index]
        return found or {}

    run_until(worker, lambda: (read_now().get("step") or 0) >= 6)
    job, now = client.fine_tuning.jobs.retrieve(job_id), read_now()
    shown = dict(commands.list_figures(job, {}, now))
    low, high = now["band"]
    assert shown["healthy band"] == f"{low:.4f} to {high:.4f}"
    assert {check["code"] for check in now["health"]} == {"better_than_base", "held_out_steady", "not_memorised"}
    rising = {"code": "held_out_steady", "value": 1.5, "low": None, "high": 1.2, "ok": False}
    worse = dict(commands.list_figures(job, {}, now | {"health": [*now["health"], rising]}))
    assert worse["look at"].endswith("held out steady 1.5 (healthy: not above 1.2)")
    client.fine_tuning.jobs.cancel(job_id)
    run_until(worker, lambda: scene.read_run(run_id)["state"] == "cancelled")


def test_rerun_shows_what_differs_and_starts_only_when_confirmed(scene: Scene, client: openai.OpenAI) -> None:
    file = client.files.create(file=("orders.jsonl", chat_rows()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=scene.base, training_file=file.id, metadata={"guanmo_deploy": "false", "guanmo_max_fen": "5000"}
    )
    worker = scene.make_worker()
    run_until(worker, lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded")
    shown = run("rerun", job.id)
    assert shown.exit_code == 1
    assert "data.train_digest  111111111111" in shown.output
    assert "at most ¥50.00" in shown.output
    assert len(client.fine_tuning.jobs.list().data) == 1
    started = run("rerun", job.id, "--yes")
    assert started.exit_code == 0, started.output
    again = client.fine_tuning.jobs.list().data[0]
    assert f"{again.id}: validating" in started.output
    run_until(worker, lambda: client.fine_tuning.jobs.retrieve(again.id).status == "succeeded")
    assert client.fine_tuning.jobs.retrieve(again.id).fine_tuned_model == "factory-co/base-ft@2"


def test_a_rerun_without_differences_says_so() -> None:
    text = commands.draw_differences({"differences": [], "compared": ["seed", "code_digest"]})
    assert text == "No differences: base, data, recipe, seed, versions and price are as they were (2 compared)."


def test_losses_are_drawn_between_lowest_and_highest() -> None:
    assert commands.draw_line([]) == ""
    assert commands.draw_line([2.0, 2.0]) == "▁▁"
    assert commands.draw_line([1.0, 0.0, 0.5]) == "█▁▄"
