"""Versions, findings, corrections, rights and deletion of data sets, and who may see what of them."""

import csv
import hashlib
import io
import json
from typing import Any

import pytest
from sqlalchemy import select

from hub.columns import write_json
from hub.datasets import files
from hub.tables import metadata
from tests.hub.runs.scene import Scene, run_until, sound_rows

CANARY = "QZ-CANARY-77"
PRIVATE = (
    sound_rows()
    + (
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"{CANARY} call 13812345678"},
                    {"role": "assistant", "content": "=cmd|' /C calc'!A0"},
                ]
            }
        )
        + "\nnot json\n"
    ).encode()
)


def wait(scene: Scene, dataset_id: str) -> dict[str, Any]:
    run_until(scene.make_worker(), lambda: scene.dataset_state(dataset_id) != "checking")
    found: dict[str, Any] = scene.call("GET", f"/api/v1/datasets/{dataset_id}", "factory").json["version"]  # type: ignore[index]
    return found


def add(scene: Scene, content: bytes, name: str = "rows.jsonl") -> str:
    dataset_id = str(scene.upload(content, name=name).json["id"])  # type: ignore[index]
    wait(scene, dataset_id)
    return dataset_id


def correct(scene: Scene, dataset_id: str, **body: Any) -> Any:
    return scene.call("POST", f"/api/v1/datasets/{dataset_id}/versions", "factory", json=body)


def test_a_correction_makes_a_version_and_leaves_the_one_before(scene: Scene) -> None:
    dataset_id = add(scene, PRIVATE)
    first = wait(scene, dataset_id)
    assert first["state"] == "blocked"
    assert correct(scene, dataset_id, fixes={"invalid_json": "drop", "pii_phone": "mask"}).status_code == 202
    second = wait(scene, dataset_id)
    assert (second["number"], second["state"]) == (2, "warned")
    assert second["source_digest"] == first["source_digest"]
    assert second["fixes"] == {"invalid_json": "drop", "pii_phone": "mask"}
    listed = scene.call("GET", f"/api/v1/datasets/{dataset_id}/versions", "factory").json["versions"]  # type: ignore[index]
    assert [(one["number"], one["state"]) for one in listed] == [(2, "warned"), (1, "blocked")]
    text = "".join(
        path.read_text()
        for path in scene.home.glob("datasets/*/*/checked-*/*.jsonl")
        if "ann" not in path.name and "find" not in path.name
    )
    assert "[手机号]" in text
    assert "13812345678" not in text
    assert correct(scene, dataset_id, fixes={"invalid_json": "drop"}).json["version"]["number"] == 2


def test_the_same_upload_read_the_same_way_has_the_same_digests(scene: Scene) -> None:
    first, second = (wait(scene, scene.add_dataset()) for _ in range(2))
    assert first["train_digest"] == second["train_digest"]
    assert first["valid_digest"] == second["valid_digest"]


def test_only_offered_corrections_are_taken(scene: Scene) -> None:
    dataset_id = add(scene, PRIVATE)
    bodies: list[tuple[dict[str, Any], str]] = [
        ({"fixes": {"invalid_json": "mask"}}, "fixes"),
        ({"fixes": {"no_such_code": "drop"}}, "fixes"),
        ({"fixes": {"invalid_json": "rm -rf /"}}, "fixes"),
        ({"mapping": {"a": "nonsense"}}, "mapping"),
    ]
    for body, field in bodies:
        answer = correct(scene, dataset_id, **body)
        assert (answer.status_code, answer.json["field"]) == (422, field)


def test_findings_come_in_pages_with_values_masked(scene: Scene) -> None:
    dataset_id = add(scene, sound_rows() + b"not json\n" * 7)
    path = f"/api/v1/datasets/{dataset_id}/findings?code=invalid_json&limit=3"
    seen: list[int] = []
    cursor: int | None = 0
    while cursor is not None:
        page = scene.call("GET", f"{path}&cursor={cursor}", "factory").json
        assert page is not None
        seen += [one["row"] for one in page["findings"]]
        cursor = page["cursor"]
    assert seen == list(range(61, 68))
    odd = scene.call("GET", f"{path}&cursor=5", "factory")
    assert odd.status_code == 200
    private = scene.call("GET", f"/api/v1/datasets/{add(scene, PRIVATE)}/findings?severity=W", "factory").json
    assert any(one["code"] == "pii_phone" and "[手机号]" in one["value"] for one in private["findings"])  # type: ignore[index]
    assert "13812345678" not in json.dumps(private)


def test_the_annotated_copy_comes_in_the_format_of_the_upload(scene: Scene) -> None:
    rows = "question,answer\n" + "".join(f"pump {n} of {n * 7},seal {n}\n" for n in range(30)) + "=cmd|x,\n"
    dataset_id = add(scene, rows.encode(), "工单.csv")
    with scene.call("GET", f"/api/v1/datasets/{dataset_id}/annotated", "factory") as answer:
        assert answer.status_code == 200
        assert "attachment" in answer.headers["Content-Disposition"]
        found = list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert found[31][0] == "'=cmd|x"
    assert "答案为空" in found[31][2]
    clean = add(scene, sound_rows(210))
    assert scene.call("GET", f"/api/v1/datasets/{clean}/annotated", "factory").status_code == 404


