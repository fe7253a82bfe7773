"""Ingest: each frame of a batch gets its own answer, and what is acknowledged is stored once."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from api.app import projections
from domain.asset import DesireSetpoint, RegisterAsset, RetireAsset
from domain.events import encode_fact
from domain.frame_batches import BATCH_FRAMES_MAX, BATCH_MEDIA_TYPE, BatchItem, encode_batch
from domain.frame_encoding import encode
from domain.frames import ChannelHeader, Frame, FrameHeader, Quality, build_frame
from domain.ledger_events import PayloadsErased
from domain.records import CorrectRecord
from domain.time_quality import TimeQuality
from eventlog.corrections import handle_correction
from eventlog.reading import read_page, read_stream
from projections.telemetry.rollups import RollupProjection
from tests.api.ingest_server import (
    BODY_BYTES_MAX,
    FRAMES,
    FRAMES_PATH,
    PATIENCE_S,
    Served,
    as_stored,
    batch_of,
    item_of,
    results_of,
    serving,
    told,
)
from tests.eventlog.new_events import cut_connections, fact, opened
from tests.projections.loop_frames import (
    LOOP,
    SECOND_NS,
    loop_frame,
    register,
    seconds_ns,
    skab_frames,
)
from tests.projections.loop_frames import told as commanded

pytestmark = pytest.mark.anyio

FLOW = "flow"


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Served]:
    async with serving(database_url) as served:
        await register(served.ledger)
        yield served


def good(sequence: int, **changes: Any) -> Frame:
    """Return a frame that nothing is wrong with."""
    times = seconds_ns(sequence, sequence + 0.5)
    return loop_frame(sequence, times, {FLOW: [32.0, 32.5]}, **changes)


def with_channel(frame: Frame, **changes: Any) -> Frame:
    """Return `frame` with another header of its first channel, unchecked."""
    first, *others = frame.header.channels
    header = replace(frame.header, channels=(replace(first, **changes), *others))
    return Frame(header, frame.sequence, frame.clocks, frame.values, frame.qualities)


def with_values(frame: Frame, values: Sequence[float]) -> Frame:
    """Return `frame` with other values of its first channel, unchecked."""
    columns = (np.array(values), *frame.values[1:])
    return Frame(frame.header, frame.sequence, frame.clocks, columns, frame.qualities)


def with_asset(frame: Frame, asset: str) -> Frame:
    header = FrameHeader(asset, frame.header.agent, frame.header.channels)
    return Frame(header, frame.sequence, frame.clocks, frame.values, frame.qualities)


def unchecked(frame: Frame) -> bytes:
    """Return the bytes of a frame that no honest agent could have built."""
    with np.errstate(invalid="ignore"):
        return encode(frame)


# --- accepted and duplicate ---------------------------------------------------------------


async def test_a_real_recording_is_stored_as_it_was_sent(server: Served) -> None:
    frames = skab_frames("valve1/0", 60)
    results = await server.send(*frames)
    assert told(results) == ["accepted"] * len(frames)
    stored = await server.recorded()
    assert [r["position"] for r in results] == [event.position for event in stored]
    assert [r["sequence"] for r in results] == [frame.sequence for frame in frames]
    for frame, event in zip(frames, stored, strict=True):
        assert event.payload_sha256 == frame.canonical_sha256
        assert event.payload == encode(frame)
        assert event.stream == f"telemetry:{LOOP}"
        assert event.actor == "agent:agent-1"
        assert event.event_id == item_of(frame).event_id
        assert event.occurred_at.timestamp() == frame.window_end_ns / SECOND_NS


async def test_the_quality_of_times_is_part_of_what_is_recorded(server: Served) -> None:
    silent = good(1)
    said = replace(silent, header=replace(silent.header, time=TimeQuality("agent", True)))
    assert told(await server.send(said)) == ["accepted"]
    (stored,) = await server.recorded()
    assert stored.payload == encode(said)
    assert stored.payload_sha256 == said.canonical_sha256
    # Without it, it is another frame under the same number.
    assert told(await server.send(silent)) == ["source.sequence_reused"]


async def test_a_frame_that_is_sent_again_is_a_duplicate_at_its_first_position(
    server: Served,
) -> None:
    (first,) = await server.send(good(1))
    again = await server.send(good(2), good(1))
    assert told(again) == ["accepted", "duplicate"]
    assert again[1]["position"] == first["position"]
    assert await server.sequences() == [1, 2]


async def test_a_batch_that_is_sent_twice_is_recorded_once(server: Served) -> None:
    body = batch_of(*(good(n) for n in range(1, 31)))
    first = results_of(await server.post(body))
    second = results_of(await server.post(body))
    assert told(first) == ["accepted"] * 30
    assert told(second) == ["duplicate"] * 30
    assert [r["position"] for r in second] == [r["position"] for r in first]
    assert await server.sequences() == list(range(1, 31))


async def test_a_batch_that_is_sent_many_times_at_once_is_recorded_once(server: Served) -> None:
    body = batch_of(*(good(n) for n in range(1, 21)))
    answers = [
        results_of(answer)
        for answer in await asyncio.gather(*(server.post(body) for _ in range(8)))
    ]
    for n in range(20):
        statuses = sorted(told([answer[n]])[0] for answer in answers)
        assert statuses == ["accepted", *["duplicate"] * 7]
        assert len({answer[n]["position"] for answer in answers}) == 1
    assert sorted(await server.sequences()) == list(range(1, 21))


async def test_a_frame_twice_in_one_batch_is_recorded_once(server: Served) -> None:
    assert sorted(told(await server.send(good(1), good(1)))) == ["accepted", "duplicate"]
    assert await server.sequences() == [1]


async def test_a_frame_under_another_event_id_is_still_a_duplicate(server: Served) -> None:
    await server.send(good(1))
    other = encode_batch([BatchItem(uuid.uuid4(), encode(good(1)))])
    assert told(results_of(await server.post(other))) == ["duplicate"]


async def test_frames_out_of_order_are_accepted(server: Served) -> None:
    assert told(await server.send(good(3), good(1), good(2))) == ["accepted"] * 3
    assert sorted(await server.sequences()) == [1, 2, 3]


async def test_two_agents_number_their_frames_alike(server: Served) -> None:
    assert told(await server.send(good(1, agent="a"), good(1, agent="b"))) == ["accepted"] * 2


async def test_an_asset_registered_after_a_rejection_is_known_at_once(server: Served) -> None:
    frame = good(1, asset="loop-2")
    assert told(await server.send(frame)) == ["asset.unknown"]
    await register(server.ledger, "loop-2")
    assert told(await server.send(frame)) == ["accepted"]


# --- rejected, frame by frame -------------------------------------------------------------

FUTURE_NS = (int(time.time()) + 3600) * SECOND_NS

NOISY = loop_frame(5, np.arange(400) * SECOND_NS, {FLOW: 32 + np.random.default_rng(0).random(400)})

REJECTED: dict[str, tuple[Frame | bytes, str, str]] = {
    "an asset nobody registered": (
        good(5, asset="loop-9"),
        "asset.unknown",
        "asset 'loop-9' is not registered",
    ),
    "a channel its type does not have": (
        with_channel(good(5), name="colour"),
        "channel.unknown",
        "asset type 'skab-pump-loop' has no channel 'colour'",
    ),
    "a unit nobody knows": (
        with_channel(good(5), unit="furlong"),
        "unit.unknown",
        "unit 'furlong' is not known",
    ),
    "a unit of another quantity": (
        with_channel(good(5), unit="bar", factor=1e5),
        "unit.quantity_mismatch",
        "unit 'bar' measures pressure, not volume_flow",
    ),
    "a factor that is not the unit's": (
        with_channel(good(5), factor=1e-3),
        "unit.conversion_mismatch",
        "channel 'flow' maps 'l/min' to SI by factor 0.001 and offset 0.0",
    ),
    "an offset that is not the unit's": (
        with_channel(good(5), offset=273.15),
        "unit.conversion_mismatch",
        "channel 'flow' maps 'l/min' to SI by factor 1.6666666666666667e-05 and offset 273.15",
    ),
    "text where numbers belong": (
        Frame(
            with_channel(good(5), unit="m3/s", factor=1.0, value_type="str").header,
            5,
            good(5).clocks,
            (np.array(["fast", "slow"], object),),
            good(5).qualities,
        ),
        "channel.wrong_type",
        "channel 'flow' holds number values, not those of type 'str'",
    ),
    "times whose quality contradicts itself": (
        Frame(
            replace(good(5).header, time=TimeQuality("agent", offset_ns=5)),
            5,
            good(5).clocks,
            good(5).values,
            good(5).qualities,
        ),
        "frame.time_quality",
        "the agent's clock has no offset to itself",
    ),
    "NaN that calls itself good": (
        unchecked(with_values(good(5), [32.0, np.nan])),
        "frame.value_not_finite",
        "channel 'flow' holds nan at index 1",
    ),
    "infinity that calls itself good": (
        unchecked(with_values(good(5), [-np.inf, 32.0])),
        "frame.value_not_finite",
        "channel 'flow' holds -inf at index 0",
    ),
    "a time far in the future": (
        loop_frame(5, [FUTURE_NS], {FLOW: [32.0]}),
        "frame.time_in_future",
        f"the frame ends at {FUTURE_NS} ns, more than 300.0 s ahead",
    ),
    "a time before 1970": (
        loop_frame(5, [-1, 1], {FLOW: [32.0, 32.0]}),
        "frame.time_before_1970",
        "the frame starts at -1 ns, before 1970",
    ),
    "garbage with a right checksum": (
        b"\x00\x01garbage" * 40,
        "frame.magic",
        "the bytes do not start as a frame does",
    ),
    "a frame cut short": (
        encode(good(5))[:10],
        "frame.truncated",
        "10 bytes are too few for a frame",
    ),
    "a frame whose body was harmed": (
        encode(NOISY)[:-12] + b"\xff" * 6 + encode(NOISY)[-6:],
        "frame.compression",
        "the frame does not unpack",
    ),
    "an empty frame": (b"", "frame.truncated", "0 bytes are too few for a frame"),
    "times that stand still": (
        unchecked(
            Frame(
                good(5).header,
                5,
                (np.array([2, 2], np.int64) * SECOND_NS,),
                good(5).values,
                good(5).qualities,
            )
        ),
        "frame.time_not_increasing",
        "time 2000000000 ns at index 1 does not follow 2000000000 ns",
    ),
}


@pytest.mark.parametrize("what", REJECTED)
async def test_a_bad_frame_is_rejected_and_its_neighbours_are_recorded(
    server: Served, what: str
) -> None:
    frame, code, message = REJECTED[what]
    results = await server.send(good(1), frame, good(2), frame, good(3))
    assert told(results) == ["accepted", code, "accepted", code, "accepted"]
    for result in (results[1], results[3]):
        assert result["message"].startswith(message)
        assert "position" not in result
    assert sorted(await server.sequences()) == [1, 2, 3]


async def test_a_retired_asset_s_frames_are_rejected(server: Served) -> None:
    await register(server.ledger, "loop-2")
    assert told(await server.send(good(1, asset="loop-2"))) == ["accepted"]
    await commanded(server.ledger, RetireAsset("loop-2", "worn out"))
    results = await server.send(good(2, asset="loop-2"), good(3))
    assert told(results) == ["asset.retired", "accepted"]
    assert results[0]["message"] == "asset 'loop-2' is retired and accepts nothing"


async def test_an_asset_is_followed_through_alerts_and_a_correction(server: Served) -> None:
    await register(server.ledger, "loop-2")
    assert told(await server.send(good(1, asset="loop-2"))) == ["accepted"]
    for n in range(2):
        await commanded(server.ledger, DesireSetpoint("loop-2", "flow", 0.001 + n * 1e-4))
        assert told(await server.send(good(2 + n, asset="loop-2"))) == ["accepted"]
    await commanded(server.ledger, RetireAsset("loop-2", "by mistake"))
    assert told(await server.send(good(4, asset="loop-2"))) == ["asset.retired"]
    (retired,) = await read_stream(server.ledger, "asset:loop-2", backwards=True, limit=1)
    withdrawal = CorrectRecord("asset:loop-2", retired.event_id, "it still runs")
    await handle_correction(server.ledger, withdrawal, actor="user:mara", event_id=uuid.uuid4())
    assert told(await server.send(good(5, asset="loop-2"))) == ["accepted"]


ERASURE = encode_fact(PayloadsErased("plant-1", (1,), "asked for", "a law"))
UNREADABLE: dict[str, dict[str, Any]] = {
    "of a type nobody knows": {"type": "asset.was_painted"},
    "of a newer version": {"schema_version": 9},
    "that is none of an asset's": {
        "type": "ledger.payloads_erased",
        "payload": ERASURE,
        "payload_sha256": hashlib.sha256(ERASURE).digest(),
    },
}


@pytest.mark.parametrize("what", UNREADABLE)
async def test_an_asset_with_an_unreadable_fact_is_rejected_alone(
    server: Served, what: str
) -> None:
    await register(server.ledger, "loop-2")
    await server.ledger.append([fact("odd", "asset:loop-2", **UNREADABLE[what])])
    other = good(1, asset="loop-2", agent="agent-2")
    for _ in range(2):  # what cannot be read is not remembered as something else
        results = await server.send(good(1), other, good(2))
        assert [t for t in told(results) if t not in ("accepted", "duplicate")] == [
            "asset.unreadable"
        ]
        assert results[1]["message"].startswith("what is recorded of asset 'loop-2' cannot be read")
    assert await server.sequences() == [1, 2]


async def test_a_duplicate_a_conflict_and_a_new_frame_in_one_batch_each_get_their_own(
    server: Served,
) -> None:
    await server.send(good(1), good(2))
    reused = loop_frame(2, seconds_ns(9), {FLOW: [31.0]})
    results = await server.send(good(3), good(1), reused, good(3), good(4))
    assert told(results) == [
        "accepted",
        "duplicate",
        "source.sequence_reused",
        "duplicate",
        "accepted",
    ]
    assert results[3]["position"] == results[0]["position"]
    assert await server.sequences() == [1, 2, 3, 4]


async def test_a_sequence_with_other_content_is_rejected(server: Served) -> None:
    await server.send(good(1))
    other = loop_frame(1, seconds_ns(9), {FLOW: [31.0]})
    results = await server.send(good(2), other, good(3))
    assert told(results) == ["accepted", "source.sequence_reused", "accepted"]
    assert results[1]["message"].startswith(
        "sequence 1 of 'agent:agent-1' is recorded with other content at position 2"
    )
    hashes = [event.payload_sha256 for event in await server.recorded()]
    assert hashes == [frame.canonical_sha256 for frame in (good(1), good(2), good(3))]


async def test_an_event_id_with_other_content_is_rejected(server: Served) -> None:
    await server.send(good(1))
    lying = BatchItem(item_of(good(1)).event_id, encode(good(2)))
    results = results_of(await server.post(encode_batch([lying, item_of(good(3))])))
    assert told(results) == ["event.id_reused", "accepted"]


async def test_a_frame_that_was_harmed_on_its_way_is_told_by_its_checksum(
    server: Served,
) -> None:
    body = bytearray(batch_of(good(1), good(2), good(3)))
    body[body.index(encode(good(2))) + 20] ^= 1
    results = results_of(await server.post(bytes(body)))
    assert told(results) == ["accepted", "frame.checksum", "accepted"]
    assert await server.sequences() == [1, 3]


async def test_of_a_truncated_body_the_complete_frames_are_recorded(server: Served) -> None:
    body = batch_of(good(1), good(2), good(3), good(4))
    cut = body.index(encode(good(3))) + 10
    results = results_of(await server.post(body[:cut]))
    assert told(results) == ["accepted", "accepted", "batch.truncated"]
    assert results[2]["message"] == "the body ends before the last 2 frames of the batch"
    assert await server.sequences() == [1, 2]


async def test_bytes_behind_the_last_frame_are_told_and_harm_nothing(server: Served) -> None:
    results = results_of(await server.post(batch_of(good(1)) + b"more"))
    assert told(results) == ["accepted", "batch.trailing_bytes"]
    assert results[1]["message"] == "4 bytes follow the last frame of the batch"


async def test_a_length_beyond_all_bounds_ends_the_batch(server: Served) -> None:
    items = batch_of(good(1), good(2))
    at = items.index(encode(good(2))) - 24
    broken = items[:at] + struct.pack("<I", 2**32 - 1) + items[at + 4 :]
    results = results_of(await server.post(broken))
    assert told(results) == ["accepted", "batch.truncated"]


async def test_frames_that_unpack_too_far_are_rejected_before_they_are_unpacked(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.ingest.UNPACKED_BYTES_MAX", 40_000)
    length = 2_000
    long = loop_frame(9, np.arange(length) * SECOND_NS, {FLOW: np.full(length, 32.0)})
    long_too = loop_frame(8, np.arange(length) * SECOND_NS, {FLOW: np.full(length, 31.0)})
    results = await server.send(good(1), long, long_too, good(2))
    assert told(results) == ["accepted", "accepted", "batch.unpacks_too_far", "accepted"]
    assert told(await server.send(long_too)) == ["accepted"]


# --- out of physical range ----------------------------------------------------------------


async def test_what_is_out_of_physical_range_is_stored_as_delivered_and_marked(
    server: Served,
) -> None:
    frame = loop_frame(
        1,
        seconds_ns(0, 1, 2, 3),
        {FLOW: [32.0, 1e6, -1.0, np.nan], "supply_voltage": [230.0, 231.0, 232.0, 233.0]},
        qualities={FLOW: [0, 0, 1, 3]},
    )
    assert told(await server.send(frame)) == ["accepted"]
    (event,) = await server.recorded()
    stored = event.frame
    assert stored.values[0].tobytes() == as_stored(frame).values[0].tobytes()
    assert stored.qualities[0].tolist() == [
        Quality.GOOD,
        Quality.BAD,
        Quality.BAD,
        Quality.MISSING,
    ]
    assert not stored.qualities[1].any()
    assert told(await server.send(frame)) == ["duplicate"]
    assert len(await server.recorded()) == 1


async def test_a_value_that_no_si_number_can_hold_is_marked_too(server: Served) -> None:
    frame = loop_frame(1, seconds_ns(0, 1), {"accelerometer_1": [1e308, 0.5]})
    assert told(await server.send(good(2), frame)) == ["accepted", "accepted"]
    await server.folded()
    assert {runner.failure for runner in server.services.runners.values()} == {None}


# --- whole requests -----------------------------------------------------------------------


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:heddle:error:{code}"
    return body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "batch.malformed"),
        (b"{}", "batch.malformed"),
        (b"\xff" * 5000, "batch.malformed"),
        (b"HDB\x02" + struct.pack("<I", 1), "batch.version"),
        (b"HDB\x01" + struct.pack("<I", 0), "batch.too_many_frames"),
        (b"HDB\x01" + struct.pack("<I", BATCH_FRAMES_MAX + 1), "batch.too_many_frames"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(server: Served, body: bytes, code: str) -> None:
    assert_problem(await server.post(body), 400, code)
    assert await server.recorded() == []


async def test_a_batch_of_as_many_frames_as_are_allowed_is_taken(server: Served) -> None:
    times = seconds_ns(0)
    frames = [loop_frame(n, times, {FLOW: [32.0]}) for n in range(1, BATCH_FRAMES_MAX + 1)]
    assert told(await server.send(*frames)) == ["accepted"] * BATCH_FRAMES_MAX


@pytest.mark.parametrize("given", ["application/json", "application/vnd.heddle.frame", ""])
async def test_another_content_type_is_refused(server: Served, given: str) -> None:
    response = await server.http.post(
        FRAMES_PATH, content=batch_of(good(1)), headers={"content-type": given}
    )
    problem = assert_problem(response, 415, "body.content_type")
    assert (problem["value"], problem["limit"]) == (given, BATCH_MEDIA_TYPE)
    assert await server.recorded() == []


async def test_the_content_type_may_carry_parameters_and_capitals(server: Served) -> None:
    response = await server.http.post(
        FRAMES_PATH,
        content=batch_of(good(1)),
        headers={"content-type": "Application/VND.heddle.frames; v=1"},
    )
    assert told(results_of(response)) == ["accepted"]


async def test_a_body_over_the_limit_is_refused_by_its_length(server: Served) -> None:
    problem = assert_problem(await server.post(bytes(BODY_BYTES_MAX + 1)), 413, "body.too_large")
    assert (problem["value"], problem["limit"]) == (BODY_BYTES_MAX + 1, BODY_BYTES_MAX)
    assert told(await server.send(good(1))) == ["accepted"]


async def test_a_body_without_a_length_is_refused_as_soon_as_it_is_too_long(
    server: Served,
) -> None:
    url = server.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST {FRAMES_PATH} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: {BATCH_MEDIA_TYPE}\r\n"
    )
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(BODY_BYTES_MAX // 50_000 + 1):
        writer.write(b"%x\r\n" % 50_000 + bytes(50_000) + b"\r\n")
    # The body goes on for ever; the answer comes all the same.
    async with asyncio.timeout(PATIENCE_S):
        status = await reader.readline()
        answer = await reader.readuntil(b"}")
    writer.close()
    assert status.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert b'"code":"body.too_large"' in answer
    assert told(await server.send(good(1))) == ["accepted"]


async def test_a_chunked_batch_within_the_limit_is_taken(server: Served) -> None:
    body = batch_of(good(1), good(2))

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 50):
            yield body[at : at + 50]

    response = await server.http.post(
        FRAMES_PATH, content=chunks(), headers={"content-type": BATCH_MEDIA_TYPE}
    )
    assert told(results_of(response)) == ["accepted", "accepted"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_answered(server: Served, method: str) -> None:
    response = await server.http.request(method, FRAMES_PATH)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


async def test_an_answer_stays_small_whatever_was_sent(server: Served) -> None:
    endless = unchecked(with_asset(good(1), "a" * 60_000))
    response = await server.post(batch_of(*[endless] * 200))
    assert told(results_of(response)) == ["asset.malformed_name"] * 200
    assert len(response.content) < 200 * 1_500


# --- traces -------------------------------------------------------------------------------

TRACE = "0af7651916cd43dd8448eb211c80319c"


async def test_the_traceparent_of_a_request_stays_with_its_events(server: Served) -> None:
    await server.post(batch_of(good(1)), traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    await server.post(batch_of(good(2)))
    await server.post(batch_of(good(3)), traceparent="nonsense")
    first, second, third = (event.traceparent for event in await server.recorded())
    assert first is not None
    assert first.split("-")[1] == TRACE
    assert (second, third) == (None, None)


# --- many agents, and a database that goes away -------------------------------------------


async def test_twenty_agents_at_once_have_every_frame_recorded_once(server: Served) -> None:
    async def agent(name: str) -> None:
        for at in range(1, 31, 10):
            frames = [good(n, agent=name) for n in range(at, at + 10)]
            assert told(await server.send(*frames)) == ["accepted"] * 10

    await asyncio.gather(*(agent(f"agent-{n}") for n in range(20)))
    recorded = [(e.frame.header.agent, e.frame.sequence) for e in await server.recorded()]
    assert sorted(recorded) == sorted((f"agent-{n}", s) for n in range(20) for s in range(1, 31))


async def send_until_acknowledged(server: Served, frames: Sequence[Frame]) -> None:
    """Send `frames` again, as an agent does, until each was accepted or is a duplicate."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            response = await server.post(batch_of(*frames))
            if response.status_code == 200:
                assert set(told(results_of(response))) <= {"accepted", "duplicate"}
                return
            assert_problem(response, 503, "ledger.unavailable")
            assert response.headers["retry-after"] == "2"
            await asyncio.sleep(0.01)


