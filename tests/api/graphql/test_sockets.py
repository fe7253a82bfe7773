"""graphql-transport-ws: the protocol's states, and errors that end an operation, not the socket."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.api.graphql.server import Server, serving

pytestmark = pytest.mark.anyio

POSITION = "{ log { position } }"


async def test_query_is_answered_and_completed(empty_server: Server) -> None:
    async with empty_server.socket() as socket:
        await socket.subscribe(POSITION, "a")

        assert await socket.next("a") == {"log": {"position": 0}}
        assert await socket.receive() == {"id": "a", "type": "complete"}


async def test_mutation_is_carried_out_for_the_actor_of_the_handshake(server: Server) -> None:
    async with server.socket({"X-Heddle-Actor": "jane"}) as socket:
        await socket.subscribe(
            'mutation { registerAsset(input: {idempotencyKey: "k", assetId: "a", '
            'assetType: "skab-pump-loop"}) { __typename } }'
        )
        assert await socket.next() == {"registerAsset": {"__typename": "RegisterAssetSuccess"}}

    data = await server.ask("{ events(first: 1) { nodes { actor } } }")
    assert data["events"]["nodes"] == [{"actor": "user:jane"}]


async def test_operations_of_one_socket_see_what_changed_between_them(server: Server) -> None:
    await server.register("a")
    document = '{ asset(assetId: "a") { lifecycle twin { position } } }'
    async with server.socket() as socket:
        await socket.subscribe(document, "1")
        before = await socket.next("1")
        await socket.receive()
        await socket.subscribe(
            'mutation { commissionAsset(input: {idempotencyKey: "k", assetId: "a"}) '
            "{ ... on CommissionAssetSuccess { asset { lifecycle } } } }",
            "2",
        )
        await socket.next("2")
        await socket.receive()
        await socket.subscribe(document, "3")
        after = await socket.next("3")

    assert before["asset"] == {"lifecycle": "REGISTERED", "twin": {"position": 1}}
    assert after["asset"] == {"lifecycle": "IN_SERVICE", "twin": {"position": 2}}


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("{ log { position }", "graphql.syntax"),
        ("{ colour }", "graphql.invalid"),
        ("query A { log { position } } query B { log { ledger } }", "operation.ambiguous"),
        ("query($n: Int!) { assets(first: $n) { position } }", "graphql.invalid"),
        ("{" * 3000, "graphql.syntax"),
    ],
)
async def test_operation_that_cannot_be_executed_ends_alone(
    empty_server: Server, document: str, code: str
) -> None:
    async with empty_server.socket() as socket:
        await socket.subscribe(document, "bad")
        error = await socket.error("bad")
        assert error["extensions"]["code"] == code

        # Its id is free again, and the socket serves on.
        await socket.subscribe(POSITION, "bad")
        assert await socket.next("bad") == {"log": {"position": 0}}


async def test_malformed_actor_ends_the_operation(empty_server: Server) -> None:
    async with empty_server.socket({"X-Heddle-Actor": "a b"}) as socket:
        await socket.subscribe(POSITION)

        assert (await socket.error())["extensions"]["code"] == "actor.malformed_name"


async def test_unexpected_failure_is_masked(
    empty_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("swordfish")

    caplog.set_level(logging.ERROR)
    async with empty_server.socket() as socket:
        monkeypatch.setattr("eventlog.ledger.Ledger.head", fail)
        await socket.subscribe("subscription { events { cursor } }", "1")
        error = await socket.error("1")
        await socket.subscribe(POSITION, "2")
        message = await socket.receive()

    assert message["type"] == "next"
    assert message["payload"]["data"] is None
    for found in (error, message["payload"]["errors"][0]):
        assert found["message"] == "internal error"
        assert found["extensions"]["code"] == "internal"
    assert len([r for r in caplog.records if r.name == "heddle.graphql"]) == 2


async def test_ping_is_answered(empty_server: Server) -> None:
    async with empty_server.socket() as socket:
        await socket.send({"type": "ping"})
        assert await socket.receive() == {"type": "pong"}
        await socket.send({"type": "pong"})
        await socket.subscribe(POSITION)
        await socket.next()


@pytest.mark.parametrize(
    "message",
    [
        1,
        None,
        "text",
        [],
        {},
        {"type": 1},
        {"type": "greet"},
        {"type": "x" * 500},
        {"type": "subscribe"},
        {"type": "subscribe", "id": 1, "payload": {"query": POSITION}},
        {"type": "subscribe", "id": "", "payload": {"query": POSITION}},
        {"type": "subscribe", "id": "1"},
        {"type": "subscribe", "id": "1", "payload": None},
        {"type": "subscribe", "id": "1", "payload": {}},
        {"type": "subscribe", "id": "1", "payload": {"query": 1}},
        {"type": "subscribe", "id": "1", "payload": {"query": POSITION, "variables": []}},
        {"type": "subscribe", "id": "1", "payload": {"query": POSITION, "operationName": 1}},
        {"type": "complete"},
    ],
)
async def test_message_that_is_none_closes_the_socket(empty_server: Server, message: Any) -> None:
    async with empty_server.socket() as socket:
        await socket.send(message)
        code, reason = await socket.closed()

    assert code == 4400
    assert reason


@pytest.mark.parametrize("frame", ["{", "", b"\x00\x01", b'{"type": "ping"}'])
async def test_frame_that_is_no_json_text_closes_the_socket(
    empty_server: Server, frame: str | bytes
) -> None:
    async with empty_server.socket() as socket:
        await socket.connection.send(frame)
        code, _ = await socket.closed()

    assert code == 4400


async def test_operation_before_the_acknowledgement_closes_the_socket(
    empty_server: Server,
) -> None:
    async with empty_server.socket(initialise=False) as socket:
        await socket.subscribe(POSITION)
        assert (await socket.closed())[0] == 4401


async def test_second_initialisation_closes_the_socket(empty_server: Server) -> None:
    async with empty_server.socket() as socket:
        await socket.send({"type": "connection_init"})
        assert (await socket.closed())[0] == 4429


async def test_socket_that_is_never_initialised_is_closed(
    shared_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.graphql.endpoint.INIT_WAIT", timedelta(milliseconds=50))
    async with serving(shared_database_url) as server, server.socket(initialise=False) as socket:
        assert (await socket.closed())[0] == 4408


async def test_operation_id_that_is_in_use_closes_the_socket(empty_server: Server) -> None:
    async with empty_server.socket() as socket:
        identifier = "x" * 300
        await socket.subscribe("subscription { events { cursor } }", identifier)
        await socket.subscribe(POSITION, identifier)
        code, reason = await socket.closed()

    assert code == 4409
    assert reason is not None
    assert len(reason) <= 123


async def test_operations_of_a_socket_are_bounded(empty_server: Server) -> None:
    async with empty_server.socket() as socket:
        for number in range(101):
            await socket.subscribe("subscription { events { cursor } }", str(number))

        assert (await socket.error("100"))["message"] == "Subscription limit reached"


@pytest.mark.parametrize("protocols", [[], ["graphql-ws"], ["soap"]])
async def test_other_protocol_is_not_spoken(empty_server: Server, protocols: list[str]) -> None:
    async with connect(
        empty_server.url.replace("http", "ws", 1) + "/graphql",
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        proxy=None,
    ) as connection:
        async with asyncio.timeout(10):
            await connection.wait_closed()

    assert connection.close_code == 4406


async def test_page_of_another_origin_is_not_let_in(empty_server: Server) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with empty_server.socket({"Origin": "https://example.com"}):
            pass

    assert caught.value.response.status_code == 403
