"""Uploads end to end with the real check, and what others may see of them."""

import hashlib
import io
import json
from pathlib import Path

import openpyxl
import pytest

from hub.datasets import files
from tests.hub.runs.scene import Scene, run_until, sound_rows


def wait(scene: Scene, dataset_id: str) -> dict:  # type: ignore[type-arg]
    run_until(scene.make_worker(), lambda: scene.dataset_state(dataset_id) != "checking")
    return scene.call("GET", f"/api/v1/datasets/{dataset_id}", "factory").json  # type: ignore[return-value]


def folder_of(scene: Scene, content: bytes) -> Path:
    owner = scene.actors["factory"].organisation_id
    return scene.home / "datasets" / owner / hashlib.sha256(content).hexdigest()


def test_sound_rows_are_checked_split_and_kept_by_digest(scene: Scene) -> None:
    content = sound_rows()
    uploaded = scene.upload(content)
    assert uploaded.status_code == 202
    assert uploaded.json["version"]["state"] == "checking"  # type: ignore[index]
    found = wait(scene, uploaded.json["id"])["version"]  # type: ignore[index]
    assert found["state"] in ("ready", "warned"), found["report"]
    assert found["train_rows"] + found["valid_rows"] == 60
    folder = folder_of(scene, content)
    assert (folder / "source.jsonl").read_bytes() == content
    checked = next(folder.glob("checked-*"))
    assert hashlib.sha256((checked / "train.jsonl").read_bytes()).hexdigest() == found["train_digest"]
    assert scene.work.launch.list_mine() == []


def test_a_name_that_looks_like_a_number_stays_text(scene: Scene) -> None:
    form = {"file": (io.BytesIO(sound_rows()), "rows.jsonl"), "name": "2026"}
    answer = scene.call("POST", "/api/v1/datasets", "factory", data=form, content_type="multipart/form-data")
    assert answer.json["name"] == "2026"  # type: ignore[index]


def test_errors_block_and_name_the_line(scene: Scene) -> None:
    bad = sound_rows() + b'{"messages": [{"role": "user"}]}\nnot json\n'
    dataset_id = scene.upload(bad).json["id"]  # type: ignore[index]
    found = wait(scene, dataset_id)["version"]
    assert found["state"] == "blocked"
    broken = next(issue for issue in found["report"]["issues"] if issue["code"] == "invalid_json")
    assert "62" in json.dumps(broken)
    answer = scene.call("POST", f"/api/v1/datasets/{dataset_id}/acknowledge", "factory")
    assert (answer.status_code, answer.json["code"]) == (409, "dataset_not_ready")  # type: ignore[index]
    run = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders"}
    assert scene.call("POST", "/api/v1/runs", "factory", json=run).json["state"] == "blocked"  # type: ignore[index]


def test_a_table_with_a_mapping(scene: Scene) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["故障", "处理"])
    for number in range(40):
        sheet.append([f"泵 {number} 漏油 {number % 5}", f"更换密封 {number % 5}-{number}"])
    raw = io.BytesIO()
    book.save(raw)
    mapping = json.dumps({"故障": "prompt", "处理": "completion"})
    uploaded = scene.upload(raw.getvalue(), name="rows.xlsx", mapping=mapping)
    assert uploaded.status_code == 202, uploaded.json
    assert wait(scene, uploaded.json["id"])["version"]["train_rows"] > 20  # type: ignore[index]


def test_a_column_that_is_not_there_is_reported_not_retried(scene: Scene) -> None:
    rows = "a,b\n" + "".join(f"question {number},answer {number}\n" for number in range(30))
    uploaded = scene.upload(rows.encode(), name="rows.csv", mapping='{"question": "prompt", "b": "completion"}')
    found = wait(scene, uploaded.json["id"])["version"]  # type: ignore[index]
    assert found["state"] == "blocked"
    assert found["report"]["summary"]["errors"] >= 1


