"""The upload gate of adapters, end to end over HTTP: what passes, what is refused, and that nothing stays of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from hub.catalogue.tables import Model, ModelVersion, UploadSession
from tests.hub.market.world import World, count
from tests.registry.builders import adapter_tensors, write_adapter

FIELDS = {"name": "orders", "base": "operator-co/base", "title_zh": "工单助手", "scenario": "work-orders"}
Files = list[tuple[str, bytes]]


def read_files(folder: Path) -> Files:
    return [(file.name, file.read_bytes()) for file in sorted(folder.iterdir())]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return read_files(write_adapter(tmp_path / "adapter"))


def nothing_is_kept(world: World) -> bool:
    [_base] = world.store.root.iterdir()
    return count(world, ModelVersion) == count(world, Model) == 1 and not list((world.home / "uploads").glob("*"))


def test_a_sound_adapter_is_in_review_and_its_owners_only(world: World, files: Files) -> None:
    base = world.add_base()
    answer = world.upload("integrator", FIELDS | {"base_weights_digest": base.weights_digest}, files)
    assert answer.status_code == 201
    made = answer.json
    assert (made["name"], made["state"], made["rank"]) == ("integrator-co/orders@1", "in_review", 4)
    assert made["report"]["passed"] is True
    assert len(made["report"]["checks"]) >= 8
    assert made["lineage"]["base_weights_digest"] == base.weights_digest
    assert world.store.verify(made["artifact_digest"]).files.keys() == {name for name, _ in files}
    page = world.call("GET", "/models/integrator-co/orders", "integrator").json
    assert page["may_call"]["ok"] is True
    assert [link["name"] for link in page["lineage"]] == ["integrator-co/orders@1", "operator-co/base@1"]
    for stranger in (None, "rival", "factory"):
        assert world.call("GET", "/models/integrator-co/orders", stranger).status_code == 404
    [upload] = world.call("GET", "/uploads", "integrator").json["uploads"]
    assert (upload["state"], upload["version_id"]) == ("accepted", made["id"])


def test_the_same_bytes_again_are_the_same_version(world: World, files: Files) -> None:
    world.add_base()
    first, second = (world.upload("integrator", FIELDS, files).json for _ in range(2))
    assert first["id"] == second["id"]
    assert count(world, UploadSession) == 2


def test_the_base_is_found_by_its_weights_alone(world: World, files: Files) -> None:
    base = world.add_base()
    fields = {"name": "orders", "base_weights_digest": base.weights_digest}
    assert world.upload("integrator", fields, files).json["base_version_id"] == base.id


BAD_FIELDS = [
    ({"base_weights_digest": "0" * 64}, "base_mismatch"),
    ({"base": "operator-co/other"}, "not_found"),
    ({"name": "rival-co/orders"}, "bad_model_name"),
    ({"name": "a b"}, "bad_model_name"),
    ({"name": "latest"}, "bad_model_name"),
    ({"scenario": "astrology"}, "unknown_taxonomy_code"),
    ({"state": "listed"}, "invalid_value"),
    ({"title_zh": "x" * 201}, "invalid_value"),
    ({"task": "telepathy"}, "invalid_value"),
]


def test_bad_fields_are_refused(world: World, files: Files) -> None:
    world.add_base()
    for change, code in BAD_FIELDS:
        answer = world.upload("integrator", FIELDS | change, files)
        assert answer.status_code in (404, 422), change
        assert answer.json["code"] == code
    assert count(world, ModelVersion) == 1


def test_no_base_at_all_is_refused_with_the_next_step(world: World, files: Files) -> None:
    answer = world.upload("integrator", {"name": "orders"}, files)
    assert answer.status_code == 422
    assert "'base' (org/name) or 'base_weights_digest'" in answer.json["detail"]


def test_an_adapter_is_no_base(world: World, files: Files) -> None:
    world.add_adapter(world.add_base(), name="first")
    answer = world.upload("integrator", FIELDS | {"base": "integrator-co/first"}, files)
    assert (answer.status_code, answer.json["code"]) == (422, "base_mismatch")


HOSTILE_NAMES = [
    "adapter_model.bin",
    "model.pkl",
    "run.py",
    "archive.zip",
    "../adapter_config.json",
    "/etc/passwd",
    "a\\b.json",
    "ADAPTER_CONFIG.JSON",
    ".hidden",
    "x" * 300,
    "tokenizer.json",
]


def test_other_file_names_refuse_the_whole_upload(world: World, files: Files) -> None:
    world.add_base()
    for name in HOSTILE_NAMES:
        answer = world.upload("integrator", FIELDS, [*files, (name, b"anything")])
        assert (answer.status_code, answer.json["code"]) == (422, "upload_refused"), name
        assert nothing_is_kept(world)


def test_a_refusal_keeps_every_check_for_the_uploader(world: World, files: Files) -> None:
    world.add_base()
    answer = world.upload("integrator", FIELDS, [*files, ("run.py", b"import os")])
    shown = world.call("GET", f"/uploads/{answer.json['upload_id']}", "integrator").json
    assert (shown["state"], shown["version_id"]) == ("refused", None)
    assert shown["report"] == answer.json["report"]
    [failed] = [check for check in shown["report"]["checks"] if not check["passed"]]
    assert failed["fix_en"].startswith("Only LICENSE, README.md")
    assert world.call("GET", f"/uploads/{answer.json['upload_id']}", "rival").status_code == 404


def test_pickles_code_keys_wrong_shapes_and_nan_are_refused(world: World, files: Files, tmp_path: Path) -> None:
    world.add_base()
    weights, config = dict(files)["adapter_model.safetensors"], json.loads(dict(files)["adapter_config.json"])
    tensors = adapter_tensors()
    first = next(iter(tensors))
    wide = read_files(write_adapter(tmp_path / "wide", tensors=tensors | {first: np.zeros((4, 9), np.float32)}))
    nan = read_files(write_adapter(tmp_path / "nan", tensors=tensors | {first: np.full((4, 8), np.nan, np.float32)}))
    code = json.dumps(config | {"auto_mapping": {"parent_library": "os"}}).encode()
    cases: list[Files] = [
        [("adapter_model.safetensors", b"\x80\x04pickle"), ("adapter_config.json", json.dumps(config).encode())],
        [("adapter_model.safetensors", weights), ("adapter_config.json", code)],
        [("adapter_model.safetensors", weights)],
        [*files, *files],
        wide,
        nan,
    ]
    for case in cases:
        answer = world.upload("integrator", FIELDS, case)
        assert (answer.status_code, answer.json["code"]) == (422, "upload_refused")
        assert nothing_is_kept(world)


def test_an_empty_or_too_long_text_is_refused_and_closes_the_upload(world: World, files: Files) -> None:
    world.add_base()
    for content in (b"", b"x" * (1024 * 1024 + 1)):
        assert world.upload("integrator", FIELDS, [*files, ("README.md", content)]).status_code == 422
        assert nothing_is_kept(world)
    states = {upload["state"] for upload in world.call("GET", "/uploads", "integrator").json["uploads"]}
    assert states == {"refused"}


def test_files_under_another_field_or_none_are_refused(world: World) -> None:
    world.add_base()
    assert world.upload("integrator", FIELDS, []).status_code == 422
    assert world.upload("integrator", FIELDS, [("README.md", b"x")] * 9).status_code == 422


def test_who_may_upload(world: World, files: Files) -> None:
    world.add_base()
    for who, status in (("auditor", 403), ("developer", 403), ("factory", 201)):
        assert world.upload(who, FIELDS, files).status_code == status
    assert world.call("POST", "/adapters", data={}, content_type="multipart/form-data").status_code == 401


@pytest.mark.engine
def test_an_adapter_made_by_plain_peft_passes(world: World, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tests.finetune.tiny_base import PLAIN_TEMPLATE, build_base

    folder = build_base(tmp_path / "hf", PLAIN_TEMPLATE)
    body = {"path": str(folder), "name": "base"}
    made = world.call("POST", "/bases/import", "operator", json=body)
    assert made.status_code == 201, made.json
    model = AutoModelForCausalLM.from_pretrained(folder)
    tuned = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(tmp_path / "peft")
    answer = world.upload("integrator", FIELDS, read_files(tmp_path / "peft"))
    assert answer.status_code == 201, answer.json
    assert (answer.json["rank"], answer.json["weights_digest"]) == (8, made.json["weights_digest"])
