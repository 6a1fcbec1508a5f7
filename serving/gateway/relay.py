"""Passes an engine's answer to the client and keeps the call's usage current.

Sending the request is left to `dispatch`, the bill to `completions`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from serving.contract import EndReason
from serving.gateway.call import Call
from serving.gateway.clock import Clock
from serving.gateway.dispatch import upstream_failed
from serving.gateway.exchange import EVENT_STREAM, Exchange
from serving.gateway.journal_file import Journal
from serving.gateway.plan import Plan
from serving.gateway.sse import StreamReader, Usage
from serving.gateway.surfaces import EMBEDDINGS

PROGRESS_EVERY_S = 0.5
# Settles the call: why it ended and whether the client gets everything.
Settle = Callable[[Call, EndReason, bool], None]


def answer_headers(plan: Plan) -> list[tuple[str, str]]:
    """Return version, filing and AI label (GB 45438) of an answer; non-ASCII filing numbers are percent-encoded."""
    headers = [("x-guanmo-model-version", plan.target.version_id)]
    if plan.target.model.filing is not None:
        headers.append(("x-guanmo-filing", quote(plan.target.model.filing.number, safe="-./() ")))
    if plan.surface is not EMBEDDINGS:
        headers.append(("x-ai-generated", "true"))
    return headers


async def start_stream(exchange: Exchange, plan: Plan) -> None:
    """Send the headers of an event stream unless they are out already."""
    if not exchange.started:
        fixed = [("content-type", EVENT_STREAM), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
        await exchange.start(200, [*fixed, *answer_headers(plan)])


async def relay_stream(
    exchange: Exchange, call: Call, response: aiohttp.ClientResponse, *, journal: Journal, clock: Clock, settle: Settle
) -> None:
    """Forward the event stream as it comes; settle before its last event. Raises: GatewayError 502."""
    plan = call.plan
    reader = StreamReader(
        engine_name=plan.target.engine_name,
        public_name=plan.public_name,
        wants_usage=plan.wants_usage,
        choices_per_prompt=plan.choices_per_prompt,
    )
    await start_stream(exchange, plan)
    async for data in response.content.iter_any():
        visible = reader.feed(data)
        call.usage = reader.usage or call.usage
        if reader.done:
            settle(call, end_reason(reader.finish_reason), True)
        else:
            _note_progress(call, journal, clock.monotonic_s())
        if visible:
            await exchange.write(visible)
        if reader.failed:
            break
    if not reader.done:
        raise upstream_failed(plan.public_name)
    await exchange.end()


async def relay_plain(exchange: Exchange, call: Call, response: aiohttp.ClientResponse, *, settle: Settle) -> None:
    """Forward a whole answer under the public model name; settle first. Raises: GatewayError 502."""
    try:
        answer = json.loads(await response.read())
        call.usage = Usage.of(answer["usage"])
        reasons = [choice.get("finish_reason") for choice in answer.get("choices", ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise upstream_failed(call.plan.public_name) from error
    answer["model"] = call.plan.public_name
    settle(call, end_reason("length" if "length" in reasons else "stop"), True)
    body = json.dumps(answer, ensure_ascii=False).encode()
    await exchange.answer(200, body, headers=answer_headers(call.plan))


def end_reason(finish_reason: str | None) -> EndReason:
    """Return our word for the engine's finish reason; anything but `length` is an ordinary stop."""
    return EndReason.LENGTH if finish_reason == "length" else EndReason.STOP


def _note_progress(call: Call, journal: Journal, now_s: float) -> None:
    if call.usage is not None and now_s - call.progress_at_s >= PROGRESS_EVERY_S:
        call.progress_at_s = now_s
        journal.append(call.progress())
