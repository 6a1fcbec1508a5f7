"""A published BERT layout from import to `client.embeddings.create`, on real vLLM, against transformers."""

import asyncio
import json
import math
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import openai
import pytest

from hub.catalogue.bases import prepare_base
from hub.deployments.rules import choose_context_tokens, choose_engine_args, choose_task
from registry.store import FolderStore
from serving.contract import DesiredFile, ReplicaSet, ReplicaState, Task
from serving.pool.engine_command import VllmCommands
from serving.pool.settings import Accelerator, Timing
from tests.gateway.samples import make_snapshot
from tests.gateway.test_alone import alone, make_key
from tests.gateway.world import running_world
from tests.pool.test_alone import Alone, run
from tests.pool.tiny_models import TinyModels
from tests.pool.world import BASE_DIGEST, eventually, make_desired, make_world

TEXTS = ["主轴 轴承 过热", "spindle bearing too hot", "coolant pump leaks", "泵"]
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
TIMING = Timing(drain_notice_s=0.2, observed_interval_s=0.5)
EXPECT = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
batch = tokenizer(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
mask = batch["attention_mask"].unsqueeze(-1)
print(json.dumps(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).tolist()))
"""


def run_python(*argv: str) -> str:
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *argv], env=environment, check=True, capture_output=True, text=True).stdout


def want_embedder(store: FolderStore, folder: Path) -> ReplicaSet:
    """The set that the hub makes for an imported folder."""
    prepared = prepare_base(store, folder)
    facts = asdict(prepared.facts)
    context = choose_context_tokens(facts)
    plain = make_desired(store.path(prepared.artifact.digest)).replica_sets[0]
    arguments = choose_engine_args(facts, context)
    digest = prepared.artifact.digest
    return replace(plain, base_digest=digest, max_loras=0, task=choose_task(facts), engine_args=arguments)


@pytest.mark.engine
def test_a_published_bert_folder_embeds_as_transformers_does(tmp_path: Path) -> None:
    run_python(str(Path(__file__).with_name("make_bert.py")), str(tmp_path / "bert"))
    wanted = json.loads(run_python("-c", EXPECT, str(tmp_path / "bert"), json.dumps(TEXTS)))
    embedder = want_embedder(FolderStore(tmp_path / "store"), tmp_path / "bert")
    assert (embedder.task, json.loads(str(embedder.engine_args["pooler-config"]))) == (
        Task.EMBED,
        {"pooling_type": "MEAN", "use_activation": True},
    )
    desired = replace(make_desired(tmp_path), replica_sets=(embedder,))

    async def scenario() -> None:
        commands = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)
        async with make_world(tmp_path / "pool", desired, commands, TIMING) as world, world.controller():
            ready = await eventually(lambda: world.hub.replica(ReplicaState.READY), 240)
            vectors = await asyncio.to_thread(embed_through_gateway, tmp_path / "gateway", ready.url)
            assert (
                max(
                    abs(one - two)
                    for got, want in zip(vectors, wanted, strict=True)
                    for one, two in zip(got, want, strict=True)
                )
                < 1e-3
            )
            assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]), "it was trained to tell them apart"
            await asyncio.sleep(2 * TIMING.probe_interval_s + 1)
            still = world.hub.replica(ReplicaState.READY)
            assert still is not None
            assert still.replica_epoch == 1, "its pulse is felt by embedding"

    asyncio.run(scenario())


@pytest.mark.engine
@pytest.mark.timeout(600)
def test_one_controller_serves_a_generator_and_an_embedding_model_by_name(
    tmp_path: Path, tiny_models: TinyModels
) -> None:
    run_python(str(Path(__file__).with_name("make_bert.py")), str(tmp_path / "bert"))
    embedder = replace(want_embedder(FolderStore(tmp_path / "bases"), tmp_path / "bert"), set_id="set_b")
    plain = make_desired(tiny_models.base)
    slots = (*plain.slots, replace(plain.slots[0], slot_id="slot_b", set_id="set_b"))
    names = {"writer": BASE_DIGEST, "embedder": embedder.base_digest}
    wanted = DesiredFile((*plain.replica_sets, embedder), slots, names=names)

    async def scenario(alone: Alone) -> None:
        alone.folder.mkdir()
        alone.want(wanted)
        commands = VllmCommands(Accelerator.CPU, 2, ENVIRONMENT)
        async with alone.pool(commands=commands, timing=TIMING), alone.gateway():
            await eventually(lambda: alone.routes.exists() and len(alone.written().routes.replicas) == 2, 400)
            await asyncio.to_thread(call_both, alone)

    run(tmp_path / "alone", scenario)


def call_both(alone: Alone) -> None:
    """Each model answers what it computes; a generator asked for vectors says that it has none."""
    with openai.OpenAI(base_url=f"{alone.url}/v1", api_key=alone.key, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {"writer", "embedder"}
        for _ in range(2):  # one after the other, so that no engine answers for its neighbour
            text = client.completions.create(model="writer", prompt="spindle bearing", max_tokens=8)
            assert text.usage is not None
            assert text.usage.completion_tokens > 0
            vectors = client.embeddings.create(model="embedder", input=TEXTS, encoding_format="float").data
            assert [len(item.embedding) for item in vectors] == [64] * len(TEXTS)
        with pytest.raises(openai.APIStatusError, match="writer does not serve embeddings"):
            client.embeddings.create(model="writer", input=TEXTS)


def embed_through_gateway(folder: Path, engine_url: str) -> list[list[float]]:
    folder.mkdir()
    with running_world(make_snapshot(keys=(), models=()), folder) as world:
        key = make_key(folder)
        with (
            alone(world, "--replica", f"{engine_url}=base") as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client,
        ):
            answer = client.embeddings.create(model="base", input=TEXTS, encoding_format="float")
            assert answer.usage.prompt_tokens > 8
            return [item.embedding for item in answer.data]


def cosine(one: list[float], two: list[float]) -> float:
    return math.fsum(left * right for left, right in zip(one, two, strict=True))
