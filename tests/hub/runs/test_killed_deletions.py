"""A deletion that kill -9 ends at any step tells everything that went when it is repeated."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hub.columns import write_json
from hub.datasets.removals import note_removal, remove_paths
from hub.tuning.examining import CASES_NAME
from tests.hub.runs import killed_deletion
from tests.hub.runs.scene import ROOT, Scene, run_until, sound_rows
from tests.hub.runs.test_runs import OVER


def list_sizes(scene: Scene) -> dict[str, int]:
    """Files with rows of the data set: the upload, what was derived, and what the run kept for its gate."""
    found = [*(scene.home / "datasets").rglob("*"), *(scene.home / "runs").glob(f"*/{CASES_NAME}")]
    return {path.relative_to(scene.home).as_posix(): path.stat().st_size for path in found if path.is_file()}


def kill_deletion(scene: Scene, dataset_id: str, step: str) -> None:
    actor = scene.actors["factory"]
    arguments = (
        str(scene.home),
        str(scene.sessions.engine.url),
        actor.organisation_id,
        actor.user_id,
        dataset_id,
        step,
    )
    done = subprocess.run(
        [sys.executable, killed_deletion.__file__, *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -9


@pytest.mark.parametrize("steps", [["noted"], ["half"], ["gone"], ["committed"], ["half", "noted", "gone"]])
def test_the_receipt_of_a_repeated_deletion_tells_all_that_went(scene: Scene, steps: list[str]) -> None:
    run = scene.start_run()
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/cancel", "factory").status_code in (200, 202)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] in OVER)
    dataset_id = scene.call("GET", "/api/v1/datasets", "factory").json["datasets"][0]["id"]  # type: ignore[index]
    (scene.home / "runs" / run["id"] / CASES_NAME).write_text("{}\n")
    before = list_sizes(scene)
    for step in steps:
        kill_deletion(scene, dataset_id, step)
    receipt = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    told = [*receipt["versions"], *receipt["runs"]]
    assert sum(one["files_removed"] for one in told) == len(before) >= 6
    assert sum(one["bytes_removed"] for one in told) == sum(before.values())
    assert [one["run_id"] for one in receipt["runs"]] == [run["id"]]
    assert receipt["versions"][0]["kept_for_other_datasets"] is False
    digest = receipt.pop("receipt_digest")
    assert digest == hashlib.sha256(write_json(receipt).encode()).hexdigest()
    assert list_sizes(scene) == {}
    assert list((scene.home / "deletions").iterdir()) == [], "the note goes with the receipt"


def test_a_note_adds_what_is_new_and_counts_no_file_twice(tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "source.csv").write_text("12345")
    assert note_removal(tmp_path, "dst_1", {"dsv_1": [folder]}) == {"dsv_1": {"upload/source.csv": 5}}
    remove_paths([folder])
    folder.mkdir()
    (folder / "report.json").write_text("123")
    noted = note_removal(tmp_path, "dst_1", {"dsv_1": [folder], "dsv_2": [folder / "report.json", folder / "gone"]})
    assert noted == {"dsv_1": {"upload/source.csv": 5, "upload/report.json": 3}, "dsv_2": {}}
    assert json.loads((tmp_path / "deletions" / "dst_1.json").read_text()) == noted
    remove_paths([folder / "gone"])


def test_what_others_share_since_the_first_try_is_not_told_as_removed(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    before = list_sizes(scene)
    kill_deletion(scene, dataset_id, "noted")
    assert scene.upload(sound_rows()).status_code in (200, 201, 202)
    receipt = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    left = list_sizes(scene)
    assert 0 < len(left) < len(before)
    assert receipt["versions"][0]["kept_for_other_datasets"] is True
    assert receipt["versions"][0]["files_removed"] == len(before) - len(left)
    assert receipt["versions"][0]["bytes_removed"] == sum(before.values()) - sum(left.values())


def test_the_folder_of_the_notes_is_durable_before_anything_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("hub.datasets.removals.sync_folder", synced.append)  # no test can cut the power
    note_removal(tmp_path, "dst_1", {})
    note_removal(tmp_path, "dst_2", {})
    assert synced == [tmp_path, tmp_path / "deletions", tmp_path / "deletions"]
