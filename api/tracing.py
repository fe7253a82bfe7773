"""Telemetry: the OpenTelemetry SDK, set up at a process's entry point, and `traceparent` texts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from opentelemetry import metrics, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

if TYPE_CHECKING:
    from asyncpg.connection import LoggedQuery
    from opentelemetry.sdk.trace import Tracer

TRACES_PATH: Final = "/v1/traces"
METRICS_PATH: Final = "/v1/metrics"
TRACEPARENT_HEADER: Final = "traceparent"
STATEMENT_LENGTH_MAX: Final = 1_000
STATEMENTS_KEPT_MAX: Final = 1_000

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
    parent = trace.get_current_span().get_span_context()
    recorder = _recorder()
    if recorder is None or not parent.is_valid or not parent.trace_flags.sampled:
        return
    ended_ns = time.time_ns()
    name, attributes = _described(statement.query)
    failure = statement.exception
    _hand_over(
        recorder,
        name,
        _context_below(recorder, parent),
        parent,
        attributes,
        SpanKind.CLIENT,
        ended_ns - round(statement.elapsed * 1e9),
        ended_ns,
        _UNSET if failure is None else Status(StatusCode.ERROR, type(failure).__name__),
    )


class RecordedSpan:
    """A span of the length of a `with` that nobody adds to, handed to the SDK when it has ended.

    The SDK's own, which may be changed from any thread until then, costs as much as a whole answer
    from memory. This one is sampled, linked to its parent and exported as they are.

    Parameters
    ----------
    context : whose span is the parent; None: the current one
    """

    __slots__ = (
        "_attributes",
        "_context",
        "_name",
        "_own",
        "_parent",
        "_recorder",
        "_started_ns",
        "_token",
    )

    def __init__(
        self, name: str, attributes: Mapping[str, Any], context: Context | None = None
    ) -> None:
        self._name = name
        self._attributes = attributes
        self._context = context

    def __enter__(self) -> None:
        recorder = self._recorder = _recorder()
        self._parent = parent = trace.get_current_span(self._context).get_span_context()
        self._own = parent if recorder is None else self._begun(recorder, parent)
        self._token = attach(trace.set_span_in_context(NonRecordingSpan(self._own), self._context))
        self._started_ns = time.time_ns()

    def _begun(self, recorder: Tracer, parent: SpanContext) -> SpanContext:
        ids = recorder.id_generator
        trace_id = parent.trace_id if parent.is_valid else ids.generate_trace_id()
        from opentelemetry.sdk.trace.sampling import Decision

        sampled = recorder.sampler.should_sample(
            self._context, trace_id, self._name, SpanKind.INTERNAL, self._attributes, ()
        )
        return SpanContext(
            trace_id,
            ids.generate_span_id(),
            is_remote=False,
            trace_flags=_SAMPLED
            if sampled.decision is Decision.RECORD_AND_SAMPLE
            else _NOT_SAMPLED,
            trace_state=sampled.trace_state,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace_back: TracebackType | None,
    ) -> None:
        detach(self._token)
        if self._recorder is None or not self._own.trace_flags.sampled:
            return
        _hand_over(
            self._recorder,
            self._name,
            self._own,
            self._parent if self._parent.is_valid else None,
            self._attributes,
            SpanKind.INTERNAL,
            self._started_ns,
            time.time_ns(),
            _UNSET
            if error is None
            else Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"),
        )


_UNSET: Final = Status(StatusCode.UNSET)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NOT_SAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)


def _recorder() -> Tracer | None:
    """Return what records this process's spans; None where nobody does."""
    real = tracer if hasattr(tracer, "span_processor") else getattr(tracer, "_tracer", None)
    return cast("Tracer", real) if hasattr(real, "span_processor") else None


def _context_below(recorder: Tracer, parent: SpanContext) -> SpanContext:
    return SpanContext(
        parent.trace_id,
        recorder.id_generator.generate_span_id(),
        is_remote=False,
        trace_flags=parent.trace_flags,
        trace_state=parent.trace_state,
    )


def _hand_over(
    recorder: Tracer,
    name: str,
    own: SpanContext,
    parent: SpanContext | None,
    attributes: Mapping[str, Any],
    kind: SpanKind,
    started_ns: int,
    ended_ns: int,
    status: Status,
) -> None:
    """Give a span that has ended to the processors."""
    from opentelemetry.sdk.trace import ReadableSpan

    recorder.span_processor.on_end(
        ReadableSpan(
            name=name,
            context=own,
            parent=parent,
            resource=recorder.resource,
            attributes=attributes,
            kind=kind,
            status=status,
            start_time=started_ns,
            end_time=ended_ns,
            instrumentation_scope=recorder._instrumentation_scope,
        )
    )


@lru_cache(maxsize=STATEMENTS_KEPT_MAX)
def _described(query: str) -> tuple[str, dict[str, str]]:
    """Return the name and the attributes of a statement's span."""
    text = " ".join(query.split())[:STATEMENT_LENGTH_MAX]
    name = text.partition(" ")[0].rstrip(";").upper() or "SQL"
    return name, {"db.system.name": "postgresql", "db.query.text": text}


def traced_batch(name: str, load: Callable[[list[K]], Awaitable[V]]) -> Callable[[list[K]], Any]:
    """Return `load` with a span around each batch, where this process records spans."""
    if not is_tracing():
        return load

    async def traced(keys: list[K]) -> V:
        with RecordedSpan(f"load {name}", {"heddle.keys": len(keys)}):
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
