"""GraphQL over HTTP: what is answered, what is refused, and with which status and words."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import orjson
import pytest

from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

POSITION = "{ log { position } }"
JSON = {"Content-Type": "application/json"}
SLEEPING = (
    "select count(*) from pg_stat_activity where query like 'select pg_sleep(60)%' "
    "and state = 'active'"
)


def code_of(answer: Any) -> str:
    (error,) = answer["errors"]
    code: str = error["extensions"]["code"]
    return code


async def test_query_is_answered_as_json(empty_server: Server) -> None:
    response = await empty_server.http.post("/graphql", json={"query": POSITION})

    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.json() == {"data": {"log": {"position": 0}}}


async def test_query_may_be_sent_by_get(empty_server: Server) -> None:
    response = await empty_server.http.get(
        "/graphql",
        params={
            "query": "query A($n: Int!) { assets(first: $n) { position } } "
            "query B { log { ledger } }",
            "variables": '{"n": 1}',
            "operationName": "A",
        },
    )

    assert response.json() == {"data": {"assets": {"position": 0}}}


@pytest.mark.parametrize(
    "nulls", [{"variables": None, "operationName": None, "extensions": None}, {"variables": {}}]
)
async def test_what_may_be_omitted_may_be_null(empty_server: Server, nulls: dict[str, Any]) -> None:
    response = await empty_server.http.post("/graphql", json={"query": POSITION, **nulls})

    assert response.json() == {"data": {"log": {"position": 0}}}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body.malformed"),
        (b"{", "body.malformed"),
        (b"query", "body.malformed"),
        (b"\xff\xfe", "body.malformed"),
        (b'{"query": "\xff"}', "body.malformed"),
        (b'{"query": "\\ud800"}', "body.malformed"),
        (b'{"query": NaN}', "body.malformed"),
        (b"[" * 100_000, "body.malformed"),
        (b'{"a":' * 50_000, "body.malformed"),
        (b"null", "request.malformed"),
        (b"1", "request.malformed"),
        (b'"{ log { position } }"', "request.malformed"),
        (b"{}", "request.malformed"),
        (b'{"query": null}', "request.malformed"),
        (b'{"query": ""}', "request.malformed"),
        (b'{"query": 1}', "request.malformed"),
        (b'{"query": ["{ log { position } }"]}', "request.malformed"),
        (b'{"query": "{ log { position } }", "variables": []}', "request.malformed"),
        (b'{"query": "{ log { position } }", "variables": "{}"}', "request.malformed"),
        (b'{"query": "{ log { position } }", "operationName": 1}', "request.malformed"),
        (b'{"query": "{ log { position } }", "extensions": []}', "request.malformed"),
        (b"[]", "request.batched"),
        (b'[{"query": "{ log { position } }"}]', "request.batched"),
        (b"[1]", "request.batched"),
    ],
)
async def test_body_that_is_no_request_is_refused(
    empty_server: Server, body: bytes, code: str
) -> None:
    response = await empty_server.http.post("/graphql", content=body, headers=JSON)

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    answer = response.json()
    assert code_of(answer) == code
    assert answer["errors"][0]["message"]
    assert answer["errors"][0]["extensions"]["hint"]
    assert "data" not in answer


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/graphql", "multipart/form-data", "application/jsonp"],
)
async def test_other_content_type_is_refused(
    empty_server: Server, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    response = await empty_server.http.post(
        "/graphql", content=orjson.dumps({"query": POSITION}), headers=headers
    )

    assert response.status_code == 415
    assert response.headers["accept-post"] == "application/json"
    assert code_of(response.json()) == "body.content_type"


async def test_content_type_may_have_parameters(empty_server: Server) -> None:
    response = await empty_server.http.post(
        "/graphql",
        content=orjson.dumps({"query": POSITION}),
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )

    assert response.status_code == 200


async def test_body_is_bounded_while_it_arrives(
    shared_database_url: str,
) -> None:
    async with serving(shared_database_url, graphql_bytes_max=2048) as server:
        padding = " " * 3000

        async def stream() -> Any:
            yield b'{"query": "'
            for _ in range(100):
                yield padding.encode()

        declared = await server.http.post("/graphql", json={"query": POSITION + padding})
        streamed = await server.http.post("/graphql", content=stream(), headers=JSON)

        for response in (declared, streamed):
            assert response.status_code == 413
            error = response.json()["errors"][0]["extensions"]
            assert (error["code"], error["limit"]) == ("body.too_large", 2048)
        assert await server.ask(POSITION) == {"log": {"position": 0}}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_method_is_refused(empty_server: Server, method: str) -> None:
    response = await empty_server.http.request(method, "/graphql")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"
    if method != "HEAD":
        assert code_of(response.json()) == "method.not_allowed"


async def test_mutation_by_get_is_refused_and_not_carried_out(server: Server) -> None:
    response = await server.http.get(
        "/graphql",
        params={
            "query": 'mutation { registerAsset(input: {idempotencyKey: "k", assetId: "a", '
            'assetType: "skab-pump-loop"}) { __typename } }'
        },
    )

    assert response.status_code == 405
    assert code_of(response.json()) == "method.not_allowed"
    assert await server.ledger.head() == 0


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "request.malformed"),
        ({"query": ""}, "request.malformed"),
        ({"query": POSITION, "variables": "{"}, "body.malformed"),
        ({"query": POSITION, "variables": "[]"}, "request.malformed"),
        ({"query": POSITION, "extensions": "1"}, "request.malformed"),
    ],
)
async def test_impossible_get_is_refused(
    empty_server: Server, parameters: dict[str, str], code: str
) -> None:
    response = await empty_server.http.get("/graphql", params=parameters)

    assert response.status_code == 400
    assert code_of(response.json()) == code


async def test_subscription_over_plain_http_says_where_to_go(empty_server: Server) -> None:
    response = await empty_server.http.post(
        "/graphql", json={"query": "subscription { events { cursor } }"}
    )

    assert response.status_code == 400
    assert code_of(response.json()) == "operation.subscription"
    assert "graphql-transport-ws" in response.json()["errors"][0]["extensions"]["hint"]


@pytest.mark.parametrize(
    ("query", "code", "location"),
    [
        ("{ log { position }", "graphql.syntax", {"line": 1, "column": 19}),
        ("{\n  colour\n}", "graphql.invalid", {"line": 2, "column": 3}),
        ("query A { log { position } } query B { log { ledger } }", "operation.ambiguous", None),
        ("fragment F on Query { log { position } }", "graphql.invalid", {"line": 1, "column": 1}),
    ],
)
async def test_document_that_cannot_be_executed_says_why_and_where(
    empty_server: Server, query: str, code: str, location: Any
) -> None:
    answer = await empty_server.post(query)

    assert code_of(answer) == code
    assert "data" not in answer
    if location:
        assert answer["errors"][0]["locations"] == [location]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json", 200),
        ("*/*", 200),
        ("application/graphql-response+json", 400),
        ("application/graphql-response+json, application/json;q=0.9", 400),
    ],
)
async def test_status_of_a_refused_document_follows_what_is_accepted(
    empty_server: Server, accept: str, status: int
) -> None:
    response = await empty_server.http.post(
        "/graphql", json={"query": "{ colour }"}, headers={"Accept": accept}
    )

    assert response.status_code == status
    expected = "application/graphql-response+json" if status == 400 else "application/json"
    assert response.headers["content-type"] == f"{expected}; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/graphql-response+json;q=0.5, application/json", "application/json"),
        ("application/graphql-response+json;q=0, */*", "application/json"),
        ("application/json;q=0, application/*", "application/graphql-response+json"),
        ("text/html, application/*;q=0.1", "application/json"),
        ("*/*;q=0.1, application/graphql-response+json", "application/graphql-response+json"),
        ("Application/JSON ; q=0.3, text/plain", "application/json"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=2", None),
        ("application/json;charset=latin-1", None),
        ("application/json;charset=utf-8", "application/json"),
        (",;,", None),
    ],
)
async def test_media_type_is_the_one_that_is_liked_best(
    empty_server: Server, accept: str, chosen: str | None
) -> None:
    response = await empty_server.http.post(
        "/graphql", json={"query": POSITION}, headers={"Accept": accept}
    )

    if chosen is None:
        assert response.status_code == 406
        assert code_of(response.json()) == "accept.not_acceptable"
    else:
        assert response.status_code == 200
        assert response.headers["content-type"] == f"{chosen}; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "stable", "draft"),
    [
        ("{ log { position }", 400, 400),
        ("{ colour }", 400, 422),
        ("query($n: Int!) { assets(first: $n) { position } }", 400, 422),
        ('{ log { position } asset(assetId: "a b") { id } }', 200, 294),
        ("{ log { position } }", 200, 200),
    ],
)
async def test_statuses_of_the_newer_draft_are_a_setting(
    shared_database_url: str, empty_server: Server, query: str, stable: int, draft: int
) -> None:
    headers = {"Accept": "application/graphql-response+json"}
    async with serving(shared_database_url, graphql_draft_statuses=True) as newer:
        for server, status in ((empty_server, stable), (newer, draft)):
            response = await server.http.post("/graphql", json={"query": query}, headers=headers)
            assert response.status_code == status


async def test_client_that_goes_away_ends_its_operation(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(ledger: Any, *_: object) -> None:
        started.set()
        try:
            await ledger.pool.fetchval("select pg_sleep(60)")
        finally:
            ended.set()

    monkeypatch.setattr("api.graphql.alerts.queries.find_alert", wait)
    query = '{ alert(alertId: "00000000-0000-0000-0000-000000000001") { alertId } }'
    asking = asyncio.create_task(empty_server.http.post("/graphql", json={"query": query}))
    await asyncio.wait_for(started.wait(), 20)

    asking.cancel()

    await asyncio.wait_for(ended.wait(), 20)
    for _ in range(20):
        assert await empty_server.ask(POSITION) == {"log": {"position": 0}}
    async with asyncio.timeout(20):
        while await empty_server.ledger.pool.fetchval(SLEEPING):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_variables_that_do_not_fit_have_no_data(empty_server: Server) -> None:
    document = "query($first: Int!) { assets(first: $first) { position } }"

    for variables in ({}, {"first": None}, {"first": "many"}, {"first": 2**31}):
        answer = await empty_server.post(document, variables)
        assert code_of(answer) == "graphql.invalid"
        assert "data" not in answer
        assert "first" in answer["errors"][0]["message"]


async def test_failed_field_that_may_be_null_leaves_the_others(empty_server: Server) -> None:
    answer = await empty_server.post(
        '{ bad: asset(assetId: "a b") { id } good: asset(assetId: "a") { id } }'
    )

    assert answer["data"] == {"bad": None, "good": None}
    assert answer["errors"][0]["path"] == ["bad"]


# --- what nobody expected -----------------------------------------------------------------


async def test_unexpected_failure_is_masked_and_logged_once(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("api.graphql.alerts.queries.find_alert", fail)
    caplog.set_level(logging.DEBUG)
    document = '{ alert(alertId: "00000000-0000-0000-0000-000000000001") { alertId } }'
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    answer = await empty_server.post(document, traceparent=f"00-{trace_id}-b7ad6b7169203331-01")

    (error,) = answer["errors"]
    assert error["message"] == "internal error"
    assert error["extensions"]["code"] == "internal"
    assert len(error["extensions"]["traceId"]) == 32
    assert "swordfish" not in orjson.dumps(answer).decode()
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 1
    assert error["extensions"]["traceId"] in records[0].getMessage()
    assert records[0].exc_info is not None


async def test_execution_is_bounded_in_time(
    shared_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("api.graphql.alerts.queries.find_alert", wait)
    async with serving(shared_database_url, graphql_s_max=0.1) as server:
        response = await server.http.post(
            "/graphql",
            json={
                "query": '{ alert(alertId: "00000000-0000-0000-0000-000000000001") { alertId } }'
            },
        )

    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert code_of(response.json()) == "operation.timeout"


# --- GraphiQL -----------------------------------------------------------------------------


async def test_browser_gets_graphiql_with_nothing_from_elsewhere(empty_server: Server) -> None:
    response = await empty_server.http.get("/graphql", headers={"Accept": "text/html,*/*;q=0.8"})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "http:" not in response.text
    assert "https:" not in response.text
    for line in response.text.splitlines():
        if "/graphiql/" in line:
            path = line.split('"')[1] if "script" in line else line.split('"')[3]
            assert (await empty_server.http.get(path)).status_code == 200


async def test_query_of_a_browser_is_answered_and_not_shown(empty_server: Server) -> None:
    response = await empty_server.http.get(
        "/graphql", params={"query": POSITION}, headers={"Accept": "text/html,*/*;q=0.8"}
    )

    assert response.json() == {"data": {"log": {"position": 0}}}


async def test_others_do_not_get_graphiql(empty_server: Server) -> None:
    response = await empty_server.http.get("/graphql", headers={"Accept": "*/*"})

    assert response.status_code == 400
    assert code_of(response.json()) == "request.malformed"


async def test_graphiql_can_be_switched_off(shared_database_url: str) -> None:
    async with serving(shared_database_url, graphiql=False) as server:
        page = await server.http.get("/graphql", headers={"Accept": "text/html,*/*;q=0.8"})
        script = await server.http.get("/graphiql/boot.js")

        assert (page.status_code, script.status_code) == (400, 404)
