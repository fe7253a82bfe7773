"""A server for `benchmarks.graphql`: Heddle as it is served, or a bare Starlette of the same bytes.

::

    python -m benchmarks.graphql_server {heddle|bare} PORT DATABASE_URL FOLDER {memory|database}
"""

from __future__ import annotations

import asyncio
import base64
import gc
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import orjson
import uvicorn
import uvloop
from opentelemetry import trace as tracing
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.app import create_app, open_services
from api.graphql import as_of
from api.graphql.assets import queries
from api.graphql.operations import encode
from api.graphql.scalars import parse_time, to_ms, to_ns
from api.http_protocol import BoundedHttpProtocol
from api.serve import COLLECTOR_THRESHOLDS
from api.settings import ServerSettings
from domain.events import format_time
from eventlog.database import Pool, create_pool
from eventlog.ledger import Ledger
from projections.telemetry.readings import POINTS_MAX, read_columns
from projections.thread.projection import ThreadProjection
from projections.thread.trace import trace
from projections.thread.traced import Direction
from projections.twins.projection import AssetRow, TwinProjection, list_assets, twins_by_asset_id

LEDGER: Final = "plant-1"
ASSETS: Final = 100
START_S_MAX: Final = 60.0
THREAD_LOT: Final = "LOT-1"
THREAD_NODES: Final = 1_000
READ_ASSET: Final = "pump-000"
READ_CHANNEL: Final = "flow"
READ_FROM: Final = "2023-11-14T22:13:20Z"
READ_TO: Final = "2023-11-15T01:00:00Z"
ASSET_COLUMNS: Final = (
    "select asset_id, title, lifecycle, version, registered_at from twin_asset "
    "where ledger_id = $1 order by asset_id limit $2"
)


class _Dropped(SpanExporter):
    """Sends spans nowhere: what recording them costs is measured, not a collector."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


async def _heddle(
    stack: AsyncExitStack, settings: ServerSettings, database_url: str, memory: bool
) -> Any:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Dropped()))
    tracing.set_tracer_provider(provider)
    services = await stack.enter_async_context(open_services(settings, database_url))
    head = await services.ledger.head()
    for name in (TwinProjection.name, ThreadProjection.name):
        await services.runners[name].wait_for(head, START_S_MAX)
    if memory:
        rows = await list_assets(services.ledger, first=ASSETS + 1)

        async def kept(*_: object, **__: object) -> list[AssetRow]:
            return rows

        async def positions(_: object, __: object, names: Sequence[str]) -> list[int]:
            return [head] * len(names)

        setattr(queries, "list_assets", kept)  # noqa: B010
        setattr(as_of, "projection_positions", positions)  # noqa: B010
    return create_app(services)


async def _bare(database_url: str, memory: bool) -> Any:
    pool = await create_pool(database_url)
    ledger = await Ledger.open(pool, LEDGER)
    kept = await list_assets(ledger, first=ASSETS)

    async def trivial() -> object:
        return {"data": {"__typename": "Query"}}

    async def assets() -> object:
        nodes = _of_rows(kept) if memory else await _of_database(pool, ledger.ledger_id)
        return {"data": {"assets": {"nodes": nodes}}}

    async def twins() -> object:
        rows = await list_assets(ledger, first=ASSETS)
        return {"data": {"assets": {"nodes": await _twins(ledger, rows)}}}

    async def readings() -> object:
        (column,) = await read_columns(
            ledger,
            READ_ASSET,
            [READ_CHANNEL],
            start_ns=to_ns(parse_time(READ_FROM)),
            end_ns=to_ns(parse_time(READ_TO)),
            points_max=POINTS_MAX,
        )
        answer = {
            "channel": column.channel,
            "timesMs": to_ms(column.times_ns),
            "values": column.values,
        }
        return {"data": {"asset": {"readings": [answer]}}}

    async def thread() -> object:
        traced = await trace(
            ledger, [f"lot:{THREAD_LOT}"], direction=Direction.FORWARD, nodes_max=THREAD_NODES
        )
        nodes = [
            {
                "key": node.key,
                "kind": node.kind.name,
                "state": node.state.name,
                "depth": node.depth,
                "firstPosition": node.first_position,
            }
            for node in traced.nodes
        ]
        links = [
            {
                "kind": edge.kind.name,
                "cause": edge.cause,
                "effect": edge.effect,
                "position": edge.position,
            }
            for edge in traced.edges
        ]
        return {"data": {"trace": {"nodes": nodes, "links": links}}}

    return Starlette(
        routes=[
            Route(path, _answering(make), methods=["POST"])
            for path, make in (
                ("/trivial", trivial),
                ("/assets", assets),
                ("/twins", twins),
                ("/thread", thread),
                ("/readings", readings),
            )
        ]
    )


def _answering(make: Callable[[], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        orjson.loads(await request.body())
        return Response(encode(await make()), media_type="application/json")

    return answer


def _global_id(asset_id: str) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(["Asset", asset_id])).rstrip(b"=").decode()


def _of_rows(rows: Sequence[AssetRow]) -> list[dict[str, object]]:
    return [
        {
            "id": _global_id(row.asset_id),
            "assetId": row.asset_id,
            "title": row.title,
            "lifecycle": row.lifecycle.value,
            "version": row.version,
            "registeredAt": format_time(row.registered_at),
        }
        for row in rows
    ]


async def _of_database(pool: Pool, ledger_id: int) -> list[dict[str, object]]:
    return [
        {
            "id": _global_id(row["asset_id"]),
            "assetId": row["asset_id"],
            "title": row["title"],
            "lifecycle": row["lifecycle"],
            "version": row["version"],
            "registeredAt": format_time(row["registered_at"]),
        }
        for row in await pool.fetch(ASSET_COLUMNS, ledger_id, ASSETS)
    ]


async def _twins(ledger: Ledger, rows: Sequence[AssetRow]) -> list[dict[str, object]]:
    twins = await twins_by_asset_id(ledger, rows, rows[0].registered_at)
    return [
        {
            "assetId": row.asset_id,
            "twin": {
                "connectivity": (twin := twins[row.asset_id]).connectivity.value,
                "lastReadingAt": twin.last_reading_at and format_time(twin.last_reading_at),
                "openAlertCount": twin.open_alert_count,
                "position": twin.position,
                "health": {"status": twin.health.status.value, "index": twin.health.index},
            },
        }
        for row in rows
    ]


async def _serve(kind: str, port: int, database_url: str, folder: Path, source: str) -> None:
    memory = source == "memory"
    settings = ServerSettings(
        database_url=database_url,
        data_dir=folder,
        port=port,
        dev_tokens=True,
        graphql_rate=1e9,
        graphql_burst=1e9,
        checkpoint_interval_s=3_600.0,
    )
    async with AsyncExitStack() as stack:
        if kind == "heddle":
            application = await _heddle(stack, settings, database_url, memory)
        else:
            application = await _bare(database_url, memory)
        config = uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            lifespan="off",
            http=BoundedHttpProtocol if kind == "heddle" else "httptools",
            ws="none",
            server_header=False,
        )
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    chosen, at, url, where, source = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(chosen, int(at), url, Path(where), source))
