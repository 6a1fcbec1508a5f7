"""What a run will do, exactly: token rows, recipe, batch order and its digest; shared by plan and train.

Leaves measuring time to plan and the weights to train.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.base import check_base, read_config, read_context_limit
from finetune.batches import Batch, BatchOrder, count_tokens, count_within, digest_order, order_batches
from finetune.codec import Json, encode
from finetune.errors import BaseError, DataError
from finetune.files import digest_file, digest_text, format_json, read_row_numbers
from finetune.recipe import Facts, read_count, resolve_recipe
from finetune.spec import Base, RunSpec, Value
from finetune.token_rows import TokenRows, tokenize_file
from finetune.tokens import load_tokenizer


@dataclass(frozen=True)
class Prepared:
    """A run fixed to the last token; `over_length` are the customer's numbers of rows left out."""

    folder: Path
    tokenizer: Any
    digests: Mapping[str, str]
    recipe: Mapping[str, Value]
    train: TokenRows
    valid: TokenRows
    over_length: Mapping[str, Sequence[int]]
    batches: Sequence[Batch]
    epoch_tokens: int
    tokens: int
    plan_digest: str

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return len(self.batches)


def prepare_run(spec: RunSpec, on_part: Callable[[], None] = lambda: None) -> Prepared:
    """Read, check and fix everything that the run depends on.

    `on_part` is called after each part of what may take long, of digests and of tokens.

    Raises:
        BaseError: the base is not the one of the spec, or its template cannot be trained.
        DataError: changed files, values out of range, nothing left to train.
    """
    base, train_path, valid_path = _read_inputs(spec)
    folder = Path(base.path)
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    digests = check_base(base, tokenizer.get_chat_template(), on_part) | _check_files(spec, train_path, valid_path)
    on_part()
    train = tokenize_file(tokenizer, train_path, on_part, keeps_answers=False)  # nothing scores a trained row
    valid = tokenize_file(tokenizer, valid_path, on_part)
    if not train or not valid:
        raise DataError("too_few_examples", "the training or validation file is empty; run kind=check again.")
    recipe = resolve_recipe(spec.recipe, _collect_facts(config, train, valid, device=spec.device))
    limit = read_count(recipe, "max_length")
    over_length = {
        name: _name_rows(rows.drop_long(limit), path)
        for name, rows, path in (("train", train, train_path), ("valid", valid, valid_path))
    }
    if not train or not valid:
        raise DataError("no_trainable_tokens", f"every row is longer than {limit} tokens; shorten or split the rows.")
    batches = _fix_order(spec, recipe, train)
    return Prepared(
        folder=folder,
        tokenizer=tokenizer,
        digests=digests,
        recipe=recipe,
        train=train,
        valid=valid,
        over_length=over_length,
        batches=batches,
        epoch_tokens=sum(train.lengths),
        tokens=count_tokens(batches, train.lengths),
        plan_digest=_digest_plan(digests, recipe, seed=spec.seed, batches=batches),
    )


def digest_plan(prepared: Prepared, recipe: Mapping[str, Value], *, seed: int) -> str:
    """Digest of a plan whose recipe was settled after the order."""
    return _digest_plan(prepared.digests, recipe, seed=seed, batches=prepared.batches)


def _read_inputs(spec: RunSpec) -> tuple[Base, Path, Path]:
    if spec.base is None or spec.data.train is None or spec.data.valid is None:
        raise BaseError("missing_field", "base, data.train and data.valid are needed; the spec lacks one.")
    return spec.base, Path(spec.data.train), Path(spec.data.valid)


def _check_files(spec: RunSpec, train: Path, valid: Path) -> dict[str, str]:
    found = {"train": digest_file(train), "valid": digest_file(valid)}
    for name, digest in found.items():
        wanted = spec.data.digests.get(name)
        if wanted is not None and wanted != digest:
            raise DataError("data_changed", f"data.{name} is {digest}, the spec says {wanted}; ask for a new quote.")
    return {f"{name}_digest": digest for name, digest in found.items()}


def _collect_facts(config: Mapping[str, Any], train: TokenRows, valid: TokenRows, *, device: str) -> Facts:
    return Facts(
        rows=len(train),
        width=int(config["hidden_size"]),
        family=str(config["model_type"]),
        mean_tokens=sum(train.lengths) / len(train),
        longest_tokens=max(max(rows.lengths) for rows in (train, valid)),
        longest_answer=max(rows.find_longest_answer() for rows in (train, valid)),
        model_limit=read_context_limit(config),
        device=device,
    )


def _name_rows(lines: Sequence[int], path: Path) -> list[int]:
    """The customer's numbers of some lines of a checked file."""
    numbers = read_row_numbers(path) if lines else []
    return [numbers[line - 1] if line <= len(numbers) else line for line in lines]


def _fix_order(spec: RunSpec, recipe: Mapping[str, Value], rows: TokenRows) -> BatchOrder:
    lengths = rows.lengths
    batches = order_batches(
        lengths,
        epochs=read_count(recipe, "epochs"),
        batch_tokens=read_count(recipe, "batch_tokens"),
        seed=spec.seed,
    )
    if spec.limits.steps is not None:
        batches.cut(spec.limits.steps)
    if spec.limits.tokens is not None:
        batches.cut(count_within(batches, lengths, spec.limits.tokens))
    if not batches:
        raise DataError("limit_too_small", "limits.steps or limits.tokens leaves no step to train; raise the limit.")
    return batches


def _digest_plan(
    digests: Mapping[str, str], recipe: Mapping[str, Value], *, seed: int, batches: Sequence[Batch]
) -> str:
    values: Json = {name: value.value for name, value in recipe.items()}
    parts: Json = {
        "digests": encode(digests),
        "recipe": values,
        "seed": seed,
        "order_digest": digest_order(batches),
    }
    return digest_text(format_json(parts))