async def test_frames_are_recorded_once_although_the_database_cuts_every_connection(
    server: Served, database_url: str
) -> None:
    async def cut() -> int:
        cuts = 0
        async with opened(database_url, "plant-2") as other:
            for _ in range(8):
                cuts += await cut_connections(other.pool)
                await asyncio.sleep(0.1)
        return cuts

    async def agent(name: str) -> None:
        for at in range(1, 41, 4):
            await send_until_acknowledged(server, [good(n, agent=name) for n in range(at, at + 4)])

    cutting = asyncio.create_task(cut())
    await asyncio.gather(*(agent(f"agent-{n}") for n in range(5)))
    assert await cutting > 5
    # Connections of the server's pool may still have to find out that they were cut.
    async with opened(database_url) as after:
        frames = await read_page(after, 0, limit=2_000, wanted=FRAMES)
        recorded = [(event.frame.header.agent, event.frame.sequence) for event in frames]
        assert sorted(recorded) == sorted((f"agent-{n}", s) for n in range(5) for s in range(1, 41))
        head = await after.head()
        for runner in server.services.runners.values():
            await runner.wait_for(head, PATIENCE_S)
        counted = await after.pool.fetchval(
            "select sum(reading_count) from telemetry_rollup where resolution_s = 3600"
        )
        # Five agents tell of the same moments, and a moment counts once.
        assert counted == 40 * 2


