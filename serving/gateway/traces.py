"""OpenTelemetry spans of calls: one for the call, one for each engine asked, which goes on in the engine's own spans.

Spans carry ids, names of ours, counts and times, never what a client said. A client's own trace is linked, not joined:
it does not decide what is recorded here. OpenTelemetry is imported when an endpoint is given and not before.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

    from serving.contract import EndReason, RouteReplica
    from serving.gateway.call import Call

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Tracing:
    """Makes spans and sends them to `endpoint` (OTLP over HTTP) in the background."""

    def __init__(self, endpoint: str, *, gateway_id: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "guanmo-gateway", "service.instance.id": gateway_id})
        self._provider: TracerProvider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint), schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("guanmo.gateway")

    def begin(self, call: Call) -> CallTrace:
        """Begin the span of an admitted call."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags

        links = []
        theirs = _TRACEPARENT.fullmatch(call.exchange.headers.get("traceparent", ""))
        if theirs is not None:
            trace_id, span_id, flags = (int(part, 16) for part in theirs.groups())
            links.append(Link(SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))))
        span = self._tracer.start_span(
            call.plan.surface.name,
            Context(),
            kind=SpanKind.SERVER,
            links=links,
            attributes={
                "guanmo.request_id": call.request_id,
                "guanmo.organisation_id": call.key.organisation_id,
                "guanmo.key_id": call.key.key_id,
                "guanmo.version_id": call.plan.target.version_id,
                "gen_ai.request.model": call.plan.target.engine_name,
            },
        )
        return CallTrace(self, span)

    def begin_child(self, parent: Span, replica: RouteReplica, attempt: int) -> Span:
        """Begin the span of one engine asked."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        attributes: dict[str, str | int] = {"guanmo.replica_id": replica.id, "guanmo.attempt": attempt}
        context = set_span_in_context(parent)
        return self._tracer.start_span("engine", context, kind=SpanKind.CLIENT, attributes=attributes)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class CallTrace:
    """The spans of one call."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self._engine: Span | None = None

    def ask(self, replica: RouteReplica, attempt: int) -> str:
        """Begin the span of an attempt, ending the one before; return its `traceparent`."""
        if self._engine is not None:
            self._engine.end()
        self._engine = self._tracing.begin_child(self._span, replica, attempt)
        context = self._engine.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def first_token(self) -> None:
        """Note the first token."""
        if self._engine is not None:
            self._engine.add_event("first token")

    def end(self, call: Call, reason: EndReason) -> None:
        """End all spans with what the call came to."""
        usage = call.usage
        if usage is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
            self._span.set_attribute("gen_ai.usage.output_tokens", usage.completion_tokens)
        self._span.set_attribute("guanmo.end_reason", reason.value)
        if self._engine is not None:
            self._engine.end()
        self._span.end()
