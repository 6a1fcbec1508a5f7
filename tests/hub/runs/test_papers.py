"""What a finished run hands out: manifest, card, bundle with checksums, the same run again, an override."""

import io
import json
import platform
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.catalogue.tables import ModelVersion
from hub.clock import read_clock
from hub.datasets.tables import DatasetVersion
from hub.events.tables import Event
from hub.prices.service import DEFAULT, publish_price
from hub.tuning.progress import locate_attempt
from hub.tuning.tables import Run
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
        "README.zh.md",
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
    assert f"| training rows | {manifest['data']['train_rows']} |" in card
    assert "| processor, cores | Twin, 2 |" in card
    assert "Replace seal" not in card
    assert "## 用途与局限" in (folder / "README.zh.md").read_text(encoding="utf-8")
    for address in ("export", "manifest"):
        assert scene.call("GET", f"{path}/{address}", "rival").status_code == 404


STAND_INS = {"code_digest", "data.train_digest", "data.valid_digest", "versions.torch"}
"""What the twin writes that is nobody's."""


def test_the_same_run_again_tells_what_changed_and_starts_only_when_confirmed(
    scene: Scene, run: dict[str, Any]
) -> None:
    path = f"/api/v1/runs/{run['id']}/rerun"
    found = scene.call("GET", path, "factory").json
    assert found is not None
    assert {item["name"] for item in found["differences"]} == STAND_INS
    compared = {"base.weights_digest", "recipe.learning_rate", "seed", "versions.python", "price.list_fen"}
    assert compared | STAND_INS < set(found["compared"])
    refused = scene.call("POST", path, "factory", json={"confirm": False})
    assert (refused.status_code, refused.json["code"]) == (422, "rerun_unconfirmed")  # type: ignore[index]
    assert scene.call("POST", path, "factory", json={}).status_code == 422
    with scene.sessions.read() as session:
        assert session.scalars(select(Run.id)).all() == [run["id"]]
    again = scene.call("POST", path, "factory", json={"confirm": True})
    assert again.status_code == 202, again.json
    assert again.json is not None
    assert (again.json["rerun_of"], again.json["seed"], again.json["recipe"]["rank"]) == (run["id"], run["seed"], 8)
    assert again.json["differences"] == found["differences"]
    for method, options in (("GET", {}), ("POST", {"json": {"confirm": True}})):
        assert scene.call(method, path, "rival", **options).status_code == 404


def test_a_rerun_tells_other_weights_values_and_prices(scene: Scene, run: dict[str, Any]) -> None:
    manifest_path = locate_attempt(scene.home, run["id"], run["attempt"]) / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["digests"]["weights_digest"] = "9" * 64
    manifest["recipe"]["epochs"]["value"] = 99
    del manifest["recipe"]["patience"]
    manifest_path.write_text(json.dumps(manifest))
    operator = scene.actors["operator"]
    with scene.sessions.write() as session:
        publish_price(
            session,
            operator,
            organisation_id=operator.organisation_id,
            subject_kind="tuning",
            subject=DEFAULT,
            lines={"trained_tokens": (10, 100)},
            now=read_clock(),
        )
    told = scene.call("GET", f"/api/v1/runs/{run['id']}/rerun", "factory").json
    assert told is not None
    changed = {item["name"]: (item["then"], item["now"]) for item in told["differences"]}
    assert changed["base.weights_digest"][0] == "9" * 64
    assert changed["recipe.epochs"] == (99, None)
    assert changed["recipe.patience"] == (None, "chosen by the plan")
    before, after = changed["price.list_fen"]
    assert after - before == 300 * 5 // 100


def test_a_rerun_of_what_is_the_same_says_so(scene: Scene, run: dict[str, Any]) -> None:
    from hub.tuning.rerunning import _digest_trainer

    with scene.sessions.read() as session:
        data = session.get_one(DatasetVersion, run["dataset_version_id"])
    manifest_path = locate_attempt(scene.home, run["id"], run["attempt"]) / "manifest.json"
    manifest = json.loads(manifest_path.read_text())
    manifest["digests"] |= {"train_digest": data.train_digest, "valid_digest": data.valid_digest}
    manifest |= {"code_digest": _digest_trainer(), "versions": {"python": platform.python_version()}}
    manifest_path.write_text(json.dumps(manifest))
    found = scene.call("GET", f"/api/v1/runs/{run['id']}/rerun", "factory").json
    assert found is not None
    assert found["differences"] == []


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
