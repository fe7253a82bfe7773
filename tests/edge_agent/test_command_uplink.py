"""Commands to a real server: in order, once, past what spoils them, and kept when refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from edge_agent.outbox import AgentCommand, Outbox, open_outbox
from edge_agent.settings import Settings
from edge_agent.uplink.commands import CommandUplink
from edge_agent.uplink.http import open_http_transport
from tests.edge_agent.frame_server import FrameServer, serving, status


@pytest.fixture
def server() -> Iterator[FrameServer]:
    with serving(FrameServer()) as running:
        yield running


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with open_outbox(tmp_path, 10**9) as opened:
        opened.adopt("agent-1", {}, live={"pump-1": "pump-1"})
        yield opened


def put(outbox: Outbox, *keys: str, mutation: str = "reportSetpoint") -> None:
    outbox.put_commands([AgentCommand(mutation, {"assetId": "pump-1"}, key) for key in keys])


def send(
    server: FrameServer, outbox: Outbox, until: Callable[[CommandUplink], bool] | None = None
) -> CommandUplink:
    """Run the uplink until `until` holds, or nothing waits."""

    async def run() -> CommandUplink:
        settings = Settings(server_url=server.url, retry_delay_s_min=0.001, retry_delay_s_max=0.01)
        async with open_http_transport(settings) as transport:
            uplink = CommandUplink(outbox, transport, settings)
            running = asyncio.create_task(uplink.run())
            while not (until(uplink) if until else not len(outbox.commands)):
                assert not running.done()
                await asyncio.sleep(0.002)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return uplink

    return asyncio.run(run())


def keys(server: FrameServer) -> list[str]:
    return [item["reportSetpoint"]["idempotencyKey"] for item in server.commands]


def key_of(item: dict[str, Any]) -> str:
    ((_, given),) = item.items()
    key: str = given["idempotencyKey"]
    return key


def test_commands_are_sent_in_order_and_leave_the_outbox(
    server: FrameServer, outbox: Outbox
) -> None:
    put(outbox, *(f"k{number}" for number in range(250)))
    uplink = send(server, outbox)
    assert keys(server) == [f"k{number}" for number in range(250)]
    assert server.command_batches == [200, 50], "as many as the server takes at once"
    assert uplink.counts.carried_out == 250


@pytest.mark.parametrize("code", [429, 500, 503, 401])
def test_failed_request_is_repeated_with_the_same_keys(
    server: FrameServer, outbox: Outbox, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, "a", "b")
    server.next_answers.extend([status(code)] * 3)
    with caplog.at_level(logging.INFO):
        uplink = send(server, outbox)
    assert keys(server) == ["a", "b"]
    assert uplink.counts.failed_requests == 3
    told = [record.getMessage() for record in caplog.records]
    assert sum("takes no commands" in message for message in told) == 1
    assert sum("takes commands again" in message for message in told) == 1


def test_refused_command_is_put_aside_and_its_neighbours_go_on(
    server: FrameServer, outbox: Outbox
) -> None:
    server.judge_command = lambda item: (
        {"__typename": "RejectedError", "code": "asset.retired", "message": "no"}
        if key_of(item) == "b"
        else None
    )
    put(outbox, "a", "b", "c")
    send(server, outbox)
    assert keys(server) == ["a", "c"]
    assert outbox.status().rejected_command_counts == {"asset.retired": 1}


def test_command_for_an_asset_nobody_knows_yet_waits_behind_the_others(
    server: FrameServer, outbox: Outbox
) -> None:
    known = False
    server.judge_command = lambda item: (
        {"__typename": "NotFoundError", "code": "asset.unknown", "message": "no"}
        if key_of(item) == "a" and not known
        else None
    )
    put(outbox, "a", "b")
    send(server, outbox, lambda uplink: uplink.counts.deferred >= 3)
    put(outbox, "c")
    send(server, outbox, lambda uplink: uplink.counts.carried_out == 1)
    known = True
    send(server, outbox)
    assert keys(server) == ["b", "c", "a"]


def test_command_that_spoils_its_request_is_found_and_put_aside(
    server: FrameServer, outbox: Outbox
) -> None:
    server.judge_command = lambda item: (
        {"spoils": "document.invalid"} if key_of(item) == "k13" else None
    )
    put(outbox, *(f"k{number}" for number in range(20)))
    send(server, outbox)
    assert sorted(keys(server)) == sorted(f"k{n}" for n in range(20) if n != 13)
    assert outbox.status().rejected_command_counts == {"uplink.refused": 1}


def test_answer_to_something_else_is_not_believed(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, "a")
    bodies: list[Any] = [{}, {"data": None}, {"data": {"batch": {"items": []}}}, []]
    bodies.append({"errors": [{"message": "internal"}]})
    answers = [JSONResponse(body) for body in bodies]
    server.next_answers.extend([lambda _: answers.pop(0)] * len(bodies))
    uplink = send(server, outbox)
    assert keys(server) == ["a"]
    assert uplink.counts.failed_requests == 5
    assert outbox.status().rejected_command_counts == {}
