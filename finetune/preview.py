"""kind=check with a base: how its tokenizer and chat template read checked rows, which tokens are trained, what is
too long, and proof that the stop token is among the trained.

Leaves reading uploads to `finetune.check` and choosing a length limit to the recipe of a run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.base import check_base, read_config, read_context_limit
from finetune.codec import Json
from finetune.errors import DataError
from finetune.files import digest_file, format_json, read_row_numbers, write_atomic
from finetune.job import Job
from finetune.spec import Event, Fault, Result, RunSpec, State
from finetune.token_rows import read_batches
from finetune.tokens import TokenRow, load_tokenizer, tokenize_rows

SAMPLES = 3
_SAMPLE_TOKENS = 400
_LONG_ROWS = 20
_MOST_TOKENS_OF_A_CHARACTER = 4


def preview_tokens(job: Job) -> Result:
    """Write OUT/preview.json: figures of all rows, and the tokens of the first few.

    Raises:
        BaseError: the base is not the one of the spec, or its template does not train the stop token.
        DataError: the checked files are not those of the spec.
    """
    from finetune.artifact import read_versions

    spec = job.spec
    folder = Path(spec.base.path) if spec.base else Path()
    tokenizer = load_tokenizer(folder)
    if spec.base is not None:
        check_base(spec.base, tokenizer.get_chat_template())
    limit = read_context_limit(read_config(folder))
    parts = {}
    samples: list[Json] = []
    for name, text in (("train", spec.data.train), ("valid", spec.data.valid)):
        job.log.write(Event.STAGE, {"stage": "tokenising", "part": name})
        path = _check_file(spec, name, Path(text or ""))
        count, numbers = _Count(limit), read_row_numbers(path)
        for rows in read_batches(path):
            job.stop.raise_pending()
            found = tokenize_rows(tokenizer, rows, path)
            count.add(found, numbers)
            if name == "train" and len(samples) < SAMPLES:
                samples += [_show(tokenizer, row) for row in found[: SAMPLES - len(samples)]]
        parts[name] = count.describe()
    preview: dict[str, Json] = {
        "limit": limit,
        "stop_token": str(tokenizer.eos_token),
        "stop_token_trained": True,  # tokenize_rows raises stop_token_not_trained otherwise
        "train": parts["train"],
        "valid": parts["valid"],
        "samples": samples,
    }
    digest = write_atomic(job.out / "preview.json", format_json(preview))
    return job.close(
        State.SUCCEEDED,
        reason_code="done",
        fault=Fault.NONE,
        digests={"preview.json": digest},
        versions=read_versions(),
    )


class _Count:
    """Figures of many token rows."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows = self._tokens = self._trained = self._longest = self._longest_row = self._over = 0
        self._over_rows: list[int] = []

    def add(self, rows: Sequence[TokenRow], numbers: Sequence[int]) -> None:
        """Count rows; `numbers` are the customer's row numbers by line of the file."""
        for row in rows:
            number = numbers[row.row - 1] if row.row <= len(numbers) else row.row
            size = len(row.ids)
            self._rows += 1
            self._tokens += size
            self._trained += sum(end - start for start, end in row.learn)
            if size > self._longest:
                self._longest, self._longest_row = size, number
            if size > self._limit:
                self._over += 1
                self._over_rows += [number] if len(self._over_rows) < _LONG_ROWS else []

    def describe(self) -> Json:
        """The figures for preview.json."""
        return {
            "rows": self._rows,
            "tokens": self._tokens,
            "trained_tokens": self._trained,
            "longest_tokens": self._longest,
            "longest_row": self._longest_row,
            "over_length": self._over,
            "over_length_rows": [*self._over_rows],
        }


def _check_file(spec: RunSpec, name: str, path: Path) -> Path:
    wanted = spec.data.digests.get(name)
    if wanted and digest_file(path) != wanted:
        raise DataError("data_changed", f"data.{name} differs from its digest {wanted}; check the data set again.")
    return path


def _show(tokenizer: Any, row: TokenRow) -> Json:
    """One row piece by piece: (text, tokens in it, is trained); tokens that share a character stand together."""
    learned = {at for start, end in row.learn for at in range(start, end)}
    shown = row.ids[:_SAMPLE_TOKENS]
    pieces: list[Json] = []
    start = 0
    for end in range(1, len(shown) + 1):
        text = tokenizer.decode(shown[start:end])
        is_whole = not text.endswith("\ufffd") or end - start >= _MOST_TOKENS_OF_A_CHARACTER
        if is_whole or end == len(shown) or (end in learned) != (start in learned):
            pieces.append([text, end - start, start in learned])
            start = end
    return {
        "pieces": pieces,
        "count": len(row.ids),
        "trained": len(learned),
        "cut": len(row.ids) > len(shown),
    }
