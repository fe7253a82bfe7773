"""Spans of an operation: one for itself, one a statement, one a batch of a loader."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api import tracing
from tests.api.graphql.server import Server

pytestmark = pytest.mark.anyio

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Spans that end, as this process would send them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(tracing, "tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


async def test_operation_has_a_span_for_itself_each_statement_and_each_batch(
    server: Server, spans: InMemorySpanExporter
) -> None:
    await server.register("pump-1", "pump-2")
    pool = server.ledger.pool
    async with pool.acquire() as connection:
        connection.add_query_logger(tracing.note_statement)
    spans.clear()

    await server.post(
        "query Twins { assets(first: 10) { nodes { assetId twin { asOf } } } }",
        traceparent=f"00-{TRACE_ID}-b7ad6b7169203331-01",
    )

    finished = spans.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in finished if span.context} == {TRACE_ID}
    by_name = {span.name: span for span in finished}
    operation = by_name["graphql query Twins"]
    assert operation.attributes is not None
    assert operation.attributes["graphql.operation.type"] == "query"
    assert len(str(operation.attributes["graphql.document.sha256"])) == 64
    batch = by_name["load twins"]
    assert batch.attributes is not None
    assert batch.attributes["heddle.keys"] == 2
    statements = [
        span for span in finished if span.attributes and "db.query.text" in span.attributes
    ]
    assert statements
    assert all("pump-1" not in str(span.attributes) for span in statements)
