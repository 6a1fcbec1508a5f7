"""The real-input task: maintenance short text of three companies, word by word, with its scorer and simplest baseline.

It reads a folder of `company_{a,b,c}.{train,val}.norm` files, which stays where it is. Training is left to `finetune`,
asking a served model to the caller.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from examples.bases.short_text import read_answer, write_answer, write_letter_prompt
from examples.tasks.upload import UploadRow, write_upload
from examples.tasks.variants import VariantMaker

FACTORIES: Final = ("A", "B", "C")
VALID_ROWS: Final = 150
VARIANTS: Final = 2
_SEED: Final = 7
RECIPE: Final[Mapping[str, int | float]] = {
    "rank": 32,
    "epochs": 2,
    "learning_rate": 4e-3,
    "final_lr_ratio": 0.02,
    "batch_tokens": 768,
    "validations": 2,
    "patience": 0,
    "evaluate_rows": 100,
}


@dataclass(frozen=True)
class Plan:
    """How a factory's training sentences are used, the same for each factory; the validation file decides nothing."""

    valid_rows: int
    variants: int
    recipe: Mapping[str, int | float]


PLANS: Final[Mapping[str, Plan]] = {
    "usual": Plan(VALID_ROWS, VARIANTS, RECIPE),
    "longer": Plan(75, VARIANTS, {**RECIPE, "epochs": 3}),
}
"""`longer` trains on 75 more of about 3,150 sentences and half as long again; whether it gains is not measured yet."""


@dataclass(frozen=True)
class Sentence:
    """The words as written and, at the same positions, what each should become (nothing, a word or several)."""

    raw: tuple[str, ...]
    right: tuple[str, ...]

    def to_pairs(self) -> list[tuple[str, str]]:
        """Each word with what it should become."""
        return list(zip(self.raw, self.right, strict=True))

    def to_messages(self) -> list[dict[str, str]]:
        """The chat to send to a model for this sentence."""
        return [{"role": "user", "content": write_letter_prompt(self.raw)}]


def read_sentences(folder: Path, factory: str, split: str) -> list[Sentence]:
    """The sentences of one factory (A, B or C) and split (train or val).

    Raises:
        FileNotFoundError: names the file that is missing.
        ValueError: a line with more than two fields, named by file and line.
    """
    path = folder / f"company_{factory.lower()}.{split}.norm"
    if not path.is_file():
        raise FileNotFoundError(f"file_missing: {path}; give a folder of company_{{a,b,c}}.{{train,val}}.norm files")
    sentences: list[Sentence] = []
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8").split("\n"), ""], start=1):
        if line:
            pairs.append(_read_pair(line, f"{path.name}:{number}"))
        elif pairs:
            sentences.append(Sentence(tuple(raw for raw, _ in pairs), tuple(right for _, right in pairs)))
            pairs = []
    return sentences


def build_upload(
    sentences: Sequence[Sentence], *, valid_rows: int = VALID_ROWS, variants: int = VARIANTS
) -> list[UploadRow]:
    """Chat rows of a factory's training sentences, and `variants` made from each; the last distinct ones are valid."""
    distinct = {write_letter_prompt(sentence.raw): sentence for sentence in sentences}
    kept = list(distinct.values())
    train, valid = kept[: len(kept) - valid_rows], kept[len(kept) - valid_rows :]
    maker = VariantMaker([sentence.to_pairs() for sentence in train], random.Random(_SEED))
    for sentence in [one for _ in range(variants) for one in list(train[: len(kept) - valid_rows])]:
        made = maker.make_variant(sentence.to_pairs())
        train.append(Sentence(tuple(raw for raw, _ in made), tuple(right for _, right in made)))
    answers: dict[str, UploadRow] = {}
    for split, part in (("valid", valid), ("train", train)):
        for sentence in part:
            question = write_letter_prompt(sentence.raw)
            answer = write_answer(sentence.raw, sentence.right, blank="")
            answers.setdefault(question, UploadRow(question=question, answer=answer, split=split))
    return sorted(answers.values(), key=lambda row: row.split)


def read_correction(sentence: Sentence, answer: str) -> list[str]:
    """The corrected words that a model's answer stands for, one for each raw word."""
    return read_answer(sentence.raw, answer)


def score_error_reduction(sentences: Sequence[Sentence], corrected: Sequence[Sequence[str]]) -> float:
    """Error reduction rate (TP - FP) / (TP + FN) over raw words by position, in percent.

    Raises:
        ValueError: predictions do not match the sentences word for word, or no word had to change.
    """
    true_positive = false_positive = false_negative = 0
    for sentence, words in zip(sentences, corrected, strict=True):
        for raw, right, word in zip(sentence.raw, sentence.right, words, strict=True):
            if raw != right:
                true_positive += word == right
                false_negative += word != right
            else:
                false_positive += word != raw
    if true_positive + false_negative == 0:
        raise ValueError("nothing_to_correct: no word of these sentences had to change; give labelled sentences")
    return 100 * (true_positive - false_positive) / (true_positive + false_negative)


def learn_most_frequent(sentences: Iterable[Sentence]) -> dict[str, str]:
    """For each raw word what it most often became; the first seen wins a tie."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for raw, right in zip(sentence.raw, sentence.right, strict=True):
            counts[raw][right] += 1
    return {raw: seen.most_common(1)[0][0] for raw, seen in counts.items()}


def score_most_frequent(folder: Path, factory: str, split: str = "val") -> float:
    """Error reduction rate in percent of most-frequent-replacement learnt from the training split."""
    replacements = learn_most_frequent(read_sentences(folder, factory, "train"))
    sentences = read_sentences(folder, factory, split)
    return score_error_reduction(sentences, [[replacements.get(raw, raw) for raw in one.raw] for one in sentences])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one upload file a factory and print one JSON line each with the baseline's score."""
    parser = argparse.ArgumentParser(prog="python -m examples.tasks.maintnorm")
    parser.add_argument("data", type=Path, help="folder of company_{a,b,c}.{train,val}.norm files")
    parser.add_argument("out", type=Path, help="folder for the uploads, outside of the data")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for factory in FACTORIES:
        rows = build_upload(read_sentences(options.data, factory, "train"))
        path = options.out / f"maintnorm_{factory.lower()}.jsonl"
        write_upload(path, rows)
        score = round(score_most_frequent(options.data, factory), 1)
        print(json.dumps({"factory": factory, "path": str(path), "rows": len(rows), "most_frequent": score}))
    return 0


def _read_pair(line: str, place: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) > 2:
        raise ValueError(f"line_malformed: {place} has {len(fields)} fields; a line is raw<TAB>normalised")
    return fields[0], fields[-1]


if __name__ == "__main__":
    raise SystemExit(main())
