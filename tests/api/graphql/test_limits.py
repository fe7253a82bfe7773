"""Limits and attacks over HTTP: each is answered with its reason, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from pathlib import Path
from typing import Any

import graphql
import orjson
import pytest
from graphql import GraphQLError, get_introspection_query, parse

from api import http_protocol
from api.graphql import operations
from api.graphql.limits import FIELDS_MAX, SPREADS_MAX, _Walk, check_limits
from api.graphql.preparation import TOKENS_MAX, Documents
from api.graphql.schema import create_schema
from api.graphql.trusted import TrustedDocuments
from domain.errors import HeddleError
from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

SCHEMA = create_schema().core
POSITION = "{ log { position } }"
JSON = {"Content-Type": "application/json"}


def cost(source: str, **variables: Any) -> int:
    return Documents(SCHEMA).prepare(source).operation(None).cost(variables)


# --- cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (POSITION, 1),
        ("{ assets(first: 100) { position } }", 1),
        ("{ assets(first: 100) { nodes { assetId title } } }", 102),
        ("{ assets(first: 100) { nodes { assetId twin { position } } } }", 102),
        ("{ assets(first: 100) { edges { cursor node { assetId twin { asOf } } } } }", 202),
        ("{ assets(first: 100) { ...P } } fragment P on AssetConnection { nodes { id } }", 102),
        ("{ a: assets(first: 3) { nodes { id } } b: assets(first: 4) { nodes { id } } }", 11),
        ("{ assets(first: 10) { nodes { alerts(first: 20) { nodes { alertId } } } } }", 222),
    ],
)
def test_cost_counts_what_is_below_a_list_once_an_item(source: str, expected: int) -> None:
    assert cost(source) == expected


def test_cost_follows_variables_and_their_defaults() -> None:
    source = "query($n: Int! = 7) { assets(first: $n) { nodes { id } } }"

    assert cost(source, n=50) - cost(source, n=40) == 10
    assert cost(source) - cost(source, n=1) == 6
    assert cost(source, n=10**9) == cost(source, n=500) == cost(source, n="many")


def test_cost_of_many_variables_is_kept_within_bounds() -> None:
    prepared = Documents(SCHEMA).prepare("query($n: Int!) { assets(first: $n) { nodes { id } } }")
    operation = prepared.operation(None)

    for n in range(1_000):
        operation.cost({"n": n, "other": n})

    assert len(operation._costs) <= 64


def test_walk_over_fragments_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    visited = 0
    measure = _Walk._measure

    def counted(self: _Walk, selections: Any, type_: Any) -> Any:
        nonlocal visited
        visited += 1
        return measure(self, selections, type_)

    monkeypatch.setattr(_Walk, "_measure", counted)
    chain = " ".join(f"fragment F{n} on Asset {{ id ...F{n + 1} ...F{n + 1} }}" for n in range(200))
    source = "{ assets(first: 1) { nodes { ...F0 } } } " + chain + " fragment F200 on Asset { id }"

    with pytest.raises(GraphQLError):
        check_limits(SCHEMA, parse(source))
    assert visited < 500


async def test_operation_that_costs_too_much_is_not_executed(server: Server) -> None:
    document = "{ assets(first: 500) { nodes { alerts(first: 500) { nodes { alertId } } } } }"

    async with server.statements() as statements:
        error = await server.error(document)

    assert error["extensions"]["code"] == "document.cost"
    assert error["extensions"]["value"] > error["extensions"]["limit"] == 50_000
    assert statements == []


async def test_cost_is_reported_to_whoever_asks_for_it(
    empty_server: Server, shared_database_url: str
) -> None:
    asked = await empty_server.post(POSITION, None, **{"X-Heddle-Report-Cost": "yes"})
    silent = await empty_server.post(POSITION)
    async with serving(shared_database_url, graphql_report_cost=True) as server:
        always = await server.post(POSITION)

    assert asked["extensions"]["cost"] == {"requested": cost(POSITION), "limit": 50_000}
    assert "extensions" not in silent
    assert always["extensions"] == asked["extensions"]


# --- how much, and how much at once --------------------------------------------------------


async def test_client_beyond_its_rate_is_told_when_to_come_back(shared_database_url: str) -> None:
    async with serving(shared_database_url, graphql_rate=1.0, graphql_burst=1_000.0) as server:
        document = "{ assets(first: 500) { nodes { id twin { asOf } } } }"
        first = await server.http.post("/graphql", json={"query": document})
        second = await server.http.post("/graphql", json={"query": document})
        third = await server.http.post("/graphql", json={"query": POSITION})

    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    error = third.json()["errors"][0]["extensions"]
    assert error["code"] == "client.throttled"
    assert int(third.headers["retry-after"]) == error["value"] > 0


async def test_operations_at_once_are_bounded(
    shared_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def wait(*_: object) -> None:
        entered.set()
        await go_on.wait()

    monkeypatch.setattr("api.graphql.alerts.queries.find_alert", wait)
    query = '{ alert(alertId: "00000000-0000-0000-0000-000000000001") { alertId } }'
    async with serving(shared_database_url, graphql_concurrency_max=1) as server:
        asking = asyncio.create_task(server.post(query))
        await asyncio.wait_for(entered.wait(), 20)
        busy = await server.http.post("/graphql", json={"query": POSITION})
        go_on.set()
        assert (await asking)["data"] == {"alert": None}

        assert busy.status_code == 503
        assert busy.headers["retry-after"]
        assert busy.json()["errors"][0]["extensions"]["code"] == "server.busy"
        assert await server.ask(POSITION) == {"log": {"position": 0}}


# --- which documents ----------------------------------------------------------------------


def hashed(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


async def test_document_may_be_asked_for_by_its_hash(
    shared_database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "documents.json"
    file.write_bytes(orjson.dumps({f"sha256:{hashed(POSITION)}": POSITION}))
    by_hash = {"persistedQuery": {"version": 1, "sha256Hash": hashed(POSITION)}}
    other = "{ log { ledger } }"
    async with serving(
        shared_database_url, trusted_documents=file, trusted_documents_only=True
    ) as server:

        async def code(request: dict[str, Any]) -> str | None:
            answer = (await server.http.post("/graphql", json=request)).json()
            return answer["errors"][0]["extensions"]["code"] if "errors" in answer else None

        assert await code({"documentId": f"sha256:{hashed(POSITION)}"}) is None
        assert await code({"extensions": by_hash}) is None
        assert await code({"query": POSITION}) is None
        assert await code({"query": other}) == "document.not_trusted"
        assert await code({"documentId": f"sha256:{hashed(other)}"}) == "document.unknown"
        assert await code({"documentId": "sha256:abc"}) == "document.malformed_id"
        assert await code({"extensions": {"persistedQuery": []}}) == "document.malformed_id"
        by_get = await server.http.get(
            "/graphql", params={"extensions": orjson.dumps(by_hash).decode()}
        )
        assert by_get.json() == {"data": {"log": {"position": 0}}}


async def test_document_that_was_sent_once_is_known_by_its_hash(empty_server: Server) -> None:
    source = "query Once { log { position } }"
    request = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hashed(source)}}}
    unknown = await empty_server.http.post("/graphql", json=request)
    wrong = await empty_server.http.post("/graphql", json={"query": POSITION, **request})
    await empty_server.http.post("/graphql", json={"query": source, **request})
    known = await empty_server.http.post("/graphql", json=request)

    assert unknown.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    assert wrong.json()["errors"][0]["extensions"]["code"] == "document.hash_mismatch"
    assert known.json() == {"data": {"log": {"position": 0}}}


def test_file_of_trusted_documents_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "documents.json"
    for content in (b"{", b"[]", b'{"a": 1}', orjson.dumps({hashed("x"): "y"})):
        file.write_bytes(content)
        with pytest.raises(HeddleError) as caught:
            TrustedDocuments.of(file)
        assert caught.value.code == "documents.unreadable"
    with pytest.raises(HeddleError):
        TrustedDocuments.of(tmp_path / "missing.json")


async def test_introspection_can_be_switched_off(shared_database_url: str) -> None:
    async with serving(shared_database_url, introspection=False) as server:
        whole = await server.post(get_introspection_query())
        hidden = await server.post('{ __type(name: "Query") { name } }')
        misspelt = await server.post("{ logg { position } }")
        named = await server.ask("{ __typename }")

    for answer in (whole, hidden):
        assert "data" not in answer
        assert "introspection has been disabled" in answer["errors"][0]["message"].lower()
    assert "Did you mean" not in misspelt["errors"][0]["message"]
    assert named == {"__typename": "Query"}


async def test_schema_is_read_in_a_thread_once_and_alone(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_loop = 0
    real = graphql.execute

    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal on_the_loop
        try:
            asyncio.get_running_loop()
            on_the_loop += 1
        except RuntimeError:
            pass
        return real(*args, **kwargs)

    monkeypatch.setattr("api.graphql.operations.execute", watched)
    query = "query Whole " + get_introspection_query().partition("IntrospectionQuery")[2]
    first = await empty_server.ask(query)
    again = await empty_server.ask(query)

    assert first == again
    assert first["__schema"]["queryType"]["name"] == "Query"
    assert on_the_loop == 0
    mixed = await empty_server.error("{ log { position } ... { __schema { types { name } } } }")
    assert mixed["extensions"]["code"] == "document.introspection_beside"


# --- attacks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("{ " + "a: log { position } " * 3_000 + "}", id="aliases"),
        pytest.param(
            "{ " + "...F " * (SPREADS_MAX + 1) + "} fragment F on Query { id }", id="spreads"
        ),
        pytest.param("{ log { " + "position " * (FIELDS_MAX + 1) + "} }", id="fields"),
        pytest.param("{" * 100_000, id="braces"),
        pytest.param("[" * 100_000, id="brackets"),
        pytest.param("{ asset(assetId: " + "[" * 3_000 + "]" * 3_000 + ") { id } }", id="lists"),
        pytest.param(
            "{ asset(assetId: " + "{a: " * 900 + "1" + "}" * 900 + ") { id } }", id="input"
        ),
        pytest.param('{ asset(assetId: "' + "x" * 200_000 + '") { id } }', id="string"),
        pytest.param("{ log " + "@include(if: true) " * 1_500 + "{ position } }", id="directives"),
        pytest.param("#" + "x" * 200_000 + "\n{", id="comment"),
        pytest.param("{ log { position } } " * (TOKENS_MAX // 6), id="operations"),
    ],
)
async def test_attack_by_document_is_refused_in_few_words(empty_server: Server, query: str) -> None:
    response = await empty_server.http.post("/graphql", json={"query": query})

    assert response.status_code == 200
    assert "data" not in response.json() or "errors" in response.json()
    assert len(response.content) < 40_000
    assert await empty_server.ask(POSITION) == {"log": {"position": 0}}


async def test_long_document_is_checked_in_a_thread(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    to_thread = asyncio.to_thread

    async def noted(function: Any, *args: Any) -> Any:
        checked.append(function.__name__)
        return await to_thread(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    padding = "#" + "x" * operations.CHECKED_AT_ONCE_CHARACTERS + "\n"
    await empty_server.ask(padding + POSITION)
    await empty_server.ask("query Short { log { position } }")

    assert checked == ["check"]


@pytest.mark.parametrize(
    "variables",
    [
        '{"a": ' * 5_000 + "1" + "}" * 5_000,
        '{"first": "' + "x" * 200_000 + '"}',
        '{"first": ' + "9" * 5_000 + "}",
        '{"first": -1e400}',
        '{"first": "\\ud800"}',
    ],
    ids=["depth", "length", "digits", "infinity", "surrogate"],
)
async def test_attack_by_variables_is_refused(empty_server: Server, variables: str) -> None:
    query = "query($first: Int!) { assets(first: $first) { position } }"
    body = f'{{"query": {orjson.dumps(query).decode()}, "variables": {variables}}}'

    response = await empty_server.http.post("/graphql", content=body.encode(), headers=JSON)

    assert response.status_code in (200, 400)
    assert "data" not in response.json()
    assert len(response.content) < 4_000


async def raw(server: Server, *parts: bytes) -> bytes:
    """Send `parts` as they are; return all that comes back until the server closes."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_headers_are_bounded(empty_server: Server) -> None:
    start = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    many = b"".join(b"X-%d: y\r\n" % n for n in range(http_protocol.HEADERS_MAX + 1))
    long = b"X-Long: " + b"y" * (http_protocol.HEADER_BYTES_MAX + 1)

    for attack in (start + many + b"\r\n", start + long + b"\r\n\r\n", start + long):
        assert (await raw(empty_server, attack)).startswith(b"HTTP/1.1 431 ")
    assert await empty_server.ask(POSITION) == {"log": {"position": 0}}


async def test_slow_headers_and_slow_bodies_are_dropped(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADERS_S_MAX", 0.1)
    monkeypatch.setattr("api.graphql.http.BODY_S_MAX", 0.1)
    head = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"

    assert await raw(empty_server, b"") == b""
    assert await raw(empty_server, head) == b""
    answer = await raw(empty_server, head + b"Content-Length: 100\r\n\r\n", b'{"query"')

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body.too_slow" in answer


async def test_body_is_bounded_however_it_is_declared(empty_server: Server) -> None:
    head = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    for length in (b"999999999999", b"9" * 18):
        answer = await _first_line(empty_server, head + b"Content-Length: " + length + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")


async def _first_line(server: Server, request: bytes) -> bytes:
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), family=socket.AF_INET)
    writer.write(request)
    try:
        async with asyncio.timeout(20):
            return await reader.readline()
    finally:
        writer.close()
