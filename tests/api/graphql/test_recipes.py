"""The recipes of docs/api.md, taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from graphql import parse, validate

from api.graphql.schema import create_schema
from tests.api.graphql.server import Server, frame_of

pytestmark = pytest.mark.anyio

SCHEMA = create_schema().core
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the page's code blocks in `language`."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def first_with(text: str) -> str:
    """Return the page's first document with `text` in it."""
    return next(block for block in blocks("graphql") if text in block)


def curl_documents() -> list[str]:
    """Return the documents that the page sends with curl."""
    bodies = re.findall(r"-d '(\{.*?\})'", PAGE, re.DOTALL)
    return [orjson.loads(body)["query"] for body in bodies]


def test_every_document_of_the_page_fits_the_schema() -> None:
    documents = blocks("graphql") + curl_documents()

    assert len(documents) > 10
    for document in documents:
        assert validate(SCHEMA, parse(document)) == [], document


async def test_curl_bodies_are_answered(server: Server) -> None:
    for document in curl_documents():
        if not document.lstrip().startswith("subscription"):
            assert "errors" not in await server.post(document)


async def test_setpoint_is_desired_as_the_page_says(server: Server) -> None:
    await server.register("pump-loop-1")
    document = first_with("desireSetpoint")
    (variables,) = blocks("json")

    data = await server.ask(document, **orjson.loads(variables))

    assert data["desireSetpoint"]["asset"]["twin"]["setpoints"] == [
        {"setpoint": "flow", "desired": pytest.approx(32)}
    ]


async def test_readings_come_as_the_page_says(server: Server) -> None:
    await server.register("pump-loop-1")
    await server.record(frame_of("pump-loop-1", {"pressure": ("bar", [0.5, 0.6])}))
    document = first_with("readings(\n")

    data = await server.ask(
        document,
        asset="pump-loop-1",
        **{"from": "2020-03-09T10:00:00Z", "to": "2020-03-09T12:00:00Z"},
    )

    pressure, flow = data["asset"]["readings"]
    assert (pressure["unit"], pressure["values"]) == ("bar", [pytest.approx(0.5)])
    assert flow["values"] == []


async def test_tables_of_rollups_have_the_columns_that_the_page_names(server: Server) -> None:
    await server.register("pump-loop-1")
    await server.record(frame_of("pump-loop-1", {"pressure": ("bar", [0.5, 0.6])}))
    (grafana,) = re.findall(r"`http://127\.0\.0\.1:8000(/v1/export/rollups\?[^`]+)`", PAGE)
    asked = grafana.replace("${__from:date:iso}", "2020-03-09T10:00:00.000Z")
    path, mentioned = "/v1/export/rollups", {"start", "mean", "channel"}
    power_bi = dict(re.findall(r'(\w+) = "([^"]+)"', PAGE.partition("Query = [")[2].split("]")[0]))

    for response in (
        await server.http.get(asked.replace("${__to:date:iso}", "2020-03-09T13:00:00.000Z")),
        await server.http.get(path, params=power_bi),
    ):
        assert response.status_code == 200, response.text
        header = response.text.splitlines()[0].replace('"', "").split(",")
        assert mentioned <= set(header)
    assert power_bi["format"] == "csv"


async def test_pages_are_turned_as_the_page_says(server: Server) -> None:
    await server.register("a", commission=True)
    document = first_with("hasNextPage")

    data = await server.ask(document, after=None)

    assert data["assets"]["nodes"] == [{"assetId": "a", "title": "Pump a", "version": 2}]


async def test_log_is_followed_and_resumed_as_the_page_says(
    server: Server,
) -> None:
    (source,) = [block for block in blocks("python") if "async def follow" in block]
    recipe: dict[str, Any] = {}
    exec(compile(source, "docs/api.md", "exec"), recipe)
    await server.register("a", "b", "c")
    start = (await server.ask("{ log { start } }"))["log"]["start"]
    received = []

    messages = recipe["follow"](server.url.replace("http", "ws") + "/graphql", start)
    async for message in messages:
        received.append(message["event"]["position"])
        if len(received) == 2:
            break
    await messages.aclose()
    # A client that had dealt with the first message alone.
    cursor = (await server.ask("{ events(first: 1) { nodes { cursor } } }"))["events"]["nodes"][0]
    messages = recipe["follow"](server.url.replace("http", "ws") + "/graphql", cursor["cursor"])
    async for message in messages:
        received.append(message["event"]["position"])
        if len(received) == 4:
            break
    await messages.aclose()

    assert received == [1, 2, 2, 3]
