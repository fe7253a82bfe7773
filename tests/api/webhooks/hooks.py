"""Servers that deliver webhooks, and the requests that tests send them."""

from __future__ import annotations

import asyncio
import ipaddress
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from api.app import projections
from api.webhooks.run import WebhookRun
from projections.running.projection import Policy
from tests.api.graphql.server import Server, serving

WAIT_S: Final = 20.0
LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"),)
EVENTS: Final = (
    "subscription($types: [String!]) { events(filter: {types: $types}) "
    "{ cursor event { position type stream fact } } }"
)
COMMON: Final = "__typename ... on Error { code message value limit path }"
SETTINGS: Final[dict[str, Any]] = {
    "webhook_http": True,
    "webhook_networks": LOOPBACK,
    "webhook_ports": ((1024, 65_535),),
    "webhook_retry_s_max": 0.2,
    "graphql_rate": 1e9,
    "graphql_burst": 1e9,
}


@asynccontextmanager
async def hooking(url: str, **settings: Any) -> AsyncIterator[Server]:
    """Serve, and deliver webhooks."""
    folded = [each for each in projections() if not isinstance(each, Policy)]
    async with (
        serving(url, projections=folded, **(SETTINGS | settings)) as server,
        server.application.webhooks.running(),
    ):
        yield server


async def send(
    server: Server, mutation: str, selected: str = "", *, key: str | None = None, **input: Any
) -> dict[str, Any]:
    """Return what became of a mutation; `authorization` among `input` says who asks."""
    headers = {"authorization": input.pop("authorization")} if "authorization" in input else {}
    title = mutation[0].upper() + mutation[1:]
    told = f"... on {title}Success {{ version duplicate dryRun position {selected} }}"
    answer = await server.post(
        f"mutation($input: {title}Input!) {{ {mutation}(input: $input) {{ {COMMON} {told} }} }}",
        {"input": {"idempotencyKey": key or str(uuid.uuid4()), **input}},
        **headers,
    )
    assert "errors" not in answer, answer["errors"]
    result: dict[str, Any] = answer["data"][mutation]
    return result


async def done(server: Server, mutation: str, selected: str = "", **input: Any) -> dict[str, Any]:
    """Return the success of a mutation, which must succeed."""
    result = await send(server, mutation, selected, **input)
    assert result["__typename"].endswith("Success"), result
    return result


async def create(server: Server, url: str, document: str = EVENTS, **more: Any) -> tuple[str, str]:
    """Create a webhook; return its id and its secret."""
    result = await done(
        server,
        "createWebhook",
        "secret webhook { webhookId }",
        title="A receiver",
        url=url,
        document=document,
        **more,
    )
    return result["webhook"]["webhookId"], result["secret"]


async def state(server: Server, webhook_id: str, **headers: str) -> dict[str, Any]:
    """Return a webhook with its backlog and its newest deliveries."""
    answer = await server.post(
        """query($id: ID!) { webhook(webhookId: $id) {
            title url mode status stopCode stopReason keyId version createdBy
            secrets { secretId validUntil } backlog { plannedTo lag pending dead }
            deliveries(first: 100) { nodes { deliveryId messageId eventType subject position state
                attempts statusCode durationS failureCode failure nextTryAt isTest }
                pageInfo { hasNextPage endCursor } } } }""",
        {"id": webhook_id},
        **headers,
    )
    assert "errors" not in answer, answer["errors"]
    found: dict[str, Any] = answer["data"]["webhook"]
    return found


async def until(
    server: Server, webhook_id: str, is_so: Callable[[dict[str, Any]], bool], **headers: str
) -> dict[str, Any]:
    """Return how a webhook stands once that is as wanted."""
    deadline = time.monotonic() + WAIT_S
    while not is_so(found := await state(server, webhook_id, **headers)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def until_at_work(server: Server, is_so: Callable[[list[WebhookRun]], bool]) -> None:
    """Return once the webhooks that the server serves are as wanted."""
    async with asyncio.timeout(WAIT_S):
        while not is_so(list(server.application.webhooks.runs)):  # noqa: ASYNC110 (it is polled)
            await asyncio.sleep(0.02)
