"""Importing bases: the folder's gate, digests, idempotence, who may."""

from pathlib import Path

from hub.catalogue.tables import ModelVersion
from registry.identity import weights_digest
from tests.hub.market.world import World, count
from tests.registry.builders import write_base


def import_folder(
    world: World, folder: Path, who: str = "operator", **changes: object
) -> tuple[int, dict[str, object]]:
    body = {"path": str(folder), "name": "base", "title_zh": "基础", "scenario": "work-orders", **changes}
    answer = world.call("POST", "/bases/import", who, json=body)
    assert answer.json is not None
    return answer.status_code, answer.json


def test_a_folder_becomes_a_listed_base_with_its_facts(world: World, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "hf")
    status, made = import_folder(world, folder)
    assert status == 201
    assert (made["name"], made["state"], made["kind"]) == ("operator-co/base@1", "listed", "base")
    assert made["weights_digest"] == weights_digest(folder)
    assert made["facts"]["context_length"] == 64
    assert made["parameters"] == made["facts"]["parameters"]
    assert world.store.verify(str(made["artifact_digest"])).size_bytes == made["size_bytes"]
    page = world.call("GET", "/models/operator-co/base").json
    assert (page["title_zh"], page["scenario"], page["can_fine_tune"]) == ("基础", "work-orders", True)
    assert (page["filing"]["state"], page["lineage"][0]["name"]) == ("never", "operator-co/base@1")


def test_the_same_folder_again_is_the_same_version(world: World, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "hf")
    first, second = import_folder(world, folder)[1], import_folder(world, folder)[1]
    assert first["id"] == second["id"]
    (folder / "README.md").write_text("now with a card")
    assert import_folder(world, folder)[1]["name"] == "operator-co/base@2"


def test_a_bad_folder_leaves_nothing(world: World, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "hf")
    (folder / "modeling.py").write_text("import os")
    status, problem = import_folder(world, folder)
    assert (status, problem["code"]) == (422, "base_refused")
    assert "modeling.py can run code" in str(problem["detail"])
    assert import_folder(world, tmp_path / "missing")[0] == 422
    assert count(world, ModelVersion) == 0
    assert not list(world.store.root.glob("*"))


def test_unknown_codes_names_and_fields_are_refused(world: World, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "hf")
    assert import_folder(world, folder, scenario="astrology")[1]["field"] == "scenario"
    assert import_folder(world, folder, name="rival-co/base")[1]["field"] == "name"
    assert import_folder(world, folder, name="Base Model")[1]["code"] == "bad_model_name"
    assert import_folder(world, folder, state="listed")[0] == 422
    assert count(world, ModelVersion) == 0


def test_only_the_operator_names_folders_of_the_machine(world: World, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "hf")
    for who in ("factory", "integrator", "auditor"):
        assert import_folder(world, folder, who)[0] == 403