async def test_a_ledger_that_shuts_down_says_not_now_instead_of_rejecting(
    server: Served,
) -> None:
    await server.ledger.close()
    response = await server.post(batch_of(good(1)))
    assert_problem(response, 503, "ledger.closed")


# --- the clock ----------------------------------------------------------------------------


async def test_a_frame_may_be_ahead_of_the_server_s_clock_by_so_much_and_no_more(
    database_url: str,
) -> None:
    now = datetime(2020, 3, 9, 12, 0, tzinfo=UTC)
    async with serving(database_url, now) as server:
        await register(server.ledger)
        at_limit = loop_frame(1, seconds_ns(300), {FLOW: [32.0]})
        beyond = loop_frame(2, seconds_ns(300.001), {FLOW: [32.0]})
        assert told(await server.send(at_limit, beyond)) == ["accepted", "frame.time_in_future"]


# --- health -------------------------------------------------------------------------------


async def test_a_running_server_says_that_it_is_alive(server: Served) -> None:
    response = await server.http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_a_server_that_can_serve_is_ready_and_says_how_far_it_is(server: Served) -> None:
    await server.send(good(1))
    await server.folded()
    response = await server.http.get("/readyz")
    assert response.status_code == 200
    told_ready = response.json()
    assert (told_ready["status"], told_ready["reasons"]) == ("ready", [])
    assert (told_ready["ledger"], told_ready["position"]) == ("plant-1", 2)
    assert set(told_ready["projections"]) == {projection.name for projection in projections()}
    for standing in told_ready["projections"].values():
        assert standing.pop("events_per_s") > 0
        assert standing == {"position": 2, "lag": 0, "active": True, "failure": None}


