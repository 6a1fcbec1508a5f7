"""Short pieces of the real work on the real base, for timing a plan.

Leaves the clock and the arithmetic to plan.
"""

from finetune.base import add_adapter, load_model, use_precision, use_training_precision
from finetune.evaluate import measure_losses
from finetune.generate import generate_answers
from finetune.lora_product import speed_up_products
from finetune.loss import AnswerBatch, AnswerLoss, build_batch
from finetune.prepare import Prepared
from finetune.recipe import read_count
from finetune.spec import RunSpec
from finetune.tokens import TokenRow

_STEPS = 6
_ROWS = 64
_NEW_TOKENS = 8


class SpeedProbe:
    """Each method does one kind of work and returns how much of it: tokens, tokens, generated positions."""

    def __init__(self, prepared: Prepared, spec: RunSpec) -> None:
        self._prepared = prepared
        self._device = spec.device
        base = load_model(prepared.folder, spec.device, mean_tokens=prepared.epoch_tokens / len(prepared.train))
        self._model = add_adapter(base, prepared.recipe, spec.seed)
        speed_up_products(self._model, spec.device)
        self._loss = AnswerLoss(self._model)
        stride = max(1, prepared.steps // _STEPS)
        self._sample = [[prepared.train[row] for row in batch] for batch in prepared.batches[::stride][:_STEPS]]
        self._held_out = prepared.valid[:_ROWS]
        self._loss.prove_head(self._build(self._sample[0][:1]))

    def run_steps(self) -> int:
        """Forward and backward over a sample of the plan's batches; returns non-pad tokens."""
        self._model.train()
        for rows in self._sample:
            with use_training_precision(self._device)():
                value = self._loss.measure(self._build(rows)).mean()
            value.backward()  # type: ignore[no-untyped-call]
        return sum(len(row.ids) for rows in self._sample for row in rows)

    def look(self) -> int:
        """Loss of some held-out rows; returns non-pad tokens."""
        self._model.eval()
        budget = 4 * read_count(self._prepared.recipe, "batch_tokens")
        pad_id = self._prepared.tokenizer.eos_token_id
        measure_losses(self._loss, self._held_out, batch_tokens=budget, pad_id=pad_id, device=self._device)
        return sum(len(row.ids) for row in self._held_out)

    def generate(self) -> int:
        """A few greedy tokens for one batch of held-out prompts; returns positions generated per row."""
        with use_precision(self._device)():
            generate_answers(
                self._model,
                self._prepared.tokenizer,
                [row.prompt for row in self._held_out],
                max_new_tokens=_NEW_TOKENS,
                device=self._device,
                on_batch=lambda _: None,
            )
        return _NEW_TOKENS

    def _build(self, rows: list[TokenRow]) -> AnswerBatch:
        return build_batch(rows, pad_id=self._prepared.tokenizer.eos_token_id, device=self._device)
