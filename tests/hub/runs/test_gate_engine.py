"""The gate on real vLLM with an adapter that PEFT trained, and with every way in which one is known to be ignored.

The ways are those of research/finetune.md: other module names (vllm#55193), wrapper prefixes (vllm#48019), missing keys
(peft#1323), a B of zeros, a wrong scale, and the base served under the adapter's name.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from finetune.spec import Base, Data, Kind, RunSpec, Value
from hub.deployments.evaluating import Served
from hub.tuning.examining import Asked, collect_questions, examine
from hub.tuning.gate import judge
from serving.contract import BASE_ENGINE_NAME, Purpose, ReplicaSet, engine_name
from tests.finetune import conftest as trainers
from tests.hub.runs.scene import ROOT
from tests.pool.real_engine import running_set

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
chats = trainers.chats
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base that vLLM can serve."""
    folder = tmp_path_factory.mktemp("base")
    script = ROOT / "tests" / "finetune" / "tiny_base.py"
    subprocess.run(
        [sys.executable, str(script), str(folder), "served"], check=True, env=ENVIRONMENT, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def trained(warm_trainer: Path, base: Path, chats: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a real run on the tiny base."""
    return train(warm_trainer, base, chats, tmp_path_factory.mktemp("trained"))


def train(warm_trainer: Path, base: Path, chats: Data, folder: Path, **wishes: int) -> Path:
    """Train as the hub's worker has it done; returns OUT."""
    wanted = {"epochs": 16, "learning_rate": 4e-3, "rank": 8, **wishes}
    recipe = {name: Value(value) for name, value in wanted.items()}
    spec = RunSpec(kind=Kind.TRAIN, run_id="run_1", base=Base(str(base)), data=chats, recipe=recipe)
    with trainers.starting(folder / "launch", trainers.TRAINER, trainers.open_warm(warm_trainer)) as start:
        assert start(spec, folder / "out").wait() == 0
    return folder / "out"


@pytest.fixture(scope="module")
def engine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one vLLM, started as the pool starts one for evaluations."""
    with serving(base, tmp_path_factory.mktemp("engine"), max_loras=4) as url:
        yield url


@contextlib.contextmanager
def serving(model: Path, folder: Path, *, max_loras: int, merged: str | None = None) -> Iterator[str]:
    """Run one vLLM with the product's own command."""
    wanted = ReplicaSet(
        set_id="set_1", base_digest="0" * 64, uri=model.as_uri(), engine="vllm", purpose=Purpose.EVALUATE, min=1, max=1,
        max_loras=max_loras, max_lora_rank=16, engine_args={"max-model-len": 512}, merged=merged,
        weights_folder=None if merged is None else "f" * 64,
    )  # fmt: skip
    with running_set(wanted, model, folder) as engine:
        yield engine.url


@pytest.fixture(scope="module")
def asked(trained: Path, chats: Data) -> Asked:
    found = collect_questions(trained, Path(chats.valid or ""), max_tokens=24)
    assert found is not None
    assert (len(found.task), len(found.probe)) == (24, 120)
    assert all(found.texts)
    return found


def load(url: str, folder: Path) -> int:
    """Hot-load an adapter by its folder's name; returns the engine's status."""
    body = {"lora_name": folder.name, "lora_path": str(folder)}
    return httpx.post(f"{url}/v1/load_lora_adapter", json=body, timeout=120).status_code


def test_the_trained_adapter_passes_and_the_base_under_its_name_does_not(
    engine: str, trained: Path, asked: Asked
) -> None:
    assert load(engine, trained / "artifact") == 200
    base = Served(engine, BASE_ENGINE_NAME)
    gate = judge(examine(base, Served(engine, "artifact"), asked))
    sys.stdout.write(f"\ngate on vLLM {json.dumps(gate)}\n")
    assert gate["parity"]["code"] == "proven", gate
    assert gate["rules"][0] == {"code": "loss_lower", "passed": True} | gate["rules"][0]
    assert gate["scores"]["loss"]["adapter"] < gate["scores"]["loss"]["base"]
    told = json.loads((trained / "result.json").read_text())["metrics"]
    for side in ("base", "adapter"):
        assert gate["scores"]["loss"][side] == pytest.approx(told[side]["loss"], abs=0.02)
        assert gate["scores"]["stop_rate"][side] == pytest.approx(told[side]["stop_rate"], abs=0.1)
    impostor = judge(examine(base, base, asked))
    assert (impostor["passed"], impostor["code"]) == (False, "adapter_not_applied")


def rename(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): weight for name, weight in tensors.items()}


SILENT = {
    "zero_b": lambda tensors: {name: weight * 0 if "lora_B" in name else weight for name, weight in tensors.items()},
    "other_module_names": rename("_proj", "_projection"),
    "wrapper_prefix": rename("base_model.model.model.", "base_model.model.language_model.model."),
    "missing_keys": lambda tensors: {name: weight for name, weight in tensors.items() if ".layers.0." not in name},
    "wrong_scale": lambda tensors: tensors,
}


@pytest.mark.parametrize("way", list(SILENT))
def test_every_way_of_being_ignored_is_refused_by_the_engine_or_told_by_the_gate(
    way: str, engine: str, trained: Path, asked: Asked, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / way
    folder.mkdir()
    save_file(
        SILENT[way](load_file(trained / "artifact" / "adapter_model.safetensors")), folder / "adapter_model.safetensors"
    )
    config = json.loads((trained / "artifact" / "adapter_config.json").read_text())
    if way == "wrong_scale":
        config["lora_alpha"] *= 4
    (folder / "adapter_config.json").write_text(json.dumps(config))
    status = load(engine, folder)
    few = replace(asked, task=asked.task[:16], texts=asked.texts[:16], probe=asked.probe[:4])
    gate = None
    if status == 200:
        gate = judge(examine(Served(engine, BASE_ENGINE_NAME), Served(engine, way), few))
    sys.stdout.write(f"\n{way}: engine {status}, gate {gate['code'] if gate else 'not asked'}\n")
    if gate is not None:
        assert gate["code"] in ("adapter_not_applied", "adapter_differs")
        assert not gate["passed"]


def test_a_dora_adapter_is_proven_with_merged_weights_and_refused_by_slots(
    warm_trainer: Path, base: Path, chats: Data, engine: str, tmp_path: Path
) -> None:
    out = train(warm_trainer, base, chats, tmp_path, use_dora=1)
    config = json.loads((out / "artifact" / "adapter_config.json").read_text())
    assert config["use_dora"] is True
    assert load(engine, out / "artifact") != 200, "the reason for an engine of its own"
    command = [sys.executable, "-m", "finetune.merge", *(str(path) for path in (base, out / "artifact"))]
    subprocess.run([*command, str(tmp_path / "merged")], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    asked = collect_questions(out, Path(chats.valid or ""), max_tokens=24)
    assert asked is not None
    with serving(tmp_path / "merged", tmp_path, max_loras=0, merged="a" * 64) as url:
        gate = judge(examine(Served(engine, BASE_ENGINE_NAME), Served(url, engine_name("a" * 64)), asked))
    sys.stdout.write(f"\nDoRA with merged weights {json.dumps(gate['parity'])}\n")
    assert gate["parity"]["code"] == "proven", gate
    assert gate["scores"]["loss"]["adapter"] < gate["scores"]["loss"]["base"]
