"""A server that is killed again and again while it delivers: nothing lost, nothing out of order."""

from __future__ import annotations

import asyncio
import random
import uuid
from pathlib import Path
from typing import Any, Final

import pytest
from starlette.responses import Response

from tests.api.webhooks.receiver import Received, receiving
from tests.end_to_end.processes import Server

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

KILLS: Final = 5
ASSETS: Final = 6
SETPOINTS: Final = 25
SEED: Final = 7
WAIT_S: Final = 120.0


def batch(server: Server, *items: dict[str, Any]) -> None:
    """Carry out commands, each once however often it is sent."""
    result = server.query(
        "mutation($input: BatchInput!) { batch(input: $input) { succeeded "
        "items { outcome { __typename ... on Error { code message } } } } }",
        input={"items": items},
    )["batch"]
    assert result["succeeded"] == len(items), result


def setpoint(asset: int, value: int) -> dict[str, Any]:
    return {
        "desireSetpoint": {
            "idempotencyKey": f"{asset}/{value}",
            "assetId": f"pump-{asset}",
            "setpoint": "flow",
            "value": 20 + value,
            "unit": "l/min",
        }
    }


async def test_a_server_that_is_killed_again_and_again_loses_and_reorders_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_WEBHOOK_HTTP", "yes")
    monkeypatch.setenv("HEDDLE_WEBHOOK_NETWORKS", "127.0.0.0/8")
    monkeypatch.setenv("HEDDLE_WEBHOOK_PORTS", "1024-65535")
    monkeypatch.setenv("HEDDLE_WEBHOOK_RETRY_S_MAX", "0.5")
    generator = random.Random(SEED)

    async def answer(_received: Received) -> Response:
        await asyncio.sleep(generator.uniform(0.0, 0.15))
        return Response(status_code=503 if generator.random() < 0.1 else 204)

    with Server(folder) as server:
        async with receiving() as receiver:
            receiver.answer = answer
            await asyncio.to_thread(server.start)
            for n in range(ASSETS):
                await asyncio.to_thread(server.register, f"pump-{n}")
            result = await asyncio.to_thread(
                server.query,
                "mutation($input: CreateWebhookInput!) { createWebhook(input: $input) "
                "{ ... on CreateWebhookSuccess { secret } ... on Error { message } } }",
                input={
                    "idempotencyKey": str(uuid.uuid4()),
                    "title": "A receiver",
                    "url": receiver.url,
                    "document": 'subscription { events(filter: {types: ["asset.setpoint_desired"]})'
                    " { event { position stream fact } } }",
                },
            )
            secret = result["createWebhook"]["secret"]
            for round_ in range(KILLS):
                due = range(round_ * SETPOINTS // KILLS, (round_ + 1) * SETPOINTS // KILLS)
                items = [setpoint(n, value) for value in due for n in range(ASSETS)]
                await asyncio.to_thread(batch, server, *items)
                await asyncio.sleep(generator.uniform(0.0, 0.6))
                server.kill()
                await asyncio.to_thread(server.start)
            wanted = ASSETS * SETPOINTS
            async with asyncio.timeout(WAIT_S):
                while len({r.message_id for r in receiver.taken}) < wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    assert all(received.signed_with(secret) for received in receiver.received)
    assert len({(r.message_id, r.body) for r in receiver.received}) == wanted
    for n in range(ASSETS):
        # As a receiver that passes over what it has had would see them.
        values: list[float] = []
        seen: set[str] = set()
        for received in receiver.taken:
            if received.event["subject"] == f"asset:pump-{n}" and received.message_id not in seen:
                seen.add(received.message_id)
                values.append(received.event["data"]["data"]["events"]["event"]["fact"]["value"])
        assert values == sorted(values)
        assert len(values) == SETPOINTS
