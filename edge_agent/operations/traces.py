"""Traces of an agent to a collector, where one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from domain.errors import InvalidInput


@contextmanager
def exporting_traces(agent: str, endpoint: str | None) -> Iterator[None]:
    """Send spans to the OTLP/HTTP `endpoint`, such as http://127.0.0.1:4318/v1/traces; None: none.

    Raises
    ------
    InvalidInput
        ``settings.no_exporter``: the packages of the edge extra are not installed
    """
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInput(
            "settings.no_exporter",
            f"traces cannot be sent: {error}",
            hint="pip install heddle[edge]",
        ) from error
    resource = Resource.create({SERVICE_NAME: "heddle-agent", SERVICE_INSTANCE_ID: agent})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
