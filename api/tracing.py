"""Telemetry: the OpenTelemetry SDK, set up at a process's entry point, and `traceparent` texts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

if TYPE_CHECKING:
    from asyncpg.connection import LoggedQuery

TRACES_PATH: Final = "/v1/traces"
METRICS_PATH: Final = "/v1/metrics"
TRACEPARENT_HEADER: Final = "traceparent"
STATEMENT_LENGTH_MAX: Final = 1_000

tracer = trace.get_tracer("heddle.server")

K = TypeVar("K")
V = TypeVar("V")


def is_tracing() -> bool:
    """Return whether this process records spans at all."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def note_statement(statement: LoggedQuery) -> None:
    """Record a statement that has just ended as a span below that of who had it run.

    Its text has no values in it: those travel apart. A statement that nobody's span stands above,
    such as a projection's poll, is not recorded.
    """
    if not trace.get_current_span().get_span_context().is_valid:
        return
    ended_ns = time.time_ns()
    text = " ".join(statement.query.split())[:STATEMENT_LENGTH_MAX]
    span = tracer.start_span(
        text.partition(" ")[0].upper() or "SQL",
        kind=SpanKind.CLIENT,
        start_time=ended_ns - round(statement.elapsed * 1e9),
        attributes={"db.system.name": "postgresql", "db.query.text": text},
    )
    if statement.exception is not None:
        span.set_status(Status(StatusCode.ERROR, type(statement.exception).__name__))
    span.end(ended_ns)


def traced_batch(name: str, load: Callable[[list[K]], Awaitable[V]]) -> Callable[[list[K]], Any]:
    """Return `load` with a span around each batch, where this process records spans."""
    if not is_tracing():
        return load

    async def traced(keys: list[K]) -> V:
        with tracer.start_as_current_span(f"load {name}", attributes={"heddle.keys": len(keys)}):
            return await load(keys)

    return traced


def traceparent_of(span: Span) -> str | None:
    """Return the W3C traceparent of `span`, or None when it belongs to no trace."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def set_up_tracing(service: str, otlp_endpoint: str | None) -> None:
    """Send this process's spans to `otlp_endpoint` (OTLP over HTTP); do nothing without one.

    Its metrics go to ``/v1/metrics`` beside it, where it ends with ``/v1/traces`` as is usual.
    """
    if otlp_endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint)))
    trace.set_tracer_provider(provider)
    if otlp_endpoint.endswith(TRACES_PATH):
        _set_up_metrics(service, otlp_endpoint.removesuffix(TRACES_PATH) + METRICS_PATH)


def _set_up_metrics(service: str, endpoint: str) -> None:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint))
    metrics.set_meter_provider(MeterProvider([reader], Resource.create({SERVICE_NAME: service})))
