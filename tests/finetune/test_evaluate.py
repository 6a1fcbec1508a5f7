"""Held-out figures against the model asked row by row."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.evaluate import measure_losses
from finetune.generate import generate_answers
from finetune.loss import AnswerLoss, build_batch
from finetune.progress import ProgressLog
from finetune.spec import Data, Kind, RunSpec, SourceFormat
from finetune.tokens import TokenRow

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def _build() -> Any:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=7,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    return get_peft_model(LlamaForCausalLM(config), LoraConfig(r=2, target_modules="all-linear")).eval()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("head_only", [False, True])
def test_token_accuracy_counts_every_trained_token_once(head_only: bool) -> None:
    model = _build()
    rows = [
        TokenRow(row=n, ids=torch.randint(0, 7, (6 + n,)).tolist(), learn=((1, 3), (4, 6 + n)), answer="")
        for n in range(12)
    ]
    hits, logprobs = 0, []
    for row in rows:
        with torch.inference_mode():
            scores = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        places = [at for start, end in row.learn for at in range(start, end)]
        hits += sum(int(scores[at - 1].argmax()) == row.ids[at] for at in places)
        logprobs += [float(scores[at - 1, row.ids[at]]) for at in places]
    loss = AnswerLoss(model)
    assert not head_only or loss.prove_head(build_batch(rows[:2], pad_id=0, device="cpu"))
    found = measure_losses(loss, rows, batch_tokens=40, pad_id=0, device="cpu")
    assert 0 < hits < len(logprobs)
    assert found.token_accuracy == hits / len(logprobs)
    assert found.mean == pytest.approx(-sum(logprobs) / len(logprobs), rel=1e-5)


def test_a_long_look_and_long_answers_give_a_sign_of_life_after_each_pass_of_the_model() -> None:
    model = _build()
    beats: list[str] = []
    rows = [TokenRow(row=n, ids=[1, 2, 3, 4, 5, 6], learn=((3, 6),), answer="") for n in range(12)]
    measure_losses(
        AnswerLoss(model), rows, batch_tokens=12, pad_id=0, device="cpu", on_part=lambda: beats.append("part")
    )
    assert len(beats) > 3
    tokenizer = SimpleNamespace(eos_token_id=99, decode=lambda ids, skip_special_tokens: "")
    passes: list[str] = []
    generate_answers(
        model,
        tokenizer,
        [row.prompt for row in rows],
        max_new_tokens=5,
        device="cpu",
        on_batch=lambda _: None,
        on_pass=lambda: passes.append("pass"),
    )
    assert len(passes) == 5


def test_a_beat_is_written_only_into_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(kind=Kind.CHECK, run_id="run_1", data=Data(source="rows.csv", format=SourceFormat.CSV))
    log = ProgressLog(tmp_path, spec)
    log.beat({"stage": "training"})
    monkeypatch.setattr("finetune.progress.BEAT_S", 0.0)  # the real silence is ten seconds
    log.beat({"stage": "training"})
    log.close()
    assert len((tmp_path / "progress.jsonl").read_text(encoding="utf-8").splitlines()) == 1
