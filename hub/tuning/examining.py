"""One examination of an adapter and its base where engines serve them: reads the rows, asks, returns what was said.

It leaves which engine to `hub.tuning.gating`, the figures to `hub.tuning.gate`. Rows stay in the run's folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hub.deployments.evaluating import Served
from hub.tuning.engine_questions import Question, answer_greedily, measure_logprobs
from hub.tuning.gate import Examination, Paper, Side
from hub.tuning.scoring import Case

EVALUATION_NAME, PROBE_NAME, CASES_NAME = "evaluation.jsonl", "probe.jsonl", "cases.json"
PARITY_ROWS = 16
MAX_ROWS = 200
"""Rows that are asked: the interval of a share is then at most about 7 points wide to either side."""
PROBE_TOKENS = 24


@dataclass(frozen=True)
class Asked:
    """Everything that is asked, as token ids that the trainer made; `texts` are the questions as people wrote them."""

    task: Sequence[Question]
    texts: Sequence[str]
    probe: Sequence[Question]
    trained_base: Sequence[float]
    trained_adapter: Sequence[float]
    max_tokens: int


def collect_questions(
    out: Path, valid: Path | None, *, max_tokens: int, context_tokens: int | None = None
) -> Asked | None:
    """Return what to ask about the attempt in `out`, with the texts of `valid`; None where the trainer kept no rows.

    Rows that the engine's context has no room for, with their answer, are left out: one of them would refuse them all.
    """
    if context_tokens is not None:
        max_tokens = min(max_tokens, context_tokens // 2)
    kept = [line for line in _read_lines(out / EVALUATION_NAME) if "ids" in line]
    lines = [line for line in kept if _has_room(line, max_tokens, context_tokens)][:MAX_ROWS]
    if not lines:
        return None
    said = {number: line for number, line in enumerate(_read_lines(valid) if valid else [], start=1)}
    return Asked(
        task=[_read_question(line) for line in lines],
        texts=[_find_text(said.get(line["row"], {})) for line in lines],
        probe=[_read_question(line) for line in _read_lines(out / PROBE_NAME)],
        trained_base=[float(line["base_logprob"]) for line in lines[:PARITY_ROWS]],
        trained_adapter=[float(line["adapter_logprob"]) for line in lines[:PARITY_ROWS]],
        max_tokens=max_tokens,
    )


def examine(base: Served, adapter: Served, asked: Asked) -> Examination:
    """Ask base and adapter the same, wherever each is served; blocking.

    Raises:
        EngineRefusedError, OSError.
    """
    task = [_ask(served, asked.task, asked.max_tokens) for served in (base, adapter)]
    probe = [_ask(served, asked.probe, PROBE_TOKENS) for served in (base, adapter)]
    return Examination(
        task=Paper(
            questions=asked.texts,
            expected=[question.expected for question in asked.task],
            tokens=[len(question.places) for question in asked.task],
            base=task[0],
            adapter=task[1],
        ),
        probe=Paper(
            questions=[""] * len(asked.probe),
            expected=[question.expected for question in asked.probe],
            tokens=[len(question.places) for question in asked.probe],
            base=probe[0],
            adapter=probe[1],
        ),
        trained_base=asked.trained_base,
        trained_adapter=asked.trained_adapter,
    )


def write_cases(folder: Path, found: Examination) -> None:
    """Keep all answers before and after beside the run, for its owner's eyes."""
    task = found.task
    rows = zip(task.expected, task.base.answers, task.adapter.answers, task.questions, strict=True)
    path = folder / CASES_NAME
    path.touch(mode=0o600)
    path.write_text(json.dumps([asdict(Case(*row)) for row in rows], ensure_ascii=False), encoding="utf-8")


def read_cases(folder: Path) -> list[dict[str, str]]:
    """Return the answers before and after; empty before the gate asked."""
    path = folder / CASES_NAME
    found: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return found


def _ask(served: Served, questions: Sequence[Question], max_tokens: int) -> Side:
    logprobs = measure_logprobs(served.url, served.name, questions)
    answers = answer_greedily(served.url, served.name, questions, max_tokens=max_tokens)
    return Side(logprobs, [answer.text for answer in answers], [answer.stopped for answer in answers])


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    # Not `splitlines`: it cuts at U+2028 too, which may stand inside a text.
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [json.loads(line) for line in lines]


def _has_room(line: Mapping[str, Any], max_tokens: int, context_tokens: int | None) -> bool:
    if context_tokens is None:
        return True
    needed: int = max(len(line["ids"]) + 1, line["learn"][-1][0] + max_tokens)
    return needed <= context_tokens


def _read_question(line: Mapping[str, Any]) -> Question:
    return Question(line["ids"], [(start, end) for start, end in line["learn"]], line["expected"])


def _find_text(row: Mapping[str, Any]) -> str:
    asked = [message["content"] for message in row.get("messages", []) if message["role"] == "user"]
    return str(asked[-1]) if asked else ""