@pytest.mark.parametrize(
    ("name", "content", "fields", "status", "field"),
    [
        ("rows.pdf", b"x", {}, 422, "file"),
        ("rows.csv", b"", {}, 422, "file"),
        ("rows.csv", b"a,b\n", {"mapping": "{"}, 422, "mapping"),
        ("rows.csv", b"a,b\n", {"mapping": '{"a": "nonsense"}'}, 422, "mapping"),
        ("rows.csv", b"a,b\n", {"name": "x" * 81}, 422, "name"),
    ],
)
def test_bad_uploads_name_the_field_and_keep_nothing(
    scene: Scene, name: str, content: bytes, fields: dict[str, str], status: int, field: str
) -> None:
    form = {"file": (io.BytesIO(content), name), **fields}
    answer = scene.call("POST", "/api/v1/datasets", "factory", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["field"]) == (status, field)  # type: ignore[index]
    assert scene.call("GET", "/api/v1/datasets", "factory").json == {"datasets": []}


@pytest.mark.parametrize("who", ["provider", "auditor"])
def test_an_upload_of_somebody_who_brings_no_data_stores_nothing(scene: Scene, who: str) -> None:
    answer = scene.upload(sound_rows(), who=who)
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")  # type: ignore[index]
    assert list((scene.home / "datasets").rglob("*")) == []


def test_a_file_above_the_limit_leaves_no_part_behind(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_UPLOAD_BYTES", 1000)
    answer = scene.upload(sound_rows())
    assert (answer.status_code, answer.json["field"]) == (422, "file")  # type: ignore[index]
    owner = scene.actors["factory"].organisation_id
    assert list((scene.home / "datasets" / owner).iterdir()) == []


def test_another_organisation_sees_nothing(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    for method, path in (("GET", ""), ("POST", "/acknowledge"), ("DELETE", "")):
        answer = scene.call(method, f"/api/v1/datasets/{dataset_id}{path}", "rival")
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")  # type: ignore[index]
    assert scene.call("GET", "/api/v1/datasets", "rival").json == {"datasets": []}
    body = {"base": scene.base, "dataset_id": dataset_id, "model_name": "orders"}
    assert scene.call("POST", "/api/v1/runs", "rival", json=body).status_code == 404
    assert scene.call("GET", "/api/v1/datasets").status_code == 401


def test_deletion_gives_a_receipt_and_shared_bytes_stay(scene: Scene) -> None:
    content = sound_rows()
    first, second = scene.add_dataset(), scene.add_dataset()
    receipt = scene.call("DELETE", f"/api/v1/datasets/{first}", "factory").json["receipt"]  # type: ignore[index]
    assert receipt["versions"][0]["kept_for_other_datasets"] is True
    assert (folder_of(scene, content) / "source.jsonl").is_file()
    receipt = scene.call("DELETE", f"/api/v1/datasets/{second}", "factory").json["receipt"]  # type: ignore[index]
    assert receipt["versions"][0]["files_removed"] >= 4
    assert not folder_of(scene, content).exists()
    again = scene.call("DELETE", f"/api/v1/datasets/{second}", "factory").json["receipt"]  # type: ignore[index]
    assert again == receipt
    assert scene.call("GET", "/api/v1/datasets", "factory").json == {"datasets": []}


def test_samples_are_built_in_and_the_demonstrations_come_first(scene: Scene) -> None:
    for kind in ("jsonl", "csv", "xlsx"):
        with scene.call("GET", f"/api/v1/datasets/sample?format={kind}") as built_in:
            uploaded = scene.upload(built_in.data, name=f"sample.{kind}")
        found = wait(scene, uploaded.json["id"])["version"]  # type: ignore[index]
        assert (found["report"]["summary"]["errors"], found["report"]["summary"]["rows"]) == (0, 24)
        assert found["report"]["summary"]["split"]["by"] == "group"
    (scene.home / "samples").mkdir(parents=True)
    (scene.home / "samples" / "sample.csv").write_text("question,answer\n")
    with scene.call("GET", "/api/v1/datasets/sample?format=csv") as found:
        assert found.data == b"question,answer\n"
        assert "attachment" in found.headers["Content-Disposition"]
