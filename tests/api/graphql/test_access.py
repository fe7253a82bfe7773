"""Identities over HTTP and WebSocket, as they come and as they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.access import authentication, validity
from api.access.keys import ApiKey, create_key, revoke_key
from api.access.rights import Role
from domain.asset import RegisterAsset
from domain.frame_batches import BATCH_MEDIA_TYPE
from tests.api.access.identity_provider import AUDIENCE, Provider, provider
from tests.api.graphql.server import PUMP_TYPE, Server, frame_of, serving
from tests.api.ingest_server import batch_of, told

pytestmark = pytest.mark.anyio

EVENTS = "subscription { events { event { stream } } }"
LOG = "{ log { position } }"


@pytest.fixture
def idp() -> Any:
    with provider() as served:
        yield served


@pytest.fixture
async def guarded(
    shared_database_url: str, idp: Provider, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    """A server that takes tokens and keys, on a ledger of its own."""
    async with serving(
        shared_database_url,
        ledger=f"guarded-{abs(hash(request.node.name)) % 10**9}",
        api_keys=True,
        oidc_issuer=idp.issuer,
        oidc_audience=AUDIENCE,
        oidc_leeway_s=0.0,
    ) as server:
        yield server


async def key_of(server: Server, *roles: Role, **changes: Any) -> tuple[str, ApiKey]:
    given: dict[str, Any] = {
        "name": "gateway-1",
        "locations": None,
        "assets": None,
        "expires_at": None,
        **changes,
    }
    return await create_key(
        server.ledger, roles=roles, created_by="user:test", now=datetime.now(UTC), **given
    )


def bearer(proof: str) -> dict[str, str]:
    return {"authorization": f"Bearer {proof}"}


async def test_what_is_done_bears_the_name_of_whoever_was_recognised(
    guarded: Server, idp: Provider
) -> None:
    token = idp.token({"roles": ["engineer"]})
    mutation = """mutation($key: String!) { registerAsset(input: {idempotencyKey: $key,
        assetId: "loop-1", assetType: "skab-pump-loop", title: "Loop"}) { __typename } }"""
    answer = await guarded.post(
        mutation, {"key": "k1"}, **bearer(token), **{"x-heddle-actor": "somebody-else"}
    )
    assert answer["data"]["registerAsset"]["__typename"] != "NotAllowedError", answer
    actors = await guarded.ledger.pool.fetch(
        "select distinct actor from event where ledger_id = $1 and stream = 'asset:loop-1'",
        guarded.ledger.ledger_id,
    )
    assert [row["actor"] for row in actors] == ["user:jane"]


async def test_a_socket_is_let_in_by_its_handshake_or_by_its_first_message(
    guarded: Server, idp: Provider
) -> None:
    async with guarded.socket(bearer(idp.token())) as socket:
        await socket.subscribe(LOG)
        assert (await socket.next())["log"]["position"] is not None
    async with guarded.socket(initialise=False) as socket:
        payload = {"authorization": f"Bearer {idp.token()}"}
        await socket.send({"type": "connection_init", "payload": payload})
        assert await socket.receive() == {"type": "connection_ack"}
        await socket.subscribe(LOG)
        assert (await socket.next())["log"]["position"] is not None


@pytest.mark.parametrize(
    "payload",
    [None, {}, {"authorization": "Bearer x.y.z"}, {"authorization": "Bearer hdl_nobody"}],
)
async def test_a_socket_of_nobody_is_closed_before_it_asks_anything(
    guarded: Server, payload: dict[str, str] | None
) -> None:
    async with guarded.socket(initialise=False) as socket:
        await socket.send({"type": "connection_init", "payload": payload})
        code, reason = await socket.closed()
    assert code == 4403
    assert (reason or "").startswith("access.unauthenticated")


async def test_a_subscription_is_refused_to_whoever_may_not_read(guarded: Server) -> None:
    text, _ = await key_of(guarded, Role.AGENT)
    async with guarded.socket(bearer(text)) as socket:
        await socket.subscribe(EVENTS)
        assert (await socket.error())["extensions"]["code"] == "access.denied"


async def test_a_subscription_ends_with_its_token(
    guarded: Server, idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validity, "CHECKED_EVERY_S", 0.1)
    ends = int(datetime.now(UTC).timestamp()) + 3
    async with guarded.socket(bearer(idp.token({"exp": ends}))) as socket:
        await socket.subscribe(EVENTS)
        await asyncio.sleep(0.2)
        await guarded.command(RegisterAsset("loop-1", PUMP_TYPE, "Loop"))
        assert (await socket.next())["events"]["event"]["stream"] == "asset:loop-1"
        assert (await socket.error())["extensions"]["code"] == "access.expired"
        assert datetime.now(UTC).timestamp() >= ends
        await socket.subscribe(EVENTS, id="2")
        assert (await socket.error("2"))["extensions"]["code"] == "access.expired"


async def test_a_subscription_ends_when_its_key_is_revoked(
    guarded: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validity, "CHECKED_EVERY_S", 0.1)
    monkeypatch.setattr(authentication, "KEY_KEPT_S", 0.1)
    text, key = await key_of(guarded, Role.VIEWER)
    async with guarded.socket(bearer(text)) as socket:
        await socket.subscribe(EVENTS)
        await asyncio.sleep(0.5)
        await revoke_key(
            guarded.ledger,
            key.key_id,
            reason="lost",
            revoked_by="user:test",
            now=datetime.now(UTC),
        )
        while True:  # the revocation is an event too, and may come before it counts
            message = await socket.receive()
            if message["type"] != "next":
                break
        assert message["type"] == "error"
        assert message["payload"][0]["extensions"]["code"] == "access.expired"


async def test_a_frame_of_anothers_asset_is_refused_alone(guarded: Server) -> None:
    await guarded.register("loop-1", "loop-2", commission=True)
    text, _ = await key_of(guarded, Role.AGENT, assets=["loop-1", "loop-3"])
    values = {"flow": ("l/min", [30.0, 31.0])}
    frames = [
        frame_of("loop-1", values),
        frame_of("loop-2", values),
        frame_of("loop-3", values),
        frame_of("loop-9", values),
        frame_of("loop-1", values, agent="gateway-2"),
        frame_of("loop-1", values),
    ]
    guarded.clock.move(3_600)
    response = await guarded.http.post(
        "/v1/frames",
        content=batch_of(*frames),
        headers={"content-type": BATCH_MEDIA_TYPE, **bearer(text)},
    )
    assert response.status_code == 200, response.text
    assert told(response.json()["results"]) == [
        "accepted",
        "access.denied",
        "asset.unknown",
        "access.denied",
        "access.denied",
        "accepted",
    ]


async def test_frames_are_taken_from_agents_alone(guarded: Server, idp: Provider) -> None:
    for headers, status, code in (
        ({}, 401, "access.unauthenticated"),
        (bearer(idp.token({"roles": ["engineer"]})), 403, "access.denied"),
    ):
        response = await guarded.http.post(
            "/v1/frames", content=b"", headers={"content-type": BATCH_MEDIA_TYPE, **headers}
        )
        assert (response.status_code, response.json()["code"]) == (status, code)


async def test_a_key_that_has_ended_is_told_so(guarded: Server) -> None:
    text, _ = await key_of(
        guarded, Role.VIEWER, expires_at=datetime.now(UTC) + timedelta(seconds=1)
    )
    assert "data" in await guarded.post(LOG, None, **bearer(text))
    await asyncio.sleep(1.2)
    response = await guarded.http.post("/graphql", json={"query": LOG}, headers=bearer(text))
    assert response.status_code == 401
    assert response.json()["errors"][0]["extensions"]["code"] == "access.expired"
