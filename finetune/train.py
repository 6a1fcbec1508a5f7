"""The training loop: one LoRA adapter over the prepared batches, resumable to the bit on CPU.

Leaves scoring, packing the artifact and the exit code to `finetune.run`.
"""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from finetune.artifact import write_artifact
from finetune.base import add_adapter, load_model, use_training_precision
from finetune.batches import Batch, cut_parts
from finetune.checkpoint import (
    Position,
    Snapshot,
    Tensors,
    find_checkpoint,
    load_checkpoint,
    read_random,
    restore_random,
    save_checkpoint,
)
from finetune.codec import Json
from finetune.errors import LimitError, RunError
from finetune.evaluate import measure_losses
from finetune.fused_decoder import build_fused_decoder
from finetune.job import Job
from finetune.lora_product import speed_up_products
from finetune.loss import AnswerLoss, build_batch
from finetune.prepare import Prepared
from finetune.recipe import read_count, read_number
from finetune.spec import Event, Value
from finetune.stop import find_exceeded_limit

_LINE_EVERY_S = 0.25
_LEAST_WARMUP_STEPS = 5


def scale_rate(step: int, steps: int, recipe: Mapping[str, Value]) -> float:
    """Factor on the learning rate at `step` (from 0): linear warm-up, then cosine down to `final_lr_ratio`."""
    least = min(_LEAST_WARMUP_STEPS, steps // 4)
    warm = max(least, round(read_number(recipe, "warmup_ratio") * steps))
    if step < warm:
        return (step + 1) / warm
    floor = read_number(recipe, "final_lr_ratio")
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Trainer:
    """Owns the model, the optimizer and the position of one attempt."""

    def __init__(self, job: Job, prepared: Prepared) -> None:
        self.job = job
        self.prepared = prepared
        recipe = prepared.recipe
        device = job.spec.device
        mean_tokens = prepared.epoch_tokens / len(prepared.train)
        job.log.beat({"stage": "preparing"})
        base = load_model(prepared.folder, device, mean_tokens=mean_tokens)
        self.model: Any = add_adapter(base, recipe, job.spec.seed)
        speed_up_products(self.model, device)
        fused = build_fused_decoder(self.model, device=device, mean_tokens=mean_tokens)
        self.loss = AnswerLoss(self.model, fused)
        self.position = Position()
        self.best: Tensors | None = None
        self._weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._weights.values(),
            lr=read_number(recipe, "learning_rate"),
            weight_decay=read_number(recipe, "weight_decay"),
            fused=True,
        )
        self._pad_id = prepared.tokenizer.eos_token_id
        self._precision = use_training_precision(device)
        self._since_line: list[float] = []
        self._gradient_norm = torch.zeros(())
        self._line_at_s = 0.0
        self._commit_at_s = time.monotonic()

    def train(self) -> None:
        """Run to the end of the plan or to early stopping; afterwards the model holds the adapter to keep.

        Raises:
            StopError: after a commit, when a stop was asked for.
            LimitError, RunError `nan_loss`: after which the last commit is the state to trust.
        """
        self._resume()
        self.loss.prove_head(self._build(self.prepared.batches[0][:2]))
        self.loss.prove_fused(self._build(self.prepared.batches[0][:2]))
        self._validate_start()
        looks = self._choose_looks()
        while self.position.step < self.prepared.steps and not self.position.stopped_early:
            self._obey_limits()
            self._step()
            if self.position.step in looks:
                self._validate()
            self._report_step()
            self._commit_if_due()
        self._commit()
        if self.best is not None:
            self._put(self.best)

    def charge(self, device_ms: int) -> None:
        """Count device time that the customer pays for besides steps (scoring)."""
        self.position = self.position.advance(device_ms=self.position.device_ms + device_ms)
        self._publish()

    def _step(self) -> None:
        started_s = time.monotonic()
        prepared = self.prepared
        rows = prepared.batches[self.position.step]
        scale = scale_rate(self.position.step, prepared.steps, prepared.recipe) * self.job.spec.rate_factor
        for group in self._optimizer.param_groups:
            group["lr"] = read_number(prepared.recipe, "learning_rate") * scale
        self.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        value = self._add_gradients(rows)
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), read_number(prepared.recipe, "clip_norm"))
        self._refuse_no_number(value, float(norm))
        self._optimizer.step()
        self._since_line.append(value)
        self._gradient_norm = norm
        self.position = self.position.advance(
            step=self.position.step + 1,
            tokens=self.position.tokens + sum(prepared.train.lengths[row] for row in rows),
            device_ms=self.position.device_ms + _since_ms(started_s),
        )

    def _refuse_no_number(self, loss: float, norm: float) -> None:
        """Before the weights take it: whatever is committed can be gone on from."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            place = f"at step {self.position.step + 1}"
            text = f"the loss is {loss} and its gradient's norm {norm} {place}; lower the learning rate."
            raise RunError("nan_loss", text)

    def _add_gradients(self, rows: Batch) -> float:
        """Gradients of a step's mean loss, which is returned; in parts where the spec bounds what the device holds."""
        limit = self.job.spec.limits.batch_tokens
        parts = [rows] if limit is None else cut_parts(rows, self.prepared.train.lengths, limit)
        train, is_whole = self.prepared.train, len(parts) == 1
        trained = 0 if is_whole else sum(end - start for row in rows for start, end in train[row].learn)
        total = 0.0
        for part in parts:
            with self._precision():
                values = self.loss.measure(self._build(part))
                loss = values.mean() if is_whole else values.sum() / trained
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _validate_start(self) -> None:
        """The held-out loss before the first step is the base's own: the first point of the curve."""
        if self.position.step == 0 and self.position.best_loss is None:
            self._validate()

    def _validate(self) -> None:
        started_s = time.monotonic()
        self.model.eval()
        prepared = self.prepared
        found = measure_losses(
            self.loss,
            prepared.valid,
            batch_tokens=4 * read_count(prepared.recipe, "batch_tokens"),
            pad_id=self._pad_id,
            device=self.job.spec.device,
            on_part=lambda: self.job.log.beat({"stage": "training"}),
        )
        self._judge(found.mean)
        self.position = self.position.advance(device_ms=self.position.device_ms + _since_ms(started_s))
        self._publish()
        self._keep_evaluated()
        metrics: dict[str, Json] = {
            "valid_loss": round(found.mean, 6),
            "valid_token_accuracy": round(found.token_accuracy, 6),
            "best_step": self.position.best_step,
        }
        self.job.log.write(Event.VALIDATION, metrics)

    def _keep_evaluated(self) -> None:
        """Each evaluated checkpoint stays as an adapter that an engine can load, so that it may be tried out."""
        step = self.position.step
        if step > 0:
            weights_digest = self.prepared.digests["weights_digest"]
            with self.job.log.time_commit():
                write_artifact(self.job.out, self.model, weights_digest, name=f"evaluated/step-{step:08d}")

    def _judge(self, found: float) -> None:
        recipe, position = self.prepared.recipe, self.position
        patience = read_count(recipe, "patience")
        if patience == 0:
            return
        best = position.best_loss
        if best is None or found < best * (1 - read_number(recipe, "min_delta")):
            self.best = {name: weight.detach().clone() for name, weight in self._weights.items()}
            self.position = position.advance(best_loss=found, best_step=position.step, misses=0)
            return
        misses = position.misses + 1
        self.position = position.advance(misses=misses, stopped_early=misses >= patience)

    def _choose_looks(self) -> set[int]:
        steps, looks = self.prepared.steps, read_count(self.prepared.recipe, "validations")
        return {max(1, round(steps * look / looks)) for look in range(1, looks + 1)}

    def _obey_limits(self) -> None:
        stop = self.job.stop.pending()
        if stop is not None:
            self._commit()
            raise stop
        limit = find_exceeded_limit(
            self.job.spec.limits, now_us=self.job.log.read_now_us(), device_ms=self.position.device_ms
        )
        if limit is not None:
            self._commit()
            raise LimitError("limit_exceeded", limit)

    def _report_step(self) -> None:
        self._publish()
        is_last = self.position.step == self.prepared.steps
        if time.monotonic() - self._line_at_s < _LINE_EVERY_S and not is_last:
            return
        tokens_per_s = 1000 * self.position.tokens / max(1, self.position.device_ms)
        metrics: dict[str, Json] = {
            "loss": round(sum(self._since_line) / len(self._since_line), 6),
            "grad_norm": round(float(self._gradient_norm), 6),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "tokens_per_s": round(tokens_per_s, 1),
            "eta_s": round((self.prepared.tokens - self.position.tokens) / max(1.0, tokens_per_s), 1),
            "steps": self.prepared.steps,
        }
        self.job.log.write(Event.STEP, metrics)
        self._since_line.clear()
        self._line_at_s = time.monotonic()

    def _publish(self) -> None:
        log, position = self.job.log, self.position
        log.step, log.tokens, log.device_ms = position.step, position.tokens, position.device_ms

    def _commit_if_due(self) -> None:
        if time.monotonic() - self._commit_at_s >= self.job.spec.checkpoint.interval_s:
            self._commit()

    def _commit(self) -> None:
        snapshot = Snapshot(
            position=self.position,
            adapter={name: weight.detach() for name, weight in self._weights.items()},
            best=self.best,
            optimizer=self._optimizer.state_dict(),
            random=read_random(),
        )
        spec = self.job.spec
        with self.job.log.time_commit():
            save_checkpoint(
                self.job.out,
                snapshot,
                plan_digest=self.prepared.plan_digest,
                fence=spec.fence,
                keep=spec.checkpoint.keep,
            )
        self._commit_at_s = time.monotonic()
        self._publish()
        self.job.log.committed_step = self.position.step
        self.job.log.committed_tokens = self.position.tokens
        self.job.log.committed_device_ms = self.position.device_ms
        self.job.log.write(Event.CHECKPOINT)

    def _resume(self) -> None:
        folders = [self.job.out] + ([Path(self.job.spec.resume_from)] if self.job.spec.resume_from else [])
        found = [find_checkpoint(folder, self.prepared.plan_digest) for folder in folders]
        valid = [folder for folder in found if folder is not None]
        if not valid:
            return
        snapshot = load_checkpoint(max(valid, key=lambda folder: folder.name), self.job.spec.device)
        self._put(snapshot.adapter)
        self._optimizer.load_state_dict(dict(snapshot.optimizer))
        restore_random(snapshot.random)
        self.position, self.best = snapshot.position, snapshot.best
        self._publish()
        self.job.log.write(Event.RESUMED)
        self._commit()  # a later attempt then finds everything in this attempt's folder

    def _put(self, tensors: Tensors) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(tensors[name])

    def _build(self, rows: tuple[int, ...]) -> Any:
        train = self.prepared.train
        return build_batch([train[row] for row in rows], pad_id=self._pad_id, device=self.job.spec.device)


def _since_ms(started_s: float) -> int:
    return round((time.monotonic() - started_s) * 1000)