def test_s4_10_rows_are_their_owners_alone_also_before_an_operator(scene: Scene) -> None:
    dataset_id = add(scene, PRIVATE)
    calls = [("GET", path, None) for path in ("", "/versions", "/findings", "/annotated", "/previews")]
    calls += [("POST", "/versions", {"fixes": {}}), ("POST", "/previews", {"base": scene.base}), ("DELETE", "", None)]
    calls += [("POST", "/registration", {"number": "1", "owner": "x"}), ("POST", "/acknowledge", None)]
    for who in ("operator", "rival"):
        for method, path, body in calls:
            options = {} if body is None else {"json": body}
            answer = scene.call(method, f"/api/v1/datasets/{dataset_id}{path}", who, **options)
            assert (answer.status_code, answer.json["code"]) == (404, "not_found"), (who, path)  # type: ignore[index]
    for who, status in (("auditor", (403, 404)), (None, (401,))):
        for method, path, body in calls:
            options = {} if body is None else {"json": body}
            answer = scene.call(method, f"/api/v1/datasets/{dataset_id}{path}", who, **options)
            assert answer.status_code in status, (who, path)


def test_s4_10_no_row_text_in_database_or_logs(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    dataset_id = add(scene, PRIVATE)
    correct(scene, dataset_id, fixes={"invalid_json": "drop"})
    wait(scene, dataset_id)
    with scene.sessions.read() as session:
        texts = [str(tuple(row)) for table in metadata.sorted_tables for row in session.execute(select(table))]
    assert len(texts) > 50
    logs = [path.read_text() for path in scene.home.rglob("trainer.log")] + [caplog.text]
    assert [text for text in (*texts, *logs) if CANARY in text or "13812345678" in text] == []


def test_files_and_folders_are_closed_to_other_users(scene: Scene) -> None:
    add(scene, PRIVATE)
    folders = [path for path in (scene.home / "datasets").rglob("*") if path.is_dir()]
    assert len(folders) >= 3
    assert [path for path in folders if path.stat().st_mode & 0o077] == []


def test_deletion_waits_for_runs_and_its_receipt_says_what_was_erased(scene_on_both: Scene) -> None:
    scene = scene_on_both
    run = scene.start_run()
    dataset_id = scene.call("GET", "/api/v1/datasets", "factory").json["datasets"][0]["id"]  # type: ignore[index]
    refused = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory")
    assert (refused.status_code, refused.json["code"]) == (409, "dataset_in_use")  # type: ignore[index]
    assert run["id"] in refused.json["detail"]  # type: ignore[index]
    assert scene.call("POST", f"/api/v1/runs/{run['id']}/cancel", "factory").status_code in (200, 202)
    version = wait(scene, dataset_id)
    receipt = scene.call("DELETE", f"/api/v1/datasets/{dataset_id}", "factory").json["receipt"]  # type: ignore[index]
    erased = receipt["versions"][0]
    assert receipt["deleted_by"] == scene.actors["factory"].user_id
    assert (erased["source_digest"], erased["train_digest"]) == (version["source_digest"], version["train_digest"])
    assert erased["files_removed"] >= 5
    digest = receipt.pop("receipt_digest")
    assert digest == hashlib.sha256(write_json(receipt).encode()).hexdigest()
    owner = scene.actors["factory"].organisation_id
    assert list((scene.home / "datasets" / owner).iterdir()) == []


def test_what_was_derived_goes_even_where_the_upload_stays(scene: Scene) -> None:
    first, second = scene.add_dataset(), scene.add_dataset()
    receipt = scene.call("DELETE", f"/api/v1/datasets/{first}", "factory").json["receipt"]  # type: ignore[index]
    assert receipt["versions"][0]["kept_for_other_datasets"] is True
    assert receipt["versions"][0]["files_removed"] >= 4
    assert len(list(scene.home.glob("datasets/*/*/checked-*"))) == 1
    assert wait(scene, second)["state"] in ("ready", "warned")


def test_rights_are_registered(scene: Scene) -> None:
    dataset_id = scene.add_dataset()
    body = {"number": "SZ-DEMO-2026-001", "owner": "东莞演示厂", "licence": "内部使用", "body": "demonstration"}
    answer = scene.call("POST", f"/api/v1/datasets/{dataset_id}/registration", "factory", json=body)
    shown = answer.json["registration"]  # type: ignore[index]
    assert answer.status_code == 200
    assert {name: shown[name] for name in body} == body
    for wrong in ({"number": "", "owner": "x"}, {"number": "1\u202e", "owner": "x"}, {"owner": "x"}):
        answer = scene.call("POST", f"/api/v1/datasets/{dataset_id}/registration", "factory", json=wrong)
        assert answer.status_code == 422


def test_names_that_look_like_numbers_stay_text(scene: Scene) -> None:
    rows = ("1,2\n" + "".join(f"{n},{n * 2}\n" for n in range(30))).encode()
    for name, kept in (("123", "123"), ("1e5", "1e5"), ("true", "true"), (" 0042 ", "0042"), ("", "7")):
        form = {"file": (io.BytesIO(rows), "7.csv"), "name": name, "mapping": '{"1": "prompt", "2": "completion"}'}
        answer = scene.call("POST", "/api/v1/datasets", "factory", data=form, content_type="multipart/form-data")
        assert (answer.status_code, answer.json["name"]) == (202, kept)  # type: ignore[index]
        assert answer.json["version"]["mapping"] == {"1": "prompt", "2": "completion"}  # type: ignore[index]


def test_s4_06_file_names_with_shell_characters_are_inert(scene: Scene) -> None:
    for name in ("$(touch x).jsonl", "a b; rm -rf .jsonl", "../../up.jsonl", "`id`|.jsonl"):
        answer = scene.upload(sound_rows(), name=name)
        assert answer.status_code == 202, answer.json
    assert wait(scene, str(answer.json["id"]))["state"] in ("ready", "warned")  # type: ignore[index]
    answer = scene.upload(sound_rows(), name="a\nb.jsonl")
    assert (answer.status_code, answer.json["field"]) == (422, "file")  # type: ignore[index]
    owner = scene.actors["factory"].organisation_id
    assert [len(path.name) for path in (scene.home / "datasets" / owner).iterdir()] == [64]


def test_s4_12_a_disk_that_is_full_keeps_no_part(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_arguments: Any) -> None:  # a disk cannot be filled here
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fill)
    answer = scene.upload(sound_rows())
    assert (answer.status_code, answer.json["code"]) == (507, "disk_full")  # type: ignore[index]
    owner = scene.actors["factory"].organisation_id
    assert list((scene.home / "datasets" / owner).iterdir()) == []


