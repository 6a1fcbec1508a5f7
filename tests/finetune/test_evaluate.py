"""Held-out figures against the model asked row by row."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.evaluate import measure_losses
from finetune.loss import AnswerLoss, build_batch
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
