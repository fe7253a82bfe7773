"""graphql-sse: results as server-sent events, resumed by Last-Event-ID, ended with the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest

from api.graphql import sse
from domain.asset import CommissionAsset
from tests.api.graphql.server import WAIT_S, Server
from tests.api.graphql.test_subscriptions import EVENTS

pytestmark = pytest.mark.anyio


@dataclass
class Stream:
    """A client of server-sent events."""

    response: httpx.Response
    lines: AsyncIterator[str] = field(init=False)
    comments: int = 0

    def __post_init__(self) -> None:
        self.lines = self.response.aiter_lines()

    async def event(self) -> dict[str, str]:
        """Return the fields of the next event."""
        found: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            async for line in self.lines:
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(":")
                    found[name] = value.removeprefix(" ")
                elif "event" in found:
                    return found
        return {"event": "end"}

    async def next(self) -> dict[str, Any]:
        """Return the payload of the next result."""
        event = await self.event()
        assert event["event"] == "next", event
        payload: dict[str, Any] = orjson.loads(event["data"])
        return payload


@asynccontextmanager
async def streaming(
    server: Server,
    document: str,
    *,
    method: str = "POST",
    last: str | None = None,
    **variables: Any,
) -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    asked: dict[str, Any] = {"query": document, "variables": variables}
    if method == "GET":
        asked["variables"] = orjson.dumps(variables).decode()
        request = server.http.build_request("GET", "/graphql", params=asked, headers=headers)
    else:
        request = server.http.build_request("POST", "/graphql", json=asked, headers=headers)
    response = await server.http.send(request, stream=True)
    try:
        yield Stream(response)
    finally:
        await response.aclose()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something `holds`, which nothing tells of."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_subscription_streams_under_its_cursors(server: Server, method: str) -> None:
    await server.register("pump-1", "pump-2")

    async with streaming(server, EVENTS, method=method, after=server.cursor(0)) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = [await stream.event() for _ in range(2)]

    assert [event["id"] for event in events] == [server.cursor(1), server.cursor(2)]
    told = [orjson.loads(event["data"])["data"]["events"]["event"]["stream"] for event in events]
    assert told == ["asset:pump-1", "asset:pump-2"]


async def test_event_source_resumes_after_the_last_event_it_has_seen(server: Server) -> None:
    await server.register("pump-1", "pump-2", "pump-3")

    async with streaming(
        server, EVENTS, method="GET", last=server.cursor(2), after=server.cursor(0)
    ) as stream:
        payload = await stream.next()

    assert payload["data"]["events"]["event"]["stream"] == "asset:pump-3"


async def test_query_and_mutation_are_one_result_and_the_end(server: Server) -> None:
    async with streaming(server, "{ log { position } }") as stream:
        payload = await stream.next()
        end = await stream.event()
        last = await stream.event()

    assert payload == {"data": {"log": {"position": 0}}}
    assert end == {"event": "complete", "data": ""}
    assert last == {"event": "end"}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{ log { position", "graphql.syntax"),
        ("subscription { nothing }", "graphql.invalid"),
        ("query A { log { position } } query B { log { position } }", "operation.ambiguous"),
    ],
)
async def test_what_is_wrong_with_a_document_is_a_result(
    server: Server, document: str, code: str
) -> None:
    async with streaming(server, document) as stream:
        payload = await stream.next()
        end = await stream.event()

    assert "data" not in payload
    assert payload["errors"][0]["extensions"]["code"] == code
    assert end["event"] == "complete"


async def test_subscription_that_is_refused_says_so_and_ends(server: Server) -> None:
    async with streaming(server, EVENTS, after="nonsense") as stream:
        payload = await stream.next()
        end = await stream.event()

    assert payload["errors"][0]["extensions"]["code"] == "cursor.malformed"
    assert end["event"] == "complete"


async def test_mutation_by_get_is_refused(server: Server) -> None:
    async with streaming(
        server,
        'mutation { commissionAsset(input: {idempotencyKey: "k", assetId: "a"}) { __typename } }',
        method="GET",
    ) as stream:
        body = orjson.loads(await stream.response.aread())

    assert (stream.response.status_code, body["code"]) == (405, "method.not_allowed")
    assert await server.ledger.head() == 0


async def test_quiet_stream_is_kept_alive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.05)
    await server.register("pump-1")

    async with streaming(server, EVENTS, after=server.cursor(1)) as stream:
        coming = asyncio.create_task(stream.event())
        await until(lambda: stream.comments >= 3)
        await server.command(CommissionAsset("pump-1"))
        event = await coming

    assert event["id"] == server.cursor(2)


async def test_streams_end_when_the_server_goes_down_and_are_let_go(server: Server) -> None:
    streams = server.application.graphql.http.streams
    async with streaming(server, EVENTS, after=server.cursor(0)) as stream:
        await until(lambda: len(streams) == 1)
        streams.close()
        assert await stream.event() == {"event": "end"}
        await until(lambda: len(streams) == 0)


async def test_stream_whose_client_went_away_is_let_go(server: Server) -> None:
    streams = server.application.graphql.http.streams
    async with streaming(server, EVENTS, after=server.cursor(0)) as stream:
        assert stream.response.status_code == 200
        assert len(streams) == 1
    await until(lambda: len(streams) == 0)
