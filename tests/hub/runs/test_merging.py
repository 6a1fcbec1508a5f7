"""Merged weights for a hot adapter: asked for, made by a job, served under the same name, ended with its deployment."""

from dataclasses import replace
from pathlib import Path

import pytest

from hub.deployments import merging
from hub.deployments.own_engines import MERGE_KIND
from hub.deployments.rules import MergeCase, is_worth_merging
from serving import contract
from tests.hub.runs.scene import Scene, run_until
from tests.hub.runs.test_deployments import add_adapter, deploy, lead, observe, states
from tests.hub.runs.test_scaling import running, wanted

GIB = 2**30


@pytest.fixture
def quick_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic takes torch and the real base; tests/finetune/test_merge.py shows it."""

    def merge(parts: merging._Parts, _environment: dict[str, str]) -> Path:
        parts.out.mkdir(exist_ok=True)
        (parts.out / "config.json").write_text("{}")
        return parts.out

    monkeypatch.setattr(merging, "_merge", merge)
    monkeypatch.setattr("registry.store.FolderStore.path", lambda self, digest: self.root / digest)


def merge(scene: Scene, version_id: str, who: str = "operator") -> int:
    return scene.call("POST", f"/api/v1/versions/{version_id}/merge", who).status_code


def merged_set(scene: Scene) -> contract.ReplicaSet | None:
    return next((row for row in wanted(scene).replica_sets if row.merged), None)


def say_all_ready(scene: Scene, epoch: int) -> None:
    now = wanted(scene)
    message = contract.Observed(epoch, now.generation, running(now), ())
    assert scene.internal("PUT", "pool/observed", "pool", data=contract.dumps(message)).status_code == 200


@pytest.mark.usefixtures("quick_merge")
def test_a_merged_engine_takes_over_when_ready_and_hands_back_when_it_goes(scene: Scene) -> None:
    version_id = add_adapter(scene)
    assert merge(scene, version_id) == 409, "not deployed"
    deploy(scene, version_id)
    epoch = lead(scene)
    observe(scene, epoch, a="ready")
    assert (merge(scene, version_id, "factory"), merge(scene, version_id)) == (403, 202)
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    row = merged_set(scene)
    assert row is not None
    assert (row.merged, row.max_loras) == ("a" * 64, 0)
    assert row.uri.endswith(row.weights_folder or "?")
    assert [item.merged for item in wanted(scene).adapters] == [False], "in its slot until the engine is ready"
    say_all_ready(scene, epoch)
    assert [item.merged for item in wanted(scene).adapters] == [True]
    assert states(scene)["factory-co/orders@1"] == "ready"
    assert scene.call("DELETE", f"/api/v1/versions/{version_id}/merge", "operator").status_code == 200
    assert merged_set(scene) is None
    assert [item.merged for item in wanted(scene).adapters] == [False]


@pytest.mark.usefixtures("quick_merge")
def test_the_merged_engine_ends_with_its_deployment(scene: Scene) -> None:
    version_id = add_adapter(scene)
    deploy(scene, version_id)
    merge(scene, version_id)
    run_until(scene.make_worker(), lambda: merged_set(scene) is not None)
    assert scene.call("DELETE", f"/api/v1/versions/{version_id}/deploy", "factory").status_code == 200
    assert merged_set(scene) is None
    assert len(wanted(scene).slots) == 1


def test_merging_must_be_worth_an_engines_memory() -> None:
    hot = MergeCase(traffic_share=0.8, speed_up=1.6, engine_bytes=2 * GIB, free_bytes=20 * GIB)
    assert is_worth_merging(hot)
    assert not is_worth_merging(replace(hot, traffic_share=0.2))
    assert not is_worth_merging(replace(hot, speed_up=0.9))
    assert not is_worth_merging(replace(hot, free_bytes=GIB))
    assert not is_worth_merging(replace(hot, speed_up=1.3, free_bytes=2 * GIB)), "dear where memory is short"
    assert is_worth_merging(replace(hot, traffic_share=0.2, is_merged=True)), "no coming and going"
    assert MERGE_KIND == "version.merge"
