"""Passes an engine's answer to the client and keeps the call's usage current.

Sending the request is left to `dispatch`, the bill to `completions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import quote

from serving.contract import EndReason
from serving.gateway.call import Call
from serving.gateway.clock import Clock
from serving.gateway.dialects import NamedEventReader, means_length, read_ends, read_usage
from serving.gateway.dispatch import upstream_failed
from serving.gateway.engine_client import EngineAnswer, EngineLostError
from serving.gateway.errors import GatewayError
from serving.gateway.exchange import EVENT_STREAM, Exchange
from serving.gateway.journal_file import Journal
from serving.gateway.plan import Plan
from serving.gateway.quick_json import decode_json, encode_json
from serving.gateway.sse import StreamReader
from serving.gateway.surfaces import EMBEDDINGS, Dialect

PROGRESS_EVERY_S = 0.5
# Settles the call: why it ended and whether the client gets everything.
Settle = Callable[[Call, EndReason, bool], None]


def answer_headers(plan: Plan) -> Sequence[tuple[str, str]]:
    """Return version, filing and AI label (GB 45438) of an answer; non-ASCII filing numbers are percent-encoded."""
    filing = plan.target.model.filing
    return _headers(plan.target.version_id, None if filing is None else filing.number, plan.surface is not EMBEDDINGS)


@lru_cache(maxsize=4096)
def _headers(version_id: str, filing: str | None, generated: bool) -> Sequence[tuple[str, str]]:
    headers = [("x-guanmo-model-version", version_id)]
    if filing is not None:
        headers.append(("x-guanmo-filing", quote(filing, safe="-./() ")))
    if generated:
        headers.append(("x-ai-generated", "true"))
    return tuple(headers)


def start_stream(exchange: Exchange, plan: Plan) -> None:
    """Send the headers of an event stream unless they are out already."""
    if not exchange.started:
        fixed = [("content-type", EVENT_STREAM), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
        exchange.start(200, [*fixed, *answer_headers(plan)])


class StreamRelay:
    """Forwards one event stream within the reading of the engine's socket; settles before the last event."""

    def __init__(self, exchange: Exchange, call: Call, *, journal: Journal, clock: Clock, settle: Settle) -> None:
        self._exchange = exchange
        self._call = call
        self._journal = journal
        self._clock = clock
        self._settle = settle
        self._error: GatewayError | None = None
        self._reader = _read_stream(call)

    async def run(self, answer: EngineAnswer) -> None:
        """Forward until the end. Raises: GatewayError 502; EngineLostError when the stream broke off."""
        start_stream(self._exchange, self._call.plan)
        self._exchange.on_writable = answer.flow
        self._answer = answer
        try:
            await answer.pipe(self._take)
        finally:
            self._exchange.on_writable = None
        if not self._reader.done:
            raise EngineLostError("the stream ended early")

    def _take(self, data: bytes) -> None:
        reader, call = self._reader, self._call
        visible = reader.feed(data)
        usage = reader.usage
        if usage is not None and not call.settled:
            call.usage = usage = call.transcript.billed(usage) if call.transcript else usage
            self._journal.note((call.request_id, call.attempt), usage)
        if reader.done:
            if not self._exchange.ended:
                self._settle(call, end_reason(reader.finish_reason), True)
                self._exchange.end(visible)
            return
        if visible:
            call.owes_unknown = reader.owes_unknown
            call.sent_at_s = self._clock.monotonic_s()
            if not call.first_at_s:
                call.first_at_s = call.sent_at_s
                if call.trace is not None:
                    call.trace.first_token()
            self._exchange.send(visible)
        if reader.failed:
            self._answer.take_end(EngineLostError("the engine reported its failure"))
        elif call.usage is not None and call.sent_at_s - call.progress_at_s >= PROGRESS_EVERY_S:
            call.progress_at_s = call.sent_at_s
            self._note_progress()

    def _note_progress(self) -> None:
        try:
            self._journal.append(self._call.progress())
        except GatewayError:
            # Delivered tokens must not go unbilled: no journal, no more tokens.
            self._answer.take_end(EngineLostError("the journal cannot be written"))


def _read_stream(call: Call) -> StreamReader | NamedEventReader:
    plan = call.plan
    if plan.surface.dialect is not Dialect.OPENAI:
        return NamedEventReader(plan.public_name)
    return StreamReader(
        engine_name=plan.target.engine_name,
        public_name=plan.public_name,
        wants_usage=plan.wants_usage,
        choices_per_prompt=plan.choices_per_prompt,
        single_prompt=plan.single_prompt,
        revise=call.transcript.take if call.transcript else None,
    )


async def relay_plain(exchange: Exchange, call: Call, answer: EngineAnswer, *, settle: Settle) -> None:
    """Forward a whole answer under the public model name; settle first. Raises: GatewayError 502."""
    try:
        whole = decode_json(await answer.read())
        call.usage = read_usage(whole["usage"])
        cut_short = any(map(means_length, read_ends(whole)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise upstream_failed(call.plan.public_name) from error
    whole["model"] = call.plan.public_name
    settle(call, end_reason("length" if cut_short else "stop"), True)
    body = encode_json(whole)
    exchange.answer(200, body, headers=answer_headers(call.plan))


def end_reason(finish_reason: str | None) -> EndReason:
    """Return our word for the engine's finish reason; anything but `length` is an ordinary stop."""
    return EndReason.LENGTH if finish_reason == "length" else EndReason.STOP