async def test_a_projection_that_stopped_shows_and_ingest_goes_on(server: Served) -> None:
    poison = fact(1, "asset:loop-7", type="asset.alert_raised", schema_version=9)
    await server.ledger.append([poison])
    await server.services.runners[RollupProjection.name].wait_for(2, PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            told_ready = (await server.http.get("/readyz")).json()
            projections = told_ready["projections"]
            if projections["alerts"]["failure"] and projections["twins"]["failure"]:
                break
            await asyncio.sleep(0.02)
    assert told_ready["status"] == "degraded"
    assert told_ready["projections"]["alerts"]["lag"] > 0
    assert "event.unknown_version" in told_ready["projections"]["alerts"]["failure"]
    assert told_ready["projections"]["rollups"]["failure"] is None
    assert told(await server.send(good(1))) == ["accepted"]


async def test_a_server_without_its_database_is_alive_and_not_ready(server: Served) -> None:
    await server.ledger.pool.close()
    response = await server.http.get("/readyz")
    assert response.status_code == 503
    assert response.json()["status"] == "unavailable"
    assert response.json()["reasons"][0].startswith("the database cannot be reached: ")
    assert (await server.http.get("/healthz")).status_code == 200


# --- what is no measured number -----------------------------------------------------------


async def test_texts_flags_and_codes_are_recorded_as_they_were_sent(server: Served) -> None:
    lathe = RegisterAsset("lathe-1", "production-machine", "Lathe 1")
    await commanded(server.ledger, lathe)
    kinds = (("program", "str"), ("running", "b1"), ("alarm_code", "i8"))
    channels = tuple(ChannelHeader(name, "1", 1.0, 0.0, kind) for name, kind in kinds)
    frame = build_frame(
        FrameHeader("lathe-1", "agent-1", channels),
        1,
        [np.arange(2) * SECOND_NS],
        [
            np.array(["O1", "O2"], object),
            np.array([True, False]),
            # Out of range, and exact all the same: no float64 is this number.
            np.array([7, 2**53 + 1]),
        ],
        [None, None, None],
    )
    assert told(await server.send(frame)) == ["accepted"]
    (stored,) = await server.recorded()
    received = stored.frame
    assert [column.tolist() for column in received.values] == [
        ["O1", "O2"],
        [True, False],
        [7, 2**53 + 1],
    ]
    assert received.qualities[2].tolist() == [Quality.GOOD, Quality.BAD]
