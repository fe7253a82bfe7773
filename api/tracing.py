"""Tracing: the OpenTelemetry SDK, set up at a process's entry point, and `traceparent` texts."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import Span


def traceparent_of(span: Span) -> str | None:
    """Return the W3C traceparent of `span`, or None when it belongs to no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def set_up_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Send this process's spans to `otlp_endpoint` (OTLP over HTTP); do nothing without one."""
    if otlp_endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
    trace.set_tracer_provider(provider)
