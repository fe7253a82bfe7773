"""Telemetry: the OpenTelemetry SDK, set up at a process's entry point, and `traceparent` texts."""

from __future__ import annotations

from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.trace import Span

TRACES_PATH: Final = "/v1/traces"
METRICS_PATH: Final = "/v1/metrics"


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
