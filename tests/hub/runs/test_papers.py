"""What a finished run hands out: manifest, card, bundle with checksums, the same run again, an override."""

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.events.tables import Event
from tests.hub.runs.scene import Scene, run_until

OVER = {"succeeded", "held"}


@pytest.fixture
def run(scene: Scene) -> dict[str, Any]:
    return finish(scene, scene.order_run(epochs=3)["id"])


def finish(scene: Scene, run_id: str) -> dict[str, Any]:
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    return scene.read_run(run_id)


def test_the_bundle_checks_itself_and_is_the_same_twice(scene: Scene, run: dict[str, Any], tmp_path: Path) -> None:
    path = f"/api/v1/runs/{run['id']}"
    answer = scene.call("GET", f"{path}/export", "factory")
    assert answer.status_code == 200
    assert answer.data == scene.call("GET", f"{path}/export", "factory").data
    with zipfile.ZipFile(io.BytesIO(answer.data)) as bundle:
        bundle.extractall(tmp_path / "bundle")
    folder = tmp_path / "bundle"
    assert sorted(item.name for item in folder.iterdir()) == [
        "README.md",
        "SHA256SUMS",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    manifest = scene.call("GET", f"{path}/manifest", "factory").json
    assert manifest is not None
    assert manifest["base"]["name"] == run["base_public_name"]
    assert manifest["model"] == "factory-co/orders@1"
    assert (manifest["order_id"], manifest["trained_tokens"]) == (run["order_id"], 300)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# factory-co/orders@1" in card
    assert manifest["base"]["weights_digest"] in card
    for address in ("export", "manifest"):
        assert scene.call("GET", f"{path}/{address}", "rival").status_code == 404


def test_the_same_run_again_tells_what_changed(scene: Scene, run: dict[str, Any]) -> None:
    answer = scene.call("POST", f"/api/v1/runs/{run['id']}/rerun", "factory")
    assert answer.status_code == 202, answer.json
    again = answer.json
    assert again is not None
    assert (again["rerun_of"], again["seed"], again["recipe"]) == (run["id"], run["seed"], {"rank": 8})
    # the twin writes stand-in digests, so all three are told
    assert {item["name"] for item in again["differences"]} == {
        "code_digest",
        "data.train_digest",
        "data.valid_digest",
    }
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/rerun", "rival").status_code == 404


def test_a_held_run_is_published_on_a_persons_word_and_audited(scene: Scene) -> None:
    run = finish(scene, scene.order_run(min_delta=0.09)["id"])
    assert (run["state"], run["version_id"]) == ("held", None)
    path = f"/api/v1/runs/{run['id']}"
    assert scene.call("GET", f"{path}/export", "factory").status_code == 409
    short = scene.call("POST", f"{path}/publish", "factory", json={"reason": "please"})
    assert (short.status_code, short.json["field"]) == (422, "reason")  # type: ignore[index]
    assert scene.call("POST", f"{path}/publish", "rival", json={"reason": "for a trial only"}).status_code == 404
    body = {"reason": "for a trial on one machine only"}
    assert scene.call("POST", f"{path}/publish", "factory", json=body).status_code == 202
    assert scene.call("POST", f"{path}/publish", "factory", json=body).status_code == 202
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["version_id"] is not None)
    done = scene.read_run(run["id"])
    assert done["state"] == "held"
    assert done["gate"]["override"]["reason"] == body["reason"]
    with scene.sessions.read() as session:
        version = session.get_one(ModelVersion, done["version_id"])
        events = session.scalars(select(Event).where(Event.topic == "run.gate_overridden")).all()
    assert version.artifact_digest == run["artifact_digest"]
    assert [(event.actor_id, event.payload["gate"]["passed"]) for event in events] == [
        (scene.actors["factory"].user_id, False)
    ]


def test_only_what_the_gate_held_is_published_past_it(scene: Scene, run: dict[str, Any]) -> None:
    body = {"reason": "for a trial on one machine only"}
    answer = scene.call("POST", f"/api/v1/runs/{run['id']}/publish", "factory", json=body)
    assert (answer.status_code, answer.json["code"]) == (409, "run_state")  # type: ignore[index]


def test_the_digest_of_the_trainer_is_the_trainers_own() -> None:
    from finetune.artifact import digest_code
    from hub.tuning.rerunning import _digest_trainer

    assert _digest_trainer() == digest_code()
