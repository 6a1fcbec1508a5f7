"""Asks one engine for log-probabilities of given tokens and for greedy answers; blocking, for the slow executor.

It leaves which engine, and what the answers mean, to `hub.tuning.proving` and `hub.tuning.gate`.
"""

import http.client
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 120.0
_BATCH_ROWS = 16


class EngineRefusedError(Exception):
    """The engine answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"the engine answered {status}: {text[:300]}")
        self.status = status


@dataclass(frozen=True)
class Question:
    """One held-out row: token ids with the spans of its answers, and the text that is expected."""

    ids: Sequence[int]
    learn: Sequence[tuple[int, int]]
    expected: str

    @property
    def places(self) -> list[int]:
        """Positions of the answers' tokens; the very first token of a text has no probability."""
        return [place for start, end in self.learn for place in range(max(1, start), end)]


@dataclass(frozen=True)
class Answer:
    """What was said, and whether the model itself ended it."""

    text: str
    stopped: bool


def measure_logprobs(url: str, model: str, questions: Sequence[Question]) -> list[float]:
    """Return each row's mean log-probability per answer token under a served name, in nats; NaN where one is none.

    Raises:
        EngineRefusedError, OSError.
    """
    found = []
    for part in _cut(questions):
        prompts = [list(question.ids) for question in part]
        body = {"model": model, "prompt": prompts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        for question, choice in zip(part, _complete(url, body), strict=True):
            told = choice["prompt_logprobs"]
            found.append(fmean(_pick(told[place], question.ids[place]) for place in question.places))
    return found


def answer_greedily(url: str, model: str, questions: Sequence[Question], *, max_tokens: int) -> list[Answer]:
    """Return what a served name answers to each row's prompt. Raises: EngineRefusedError, OSError."""
    answers = []
    for part in _cut(questions):
        prompts = [list(question.ids[: question.learn[-1][0]]) for question in part]
        body = {"model": model, "prompt": prompts, "max_tokens": max_tokens, "temperature": 0}
        answers += [
            Answer(str(choice["text"]), choice.get("finish_reason") == "stop") for choice in _complete(url, body)
        ]
    return answers


def _cut(questions: Sequence[Question]) -> list[Sequence[Question]]:
    return [questions[start : start + _BATCH_ROWS] for start in range(0, len(questions), _BATCH_ROWS)]


def answer_chats(url: str, model: str, prompts: Sequence[str], *, max_tokens: int) -> list[str]:
    """Return the text that a served name answers to each message. Raises: EngineRefusedError, OSError."""
    texts = []
    for prompt in prompts:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens, "temperature": 0}
        (choice,) = _complete(url, {"model": model, **body}, path="/v1/chat/completions")
        texts.append(str(choice["message"]["content"] or ""))
    return texts


def _pick(told: dict[str, Any], token: int) -> float:
    """JSON has no NaN: an engine that computes none says null, which must not read as an answer that failed to come."""
    found = told[str(token)]["logprob"]
    return math.nan if found is None else float(found)


def _complete(url: str, body: dict[str, Any], *, path: str = "/v1/completions") -> list[dict[str, Any]]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise EngineRefusedError(answer.status, text)
    choices: list[dict[str, Any]] = json.loads(text)["choices"]
    return sorted(choices, key=lambda choice: int(choice["index"]))
