"""A token preview through API and worker, with the real trainer and a tiny base."""

import pytest

from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_real_training import make_worker, scene

pytestmark = pytest.mark.engine
assert scene  # the fixture with a base that can be tokenised


def test_a_base_shows_its_tokens_to_the_owner_alone(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    path = f"/api/v1/datasets/{dataset_id}/previews"
    asked = scene.call("POST", path, "factory", json={"base": scene.base})
    assert (asked.status_code, asked.json["state"]) == (202, "working")  # type: ignore[index]

    def read() -> dict:  # type: ignore[type-arg]
        return scene.call("GET", path, "factory").json["previews"][0]  # type: ignore[index]

    run_until(make_worker(scene), lambda: read()["state"] != "working", timeout_s=120)
    found = read()
    assert (found["state"], found["figures"]["stop_token_trained"]) == ("ready", True), found
    assert found["figures"]["train"]["rows"] + found["figures"]["valid"]["rows"] == 60
    assert any(trained for _, _, trained in found["samples"][0]["pieces"])
    again = scene.call("POST", path, "factory", json={"base": scene.base})
    assert again.json["id"] == found["id"]  # type: ignore[index]
    assert scene.call("GET", path, "operator").status_code == 404
    assert scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").status_code == 200
    assert list(scene.home.glob("datasets/*/*")) == []
