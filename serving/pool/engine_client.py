"""Speak to one engine: is it up, does it answer, load an adapter; what to make of that is left to the replica."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from serving.contract import Task
from serving.pool.errors import EngineError, EngineSilentError

_SAMPLE = re.compile(r"^(vllm:[a-z_]+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)
_QUICK_S = 5.0
_LOAD_S = 120.0


@dataclass(frozen=True)
class EngineLoad:
    """Counters of one engine: requests inside it, those of them that wait, all tokens, and all time waited so far."""

    in_flight: int
    prompt_tokens: int
    completion_tokens: int
    waiting: int = 0
    waited_s: float = 0.0
    begun: int = 0

    @property
    def tokens_total(self) -> int:
        """Return all tokens, prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


class EngineClient:
    """HTTP calls to the engine at `url` (no trailing slash). It counts the tokens of its own questions that ended."""

    def __init__(self, http: aiohttp.ClientSession, url: str, task: Task = Task.GENERATE) -> None:
        self._http = http
        self._url = url
        self._task = task
        self.own_prompt_tokens = 0
        self.own_completion_tokens = 0

    async def is_up(self) -> bool:
        """Whether /health answers 200; that alone is not readiness."""
        try:
            await self._call("GET", "/health", timeout_s=_QUICK_S)
        except EngineError:
            return False
        return True

    async def list_models(self) -> dict[str, int]:
        """Served names with their context length in tokens (0 where not told). Raises: EngineError."""
        answer = await self._call_json("GET", "/v1/models", timeout_s=_QUICK_S)
        return {str(model["id"]): int(model.get("max_model_len") or 0) for model in answer["data"]}

    async def ask(self, model: str, *, prompt_tokens: int, timeout_s: float) -> None:
        """One greedy token, or one vector, for a prompt of that many token ids. Raises: EngineError."""
        prompt = [1 + index % 61 for index in range(prompt_tokens)]  # within the smallest vocabulary
        path, part = ("/v1/embeddings", "data") if self._task is Task.EMBED else ("/v1/completions", "choices")
        wanted = (
            {"input": prompt} if self._task is Task.EMBED else {"prompt": prompt, "max_tokens": 1, "temperature": 0}
        )
        body: dict[str, Any] = {"model": model, **wanted}
        answer = await self._ask(path, body, timeout_s)
        if not answer.get(part):
            raise EngineError("engine_empty_answer", f"{model} at {self._url} answered without {part}")

    async def time_calls(self, model: str, *, calls: int, tokens: int) -> float:
        """Return the seconds that `calls` answers of exactly `tokens` tokens take at once. Raises: EngineError."""
        body = {"model": model, "prompt": list(range(1, 17)), "max_tokens": tokens, "temperature": 0}
        began_s = time.monotonic()
        await asyncio.gather(
            *(self._ask("/v1/completions", body | {"ignore_eos": True}, _LOAD_S) for _ in range(calls))
        )
        return time.monotonic() - began_s

    async def load_adapter(self, name: str, path: Path) -> None:
        """Make `name` callable; loaded already counts as done. Raises: EngineError."""
        try:
            await self._call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, _LOAD_S)
        except EngineError as error:
            if error.code != "engine_http_400" or "already" not in str(error):
                raise

    async def unload_adapter(self, name: str) -> None:
        """Forget `name`; unknown counts as done. vLLM keeps its slot until evicted. Raises: EngineError."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, _QUICK_S)
        except EngineError as error:
            if error.code != "engine_http_404":
                raise

    async def read_load(self, timeout_s: float = _QUICK_S) -> EngineLoad:
        """Requests and tokens from /metrics. Raises: EngineError."""
        totals: dict[str, float] = {}
        for name, value in _SAMPLE.findall(await self._call("GET", "/metrics", timeout_s=timeout_s)):
            totals[name] = totals.get(name, 0.0) + float(value)
        in_flight = totals.get("vllm:num_requests_running", 0) + totals.get("vllm:num_requests_waiting", 0)
        prompt, completion = (totals.get(f"vllm:{name}_tokens_total", 0) for name in ("prompt", "generation"))
        return EngineLoad(
            in_flight=int(in_flight),
            prompt_tokens=int(prompt),
            completion_tokens=int(completion),
            waiting=int(totals.get("vllm:num_requests_waiting", 0)),
            waited_s=totals.get("vllm:request_queue_time_seconds_sum", 0.0),
            begun=int(totals.get("vllm:request_queue_time_seconds_count", 0)),
        )

    async def _ask(self, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask for tokens of our own, which are counted: the engine's counters hold them and no bill does."""
        answer = await self._call_json("POST", path, body, timeout_s=timeout_s)
        usage = answer.get("usage") or {}
        self.own_prompt_tokens += int(usage.get("prompt_tokens") or 0)
        self.own_completion_tokens += int(usage.get("completion_tokens") or 0)
        return answer

    async def _call_json(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _QUICK_S
    ) -> dict[str, Any]:
        text = await self._call(method, path, body, timeout_s)
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise EngineError("engine_bad_json", f"{method} {self._url}{path} answered no JSON: {text:.200}") from error
        return answer

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _QUICK_S
    ) -> str:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.request(method, self._url + path, json=body, timeout=timeout) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineSilentError(f"{method} {self._url}{path}: {type(error).__name__} {error}") from error
        if response.status >= 400:
            message = f"{method} {self._url}{path} answered {response.status}: {text:.300}"
            raise EngineError(f"engine_http_{response.status}", message)
        return text