def write_rows(*turns: tuple[str, str]) -> bytes:
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_version(scene: Scene, dataset_id: str, number: int) -> dict[str, Any]:
    path = f"/api/v1/datasets/{dataset_id}?version={number}"
    run_until(scene.make_worker(), lambda: scene.call("GET", path, "factory").json["version"]["state"] != "checking")  # type: ignore[index]
    found: dict[str, Any] = scene.call("GET", path, "factory").json["version"]  # type: ignore[index]
    return found


def test_another_data_set_is_held_out_whole_and_the_overlap_is_told(scene: Scene) -> None:
    near = "Press {} in the long hall stops because its guard door stays open"
    rows = [(f"Valve {n} of the boiler drips", f"Seal {n} is to be replaced") for n in range(300)]
    training = add(scene, write_rows(*rows, (near.format(7), "Close the guard door")))
    held = add(
        scene,
        write_rows(
            *[(f"Motor {n} hums", f"Fix {n}") for n in range(25)],
            (near.format(7) + ".", "Close the guard doors"),
            rows[3],
        ),
    )
    path = f"/api/v1/datasets/{training}/validation"
    made = scene.call("POST", path, "factory", json={"validation_dataset_id": held})
    assert made.status_code == 202, made.json
    version = read_version(scene, training, made.json["version"]["number"])  # type: ignore[index]
    told = {
        one["code"]: (one["severity"], one["count"]) for one in version["report"]["issues"] if "overlap" in one["code"]
    }
    assert told == {"train_valid_overlap": ("F", 1), "train_valid_near_overlap": ("W", 1)}
    assert (version["state"], version["train_rows"], version["valid_rows"]) == ("warned", 300, 27)
    assert wait(scene, training)["number"] == 1
    again = scene.call("POST", path, "factory", json={"validation_dataset_id": held})
    assert again.json["version"]["id"] == version["id"]  # type: ignore[index]
    body = {"base": scene.base, "dataset_id": version["id"], "model_name": "orders"}
    assert scene.call("POST", "/api/v1/runs", "factory", json=body).status_code == 409
    seen = scene.call("POST", f"/api/v1/datasets/{training}/acknowledge?version=2", "factory")
    assert (seen.status_code, seen.json["version"]["state"]) == (200, "ready")  # type: ignore[index]
    assert scene.call("POST", "/api/v1/runs", "factory", json=body).status_code == 202
    fixes = {"fixes": {"train_valid_near_overlap": "drop"}}
    fixed = scene.call("POST", f"/api/v1/datasets/{training}/versions?version=2", "factory", json=fixes)
    assert fixed.json["version"]["held_version_id"] == version["held_version_id"]  # type: ignore[index]
    assert read_version(scene, training, 3)["train_rows"] == 299


def test_what_is_held_out_must_be_another_data_set_of_ones_own(scene: Scene) -> None:
    training = add(scene, sound_rows())
    for other, status in (
        (training, 422),
        (add(scene, b"question,answer\na,b\n", name="held.csv"), 422),
        ("dst_none", 404),
    ):
        body = {"validation_dataset_id": other}
        refused = scene.call("POST", f"/api/v1/datasets/{training}/validation", "factory", json=body)
        assert refused.status_code == status, refused.json
    assert refused.json is not None
    theirs = scene.add_dataset("rival")
    body = {"validation_dataset_id": theirs}
    assert scene.call("POST", f"/api/v1/datasets/{training}/validation", "factory", json=body).status_code == 404
