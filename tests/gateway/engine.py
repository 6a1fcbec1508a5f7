"""A small OpenAI upstream that speaks as vLLM 0.32 does with forced running usage; it knows no gateway.

Where real vLLM can be made to do the same, `tests/engines/test_contract.py` asks both the same questions.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FIRST_TOKEN = 100
IN_FRONT = {"no-path": 404, "bad-gateway": 502}
"""What a server before an engine answers in a mode."""


@dataclass
class Engine:
    """Answers with `tokens` words; `mode` chooses how it misbehaves. `seen` keeps every body with its headers."""

    tokens: int = 5
    delay_s: float = 0.0
    prompt_tokens: int = 11
    cached_tokens: int = 0
    mode: str = "ok"
    seen: list[dict[str, Any]] = field(default_factory=list)
    produced: int = 0
    aborted: int = 0
    running: int = 0
    most_running: int = 0
    told: dict[str, int] = field(default_factory=dict)
    connected: set[asyncio.Transport | None] = field(default_factory=set)
    names: frozenset[str] | None = None
    """Models that it serves; None serves every name."""

    def app(self) -> web.Application:
        """Return the engine's routes."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_post("/v1/embeddings", self.embed)
        app.router.add_post("/v1/messages", self.speak)
        app.router.add_post("/v1/responses", self.speak)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def metrics(self, _request: web.Request) -> web.Response:
        """Tell the counters that reconciliation reads."""
        lines = f"vllm:num_requests_running {self.running}.0\nvllm:generation_tokens_total {self.produced}.0\n"
        return web.Response(text=lines)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat or text completion."""
        body = await request.json()
        self.seen.append(
            body
            | {
                "_request_id": request.headers.get("x-request-id"),
                "_traceparent": request.headers.get("traceparent"),
                "_authorization": request.headers.get("authorization"),
            }
        )
        if self.names is not None and body["model"] not in self.names:
            text = f"The model `{body['model']}` does not exist."
            return web.json_response({"error": {"message": text, "type": "NotFoundError"}}, status=404)
        if self.mode in IN_FRONT:
            return web.Response(text="no page", status=IN_FRONT[self.mode])
        if self.mode == "busy":
            return web.json_response({"error": "secret internal queue text"}, status=503)
        if self.mode == "broken":
            return web.json_response({"error": "secret traceback"}, status=500)
        if self.mode == "draining":
            return web.Response(text="cannot schedule new futures after shutdown", status=500)
        if self.mode == "too-long":
            text = "This model's maximum context length is 2048 tokens. However, secret."
            return web.json_response({"error": {"message": text}}, status=400)
        if self.mode == "dies-before":
            self._kill(request)
        if self.mode == "dies-of-poison" and b"poison" in await request.read():
            self._die(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.connected.add(request.transport)
        try:
            return await self._answer(request, body)
        finally:
            self.running -= 1
            self.connected.discard(request.transport)

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if body.get("stream"):
            return await self._stream(request, body)
        await self._compute()
        self._produce(request, self.tokens)
        return web.json_response(self._chunk(body, "x" * self.tokens, self.tokens, "stop", whole=True))

    async def _compute(self) -> None:
        """Take the time of a whole answer or an event; whoever asked may leave meanwhile."""
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.aborted += 1
            raise

    async def speak(self, request: web.Request) -> web.StreamResponse:
        """Answer in Anthropic's or in the Responses dialect, as vLLM does: usage comes with the last event."""
        body = await request.json()
        self.seen.append(body)
        if self.mode == "no-dialects":
            return web.json_response({"detail": "Not Found"}, status=404)
        write = write_message if request.path == "/v1/messages" else write_response
        whole, events = write(body["model"], self.tokens)
        if not body.get("stream"):
            await self._compute()
            return web.json_response(whole)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(events):
            if self.mode == "dies-mid" and number == 2:
                self._kill(request)
            await self._compute()
            if "delta" in event and "usage" not in event:
                self._produce(request, 1)
            line = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
            await response.write(line.encode())
        return response

    async def embed(self, request: web.Request) -> web.Response:
        """Answer as an engine whose model makes no embeddings."""
        return web.json_response({"error": "The model does not support Embeddings API"}, status=404)

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.mode == "no-head":
            await asyncio.sleep(30)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        # Token 100 + k stands for the word k, so that a prompt of ids tells how far another engine came.
        prompt = body.get("prompt")
        said = sum(1 for token in prompt if token > FIRST_TOKEN) if isinstance(prompt, list) else 0
        try:
            for count in range(said + 1, self.tokens + 1):
                await asyncio.sleep(self.delay_s)
                if self.mode == "dies-mid" and count == 3:
                    self._kill(request)
                if self.mode == "stalls" and count == 3:
                    await asyncio.sleep(30)
                if self.mode == "error-now" or (self.mode == "error-mid" and count == 3):
                    await self._send(response, {"error": {"message": "EngineCore died, secret"}})
                    break
                self._produce(request, 1)
                finish = "stop" if count == self.tokens else None
                chunk = self._chunk(body, f"w{count} ", count - said, finish)
                self._add_ids(body, chunk, count, first=count == said + 1)
                if self.mode == "counts-last":
                    del chunk["usage"]
                await self._send(response, chunk)
            else:
                await self._send(response, self._chunk(body, "", self.tokens - said, None) | {"choices": []})
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.aborted += 1
            raise
        return response

    def _chunk(
        self, body: dict[str, Any], text: str, count: int, finish: str | None, *, whole: bool = False
    ) -> dict[str, Any]:
        chat = "messages" in body
        part = {"role": "assistant", "content": text} if chat else text
        where = ("message" if whole else "delta") if chat else "text"
        prompt_tokens = self._prompt_tokens(body)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion" if whole else "chat.completion.chunk",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, where: part, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "total_tokens": prompt_tokens + count,
                "completion_tokens": count,
                "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            },
        }

    def _add_ids(self, body: dict[str, Any], chunk: dict[str, Any], count: int, *, first: bool) -> None:
        if body.get("return_token_ids"):
            chunk["choices"][0]["token_ids"] = [FIRST_TOKEN + count]
            if first:
                where = chunk if "messages" in body else chunk["choices"][0]
                where["prompt_token_ids"] = list(range(1, self._prompt_tokens(body) + 1))

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        """A prompt of ids is as long as it is."""
        prompt = body.get("prompt")
        ids = isinstance(prompt, list) and all(isinstance(token, int) for token in prompt)
        return len(prompt) if ids and prompt else self.prompt_tokens

    async def _send(self, response: web.StreamResponse, chunk: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")

    def _produce(self, request: web.Request, tokens: int) -> None:
        """Count tokens in all and by request, as an engine's counters and its witness do."""
        self.produced += tokens
        request_id = request.headers.get("x-request-id", "")
        self.told[request_id] = self.told.get(request_id, 0) + tokens

    def _die(self, request: web.Request) -> None:
        """Take every other call along."""
        for transport in tuple(self.connected):
            if transport is not None:
                transport.abort()
        self._kill(request)

    def _kill(self, request: web.Request) -> None:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError


def write_message(model: str, tokens: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a whole Anthropic message and its events."""
    usage = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": tokens}
    empty = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": model}
    empty |= {"stop_reason": None, "stop_sequence": None, "usage": usage | {"output_tokens": 0}}
    block = {"type": "text", "text": "w" * tokens}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": empty},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "w"}}
            for _ in range(tokens)
        ],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return empty | {"content": [block], "stop_reason": "max_tokens", "usage": usage}, events


def write_response(model: str, tokens: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a whole object of the Responses API and its events."""
    text = {"type": "output_text", "text": "w" * tokens, "annotations": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {"input_tokens": 11, "output_tokens": tokens, "total_tokens": 11 + tokens}
    usage |= {"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 0}}
    empty = {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "output": [], "usage": None}
    empty |= {"status": "in_progress", "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    whole = empty | {"status": "completed", "output": [message], "usage": usage}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": empty, "sequence_number": 0}]
    for number in range(1, tokens + 1):
        delta = {"type": "response.output_text.delta", "delta": "w", "item_id": "msg_1", "sequence_number": number}
        events.append(delta | {"output_index": 0, "content_index": 0, "logprobs": []})
    return whole, [*events, {"type": "response.completed", "response": whole, "sequence_number": tokens + 1}]
