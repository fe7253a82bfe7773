"""The uplink against a real server that fails in every way it is told to."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from starlette.responses import JSONResponse, Response

from domain.asset_types import asset_type
from domain.frame_checks import header_for
from domain.frame_encoding import encode
from domain.frames import build_frame
from edge_agent.outbox import Outbox, PendingFrame, open_outbox
from edge_agent.readings import Position
from edge_agent.settings import Settings
from edge_agent.uplink.frames import Backoff, Uplink
from edge_agent.uplink.http import RESPONSE_BYTES_MAX, open_http_transport, retry_after_s
from tests.edge_agent.frame_server import FrameServer, Verdict, serving, status

SOURCES = ("pump-1", "pump-2")


@pytest.fixture
def server() -> Iterator[FrameServer]:
    with serving(FrameServer()) as running:
        yield running


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with open_outbox(tmp_path, 10**9) as opened:
        opened.adopt("agent-1", {source: ["a.csv"] for source in SOURCES})
        yield opened


def put(outbox: Outbox, count: int, source: str = "pump-1", rows: int = 4) -> None:
    """Put `count` frames of `source`."""
    header = header_for(asset_type("skab-pump-loop"), source, "agent-1", [("flow", "l/min")])
    for _ in range(count):
        sequence = outbox.next_sequence
        clock = np.arange(rows, dtype=np.int64) + sequence * rows
        frame = build_frame(header, sequence, [clock], [np.sqrt(clock.astype(float))], [None])
        event_id = uuid.UUID(int=sequence)
        pending = PendingFrame(sequence, event_id, source, encode(frame))
        outbox.put(pending, Position(0, sequence, sequence))


def settings(server: FrameServer, **changes: float) -> Settings:
    quick = {"retry_delay_s_min": 0.001, "retry_delay_s_max": 0.01, "request_timeout_s": 5.0}
    return Settings(server_url=server.url, **(quick | changes))  # type: ignore[arg-type]


def send(outbox: Outbox, chosen: Settings, until: Callable[[Uplink], bool]) -> Uplink:
    """Run the uplink until `until` holds."""

    async def run() -> Uplink:
        async with open_http_transport(chosen) as transport:
            uplink = Uplink(outbox, transport, chosen, asyncio.Event(), asyncio.Event())
            running = asyncio.create_task(uplink.run())
            while not until(uplink) and not running.done():  # noqa: ASYNC110 (another thread's)
                await asyncio.sleep(0.002)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if running.done() and not running.cancelled():
                running.result()
            return uplink

    return asyncio.run(run())


def send_all(outbox: Outbox, chosen: Settings) -> Uplink:
    """Run the uplink until nothing waits."""
    return send(outbox, chosen, lambda _uplink: outbox.pending_count() == 0)


def test_frames_are_acknowledged_and_leave_the_outbox(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 5)
    uplink = send_all(outbox, settings(server))
    assert [sequence for _, sequence in server.stored] == [1, 2, 3, 4, 5]
    assert uplink.counts.accepted == 5
    told = outbox.status()
    assert (told.acknowledged_sequence, told.acknowledged_position) == (5, 5)


def test_batches_are_full(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 25)
    send_all(outbox, settings(server, batch_frames_max=10))
    assert server.batch_sizes == [10, 10, 5]


def test_body_stays_within_its_bytes(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 20, rows=100)
    send_all(outbox, settings(server, batch_bytes_max=4_000))
    lengths = [int(headers["content-length"]) for headers in server.headers]
    assert max(lengths) <= 4_000
    assert len(lengths) > 1


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 400, 401, 404, 415])
def test_failed_request_is_repeated_with_the_same_frames(
    server: FrameServer, outbox: Outbox, code: int
) -> None:
    put(outbox, 3)
    server.next_answers.extend([status(code), status(code)])
    uplink = send_all(outbox, settings(server))
    assert list(server.stored) == [("agent-1", 1), ("agent-1", 2), ("agent-1", 3)]
    assert uplink.counts.failed_requests == 2
    assert outbox.rejected_counts() == {}


def test_frames_whose_answer_was_lost_are_duplicates_the_second_time(
    server: FrameServer, outbox: Outbox
) -> None:
    put(outbox, 3)

    def store_and_fail(body: bytes) -> Response:
        server.record(body)
        return Response(status_code=503)

    server.next_answers.append(store_and_fail)
    uplink = send_all(outbox, settings(server))
    assert (uplink.counts.accepted, uplink.counts.duplicate) == (0, 3)
    assert len(server.stored) == 3


def test_server_that_is_not_there_is_waited_for(tmp_path: Path, outbox: Outbox) -> None:
    with serving(FrameServer()) as gone:
        port = int(gone.url.rpartition(":")[2])
    put(outbox, 2)
    send(outbox, settings(gone), lambda uplink: uplink.counts.failed_requests >= 3)
    assert outbox.pending_count() == 2
    with serving(FrameServer(), port) as back:
        send_all(outbox, settings(back))
    assert len(back.stored) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"<html>",
        b'{"results": 5}',
        b'{"results": [{"index": 0, "status": "perhaps"}]}',
        b'{"results": [{"index": 1, "sequence": 1, "status": "accepted"}]}',
        b'{"results": [{"index": 0, "sequence": 9, "status": "accepted"}]}',
        b'{"results": ' + b" " * RESPONSE_BYTES_MAX + b"[]}",
    ],
)
def test_answer_that_is_not_one_acknowledges_nothing(
    server: FrameServer, outbox: Outbox, answer: bytes
) -> None:
    put(outbox, 1)
    server.next_answers.extend([lambda _body: Response(answer)] * 1_000)
    send(outbox, settings(server), lambda uplink: uplink.counts.failed_requests >= 2)
    assert outbox.pending_count() == 1
    assert not server.stored
    server.next_answers.clear()
    send_all(outbox, settings(server))
    assert len(server.stored) == 1


def test_frames_damaged_on_the_way_are_sent_again_without_their_neighbours(
    server: FrameServer, outbox: Outbox
) -> None:
    put(outbox, 3)

    def damage_the_last(body: bytes) -> Response:
        return JSONResponse({"results": server.record(body[:-1] + bytes([body[-1] ^ 1]))})

    server.next_answers.append(damage_the_last)
    send_all(outbox, settings(server))
    assert server.batch_sizes == [3, 1]
    assert len(server.stored) == 3


def test_frames_cut_off_on_the_way_are_sent_again(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 4)

    def cut_off(body: bytes) -> Response:
        return JSONResponse({"results": server.record(body[: len(body) // 2])})

    server.next_answers.append(cut_off)
    send_all(outbox, settings(server))
    assert len(server.stored) == 4
    assert outbox.rejected_counts() == {}


def test_frames_beyond_what_a_batch_may_unpack_to_follow_at_once(
    server: FrameServer, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, 5)

    def take_two_more(_asset: str, sequence: int) -> Verdict | None:
        too_far = sequence > 2 * server.request_count
        return {"code": "batch.unpacks_too_far"} if too_far else None

    server.judge = take_two_more
    uplink = send_all(outbox, settings(server))
    assert server.batch_sizes == [5, 3, 1]
    assert uplink.counts.failed_requests == 0
    assert caplog.records == []


def test_body_too_large_for_the_server_is_halved(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 16, rows=100)
    server.body_bytes_max = 3_000
    send_all(outbox, settings(server))
    assert len(server.stored) == 16
    assert max(server.batch_sizes) > 1


def test_single_frame_too_large_for_the_server_is_put_aside(
    server: FrameServer, outbox: Outbox
) -> None:
    put(outbox, 1, rows=1_000)
    put(outbox, 2)
    server.body_bytes_max = 2_000
    send_all(outbox, settings(server))
    assert [sequence for _, sequence in server.stored] == [2, 3]
    assert outbox.rejected_counts() == {"uplink.http_413": 1}


def test_rejected_frame_is_put_aside_told_once_and_sent_when_queued_again(
    server: FrameServer, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, 4)

    def refuse_even(_asset: str, sequence: int) -> Verdict | None:
        return {"code": "unit.unknown"} if sequence % 2 == 0 else None

    server.judge = refuse_even
    with caplog.at_level(logging.INFO, "heddle.edge"):
        uplink = send_all(outbox, settings(server))
    assert [sequence for _, sequence in server.stored] == [1, 3]
    assert outbox.rejected_counts() == {"unit.unknown": 2}
    assert uplink.counts.rejected == 2
    assert sum("unit.unknown" in record.getMessage() for record in caplog.records) == 1
    server.judge = lambda _asset, _sequence: None
    assert outbox.retry_rejected() == 2
    send_all(outbox, settings(server))
    assert len(server.stored) == 4


def test_asset_nobody_registered_yet_holds_its_frames_and_no_others(
    server: FrameServer, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, 3, "pump-1")
    put(outbox, 3, "pump-2")
    registered = {"pump-2"}

    def judge(asset: str, _sequence: int) -> Verdict | None:
        return None if asset in registered else {"code": "asset.unknown"}

    server.judge = judge
    with caplog.at_level(logging.INFO, "heddle.edge"):
        chosen = settings(server, batch_frames_max=2)
        send(outbox, chosen, lambda _: outbox.pending_count() == 3 and server.request_count > 6)
        assert [sequence for _, sequence in server.stored] == [4, 5, 6]
        assert outbox.rejected_counts() == {}
        registered.add("pump-1")
        send_all(outbox, chosen)
    assert len(server.stored) == 6
    messages = [record.getMessage() for record in caplog.records]
    assert sum("until its asset is registered" in message for message in messages) == 1


def test_failure_is_told_once_and_its_recovery_once(
    server: FrameServer, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    put(outbox, 1)
    server.next_answers.extend([status(503), status(503), status(503), status(503)])
    with caplog.at_level(logging.INFO, "heddle.edge"):
        send_all(outbox, settings(server))
    messages = [record.getMessage() for record in caplog.records]
    assert sum("uplink.http_503" in message for message in messages) == 1
    assert sum("takes frames again" in message for message in messages) == 1


def test_pause_the_server_asks_for_is_kept(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 1)
    server.next_answers.append(status(429, **{"retry-after": "7"}))

    async def one_batch() -> float | None:
        chosen = settings(server)
        async with open_http_transport(chosen) as transport:
            uplink = Uplink(outbox, transport, chosen, asyncio.Event(), asyncio.Event())
            return await uplink.send_batch()

    assert asyncio.run(one_batch()) == 7.0


def test_request_carries_the_trace_it_belongs_to(server: FrameServer, outbox: Outbox) -> None:
    put(outbox, 1)
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        send_all(outbox, settings(server))
    assert server.headers[0]["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


def test_pause_is_bounded_and_a_malformed_one_is_none() -> None:
    assert retry_after_s("999999999") == 3600.0
    assert retry_after_s("soon") == 0.0
    assert retry_after_s("") == 0.0
    assert retry_after_s("-5") == 0.0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_s("Fri, 21 Oct 2129 07:28:00 GMT") == 3600.0


def test_pauses_grow_up_to_their_bound_and_differ() -> None:
    backoff = Backoff(1.0, 30.0, random.Random(3))
    delays = [backoff.next_delay_s() for _ in range(200)]
    for failures, delay_s in enumerate(delays):
        assert 0.0 <= delay_s <= min(30.0, 2.0**failures)
    assert max(delays) > 25.0
    assert len(set(delays)) == len(delays)


def test_server_that_never_answers_is_given_up_for_this_time(outbox: Outbox) -> None:
    put(outbox, 1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        silent = FrameServer(url=f"http://127.0.0.1:{listening.getsockname()[1]}")
        chosen = settings(silent, request_timeout_s=0.1)
        send(outbox, chosen, lambda uplink: uplink.counts.failed_requests > 0)
    assert outbox.pending_count() == 1


def test_result_of_more_frames_than_were_sent_is_no_harm(
    server: FrameServer, outbox: Outbox
) -> None:
    put(outbox, 1)

    def one_more(body: bytes) -> Response:
        trailing = {"index": 1, "status": "rejected", "code": "batch.trailing_bytes"}
        return Response(json.dumps({"results": [*server.record(body), trailing]}))

    server.next_answers.append(one_more)
    uplink = send_all(outbox, settings(server))
    assert uplink.counts.accepted == 1
