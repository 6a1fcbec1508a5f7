"""A deletion that kill -9 ends at any step is completed by the worker, or by who repeats it: it tells all that went."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hub.clock import read_clock
from hub.columns import write_json
from hub.datasets import checking, deletion
from hub.datasets.deletion import complete_deletions
from hub.datasets.removals import list_removals, note_removal, read_asker, remove_paths
from hub.datasets.service import CHECK_KIND
from hub.datasets.tables import Dataset
from hub.events.tables import Event
from hub.jobs.tables import Job, JobState
from hub.jobs.trainer import Phase, Sighting
from hub.tuning.dataset_readers import READERS
from hub.tuning.examining import CASES_NAME
from hub.worker import list_chores
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


def delete_partly(scene: Scene, steps: list[str]) -> tuple[str, str, dict[str, int]]:
    """Kill a deletion at each of the steps; returns data set, the ended run that read it, and the files before."""
    run = scene.start_run()
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/cancel", "factory").status_code in (200, 202)
    run_until(scene.make_worker(), lambda: scene.read_run(run["id"])["state"] in OVER)
    dataset_id = scene.call("GET", "/api/v1/datasets", "factory").json["datasets"][0]["id"]  # type: ignore[index]
    (scene.home / "runs" / run["id"] / CASES_NAME).write_text("{}\n")
    before = list_sizes(scene)
    for step in steps:
        kill_deletion(scene, dataset_id, step)
    return dataset_id, run["id"], before


def complete(scene: Scene) -> int:
    return complete_deletions(scene.sessions, scene.home, readers=READERS, now=read_clock())


def read_receipt(scene: Scene, dataset_id: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = scene.call("GET", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    return found


def delete(scene: Scene, dataset_id: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    return found


def check_receipt(scene: Scene, receipt: dict[str, Any], run_id: str, before: dict[str, int]) -> None:
    told = [*receipt["versions"], *receipt["runs"]]
    assert sum(one["files_removed"] for one in told) == len(before) >= 6
    assert sum(one["bytes_removed"] for one in told) == sum(before.values())
    assert [one["run_id"] for one in receipt["runs"]] == [run_id]
    assert receipt["versions"][0]["kept_for_other_datasets"] is False
    assert receipt["deleted_by"] == scene.actors["factory"].user_id
    rest = {name: value for name, value in receipt.items() if name != "receipt_digest"}
    assert receipt["receipt_digest"] == hashlib.sha256(write_json(rest).encode()).hexdigest()
    assert list_sizes(scene) == {}
    assert list((scene.home / "deletions").iterdir()) == [], "the note goes with the receipt"


@pytest.mark.parametrize("steps", [["noted"], ["half"], ["gone"], ["committed"], ["half", "noted", "gone"]])
def test_the_receipt_of_a_repeated_deletion_tells_all_that_went(scene: Scene, steps: list[str]) -> None:
    dataset_id, run_id, before = delete_partly(scene, steps)
    check_receipt(scene, delete(scene, dataset_id), run_id, before)


@pytest.mark.parametrize(
    "steps",
    [
        ["noted"],
        ["half"],
        ["gone"],
        ["committed"],
        ["noted", "worker-noted"],
        ["noted", "worker-half", "worker-gone"],
        ["half", "worker-committed"],
    ],
)
def test_the_worker_completes_a_deletion_that_was_cut_short_with_a_true_receipt(scene: Scene, steps: list[str]) -> None:
    dataset_id, run_id, before = delete_partly(scene, steps)
    (chore,) = (chore for chore in list_chores() if chore.name == "complete deletions")
    assert chore.act(scene.work) == 1
    receipt = read_receipt(scene, dataset_id)
    assert receipt is not None
    check_receipt(scene, receipt, run_id, before)
    assert scene.dataset_state(dataset_id) == "deleted"
    assert complete(scene) == 0
    assert delete(scene, dataset_id) == receipt
    with scene.sessions.read() as session:
        query = select(Event.actor_id).where(Event.subject == dataset_id, Event.topic == "dataset.deleted")
        assert list(session.scalars(query)) == [receipt["deleted_by"]], "told once, by who asked"


def test_a_deletion_cut_short_waits_for_a_run_that_has_come_to_need_the_rows(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    kill_deletion(scene, dataset_id, "noted")
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders", "recipe": {}}
    run_id = scene.call("POST", "/api/v1/runs", "factory", json=body).json["id"]  # type: ignore[index]
    assert complete(scene) == 0
    assert read_receipt(scene, dataset_id) is None
    assert scene.call("POST", f"/api/v1/runs/{run_id}/cancel", "factory").status_code in (200, 202)
    run_until(scene.make_worker(), lambda: scene.read_run(run_id)["state"] in OVER)
    assert complete(scene) == 1
    assert read_receipt(scene, dataset_id) is not None


def test_one_deletion_that_fails_again_holds_up_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = scene.add_dataset(), str(scene.upload(sound_rows(70)).json["id"])  # type: ignore[index]
    for dataset_id in (first, second):
        kill_deletion(scene, dataset_id, "noted")
    calls: list[list[Path]] = []

    def fail_once(paths: Iterable[Path]) -> None:
        calls.append(list(paths))
        if len(calls) == 1:
            raise OSError(errno.EIO, "the disk fails")
        remove_paths(calls[-1])

    monkeypatch.setattr(deletion, "remove_paths", fail_once)  # no test can break a disk
    assert complete(scene) == 1
    assert (read_receipt(scene, first), read_receipt(scene, second) is None) == (None, False)
    assert complete(scene) == 1
    assert read_receipt(scene, first) is not None


def test_a_deletion_under_way_is_left_to_who_asked_for_it(scene_on_both: Scene) -> None:
    scene = scene_on_both
    dataset_id = scene.add_dataset()
    note_removal(scene.home, dataset_id, {}, asked_by=scene.actors["factory"].user_id)
    if scene.sessions.engine.dialect.name == "postgresql":  # SQLite has one writer, for whom the worker waits
        with scene.sessions.write() as session:
            session.get_one(Dataset, dataset_id, with_for_update=True)
            assert complete(scene) == 0
        assert read_receipt(scene, dataset_id) is None
    assert complete(scene) == 1


def test_a_note_adds_what_is_new_and_counts_no_file_twice(tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "source.csv").write_text("12345")
    first = note_removal(tmp_path, "dst_1", {"dsv_1": [folder]}, asked_by="usr_1")
    assert first == {"dsv_1": {"upload/source.csv": 5}}
    remove_paths([folder])
    folder.mkdir()
    (folder / "report.json").write_text("123")
    found = {"dsv_1": [folder], "dsv_2": [folder / "report.json", folder / "gone"]}
    noted = note_removal(tmp_path, "dst_1", found, asked_by="usr_2")
    assert noted == {"dsv_1": {"upload/source.csv": 5, "upload/report.json": 3}, "dsv_2": {}}
    assert json.loads((tmp_path / "deletions" / "dst_1.json").read_text()) == {"asked_by": "usr_1", "files": noted}
    assert (list_removals(tmp_path), read_asker(tmp_path, "dst_1")) == (["dst_1"], "usr_1"), "who asked first"
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
    note_removal(tmp_path, "dst_1", {}, asked_by="usr_1")
    note_removal(tmp_path, "dst_2", {}, asked_by="usr_1")
    assert synced == [tmp_path, tmp_path / "deletions", tmp_path / "deletions"]


def test_what_vanishes_while_its_folder_is_removed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, unlink = tmp_path / "upload", os.unlink
    (folder / "checked").mkdir(parents=True)
    for name in ("checked/.train.jsonl.tmp", "checked/train.jsonl", "source.csv"):
        (folder / name).write_text("rows")

    def lose_first(name: str, *, dir_fd: int | None = None) -> None:
        if name.endswith(".tmp"):
            unlink(name, dir_fd=dir_fd)  # the check that ends at this moment renames it
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", lose_first)  # no test can hit the moment
    remove_paths([folder])
    assert list(tmp_path.iterdir()) == []


def test_a_check_given_up_while_its_data_set_is_deleted_leaves_it_deleted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = str(scene.upload(sound_rows()).json["id"])  # type: ignore[index]
    with scene.sessions.write() as session:
        session.scalars(select(Job).where(Job.kind == CHECK_KIND)).one().max_failures = 1

    def delete_meanwhile(*_: Any, **__: Any) -> Sighting:
        delete(scene, dataset_id)
        return Sighting(Phase.LOST)

    monkeypatch.setattr(checking, "await_trainer", delete_meanwhile)  # no test can hit the moment
    scene.make_worker().tick()
    with scene.sessions.read() as session:
        assert session.scalars(select(Job.state).where(Job.kind == CHECK_KIND)).all() == [JobState.FAILED]
    assert scene.dataset_state(dataset_id) == "deleted"
