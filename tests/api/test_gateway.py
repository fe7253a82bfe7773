"""What every request meets first and every response carries; metrics, health, going down."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from api.headers import SECURITY_HEADERS
from tests.api.graphql.server import Server, serving
from tests.database import new_database

pytestmark = pytest.mark.anyio

POSITION = {"query": "{ log { position } }"}
ORIGIN = "https://console.example"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def gateway_database_url(postgres_url: str, template_database: str) -> Iterator[str]:
    with new_database(postgres_url, "heddle_gateway", template=template_database) as url:
        yield url


@pytest.fixture
async def server(gateway_database_url: str) -> AsyncIterator[Server]:
    async with serving(
        gateway_database_url, ledger=f"gateway-{next(_numbers)}", cors_origins=(ORIGIN,)
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "path.unknown"),
        ("DELETE", "/healthz", 405, "method.not_allowed"),
        ("POST", "/v1/frames", 415, "body.content_type"),
    ],
)
async def test_errors_outside_graphql_are_problems(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    response = await server.http.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["type"] == f"urn:heddle:error:{code}"
    if status == 405:
        assert "GET" in response.headers["allow"]


async def test_failure_that_nobody_expected_is_a_problem_with_a_trace(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("api.app.HealthEndpoints._readiness", fail)
    response = await server.http.get("/readyz")

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "swordfish" not in response.text
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert response.json()["traceId"] in record.getMessage()


@pytest.mark.parametrize("path", ["/graphql", "/healthz", "/readyz", "/metrics", "/nowhere", "/"])
async def test_every_response_carries_the_headers_of_security(server: Server, path: str) -> None:
    response = await server.http.get(path)

    for name, value in SECURITY_HEADERS:
        assert response.headers[name.decode()] == value.decode()


async def test_pages_of_other_origins_may_read_only_where_they_are_named(server: Server) -> None:
    named = await server.http.post("/graphql", json=POSITION, headers={"Origin": ORIGIN})
    other = await server.http.post(
        "/graphql", json=POSITION, headers={"Origin": "https://evil.example"}
    )
    asked = await server.http.options(
        "/graphql",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )

    assert named.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in other.headers
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("path", ["/graphql", "/healthz"])
async def test_name_that_is_not_local_is_turned_away(server: Server, path: str) -> None:
    response = await server.http.get(path, headers={"Host": "evil.example:8000"})

    assert response.status_code == 421
    assert response.json()["code"] == "host.misdirected"


async def test_socket_is_opened_for_the_same_and_for_named_origins_alone(server: Server) -> None:
    address = server.url.replace("http", "ws", 1) + "/graphql"

    def opening(origin: str) -> connect:
        protocols = [Subprotocol("graphql-transport-ws")]
        return connect(address, subprotocols=protocols, origin=Origin(origin), proxy=None)

    for origin in (server.url, ORIGIN):
        async with opening(origin):
            pass
    for origin in ("https://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            await opening(origin)
        assert refused.value.response.status_code == 403


async def test_metrics_tell_what_was_asked_and_how_far_projections_are(server: Server) -> None:
    await server.http.post("/graphql", json={"query": "query Named { log { position } }"})
    await server.http.post("/graphql", json={"query": "{ colour }"})
    for number in range(300):
        await server.http.post(
            "/graphql", json={"query": f"query N{number} {{ log {{ position }} }}"}
        )
    async with server.socket():
        text = (await server.http.get("/metrics")).text

    assert 'heddle_graphql_operation_seconds_count{name="Named",type="query"} 1.0' in text
    assert 'name="(other)",type="query"' in text
    assert text.count("heddle_graphql_operation_seconds_count{") <= 201
    assert 'heddle_graphql_refused_total{code="graphql.invalid"} 1.0' in text
    assert 'heddle_projection_lag_events{projection="twins"} 0.0' in text
    assert "heddle_sockets_open 1.0" in text
    assert "heddle_graphql_in_flight 0.0" in text


async def test_slow_operation_is_logged_by_its_hash_without_variables(
    gateway_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    document = "query Slow($first: Int!) { assets(first: $first) { position } }"
    async with serving(gateway_database_url, slow_operation_s=0.000001) as slow:
        await slow.ask(document, first=377)

    (record,) = [each for each in caplog.records if "slow query Slow" in each.getMessage()]
    assert "sha256:" in record.getMessage()
    assert "377" not in record.getMessage()
    assert "assets" not in record.getMessage()


async def test_server_that_goes_down_closes_its_sockets_with_a_hint(server: Server) -> None:
    async with server.socket() as first, server.socket() as second:
        await first.subscribe("subscription { events { cursor } }")
        await asyncio.sleep(0)
        draining = asyncio.create_task(server.application.drain(0.2))
        closed: list[Any] = [await socket.closed() for socket in (first, second)]
        await draining
        ready = await server.http.get("/readyz")

    assert [code for code, _ in closed] == [1001, 1001]
    assert all("resume" in reason for _, reason in closed)
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert await server.ask("{ log { position } }") == {"log": {"position": 0}}
