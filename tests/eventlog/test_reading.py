"""Pages of the log: bounded in events and in bytes, filtered, and whole when put together."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import InvalidInput
from eventlog.ledger import Ledger
from eventlog.reading import (
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    EventFilter,
    PayloadOf,
    read_event,
    read_frames,
    read_page,
    read_whole_stream,
    stream_versions,
)
from tests.eventlog.new_events import fact, frame_event, frame_of

pytestmark = pytest.mark.anyio

SECOND_NS = 1_000_000_000


async def positions(ledger: Ledger, wanted: EventFilter) -> list[int]:
    return [event.position for event in await read_page(ledger, 0, wanted=wanted)]


async def test_pages_put_together_are_the_log(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(25)])
    seen: list[int] = []
    while page := await read_page(ledger, seen[-1] if seen else 0, up_to=23, limit=7):
        assert len(page) <= 7
        seen += [event.position for event in page]
    assert seen == list(range(1, 24))


async def test_a_filter_wants_types_streams_and_categories(ledger: Ledger) -> None:
    await ledger.append(
        [
            fact(1),
            fact(2, "work-order:17"),
            frame_event(frame_of(1)),
            fact(3, "asset:loop-2"),
            fact(4, "asset-x:loop-2"),
        ]
    )
    assert await positions(ledger, EventFilter(types=("asset.frame_recorded",))) == [3]
    assert await positions(ledger, EventFilter(streams=("asset:loop-1", "work-order:17"))) == [1, 2]
    assert await positions(ledger, EventFilter(categories=("asset",))) == [1, 4]
    assert await positions(
        ledger, EventFilter(categories=("asset", "telemetry"), types=("asset.frame_recorded",))
    ) == [3]
    assert await positions(ledger, EventFilter(types=("no.such_type",))) == []


async def test_a_page_is_bounded_in_bytes_and_never_empty(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PAGE_BYTES_MAX == 16 * 1024 * 1024
    sizes = [300, 300, 300, 2_000, 100]
    await ledger.append([fact(n, payload=bytes(size)) for n, size in enumerate(sizes)])
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 700)
    pages, after = [], 0
    while page := await read_page(ledger, after):
        pages.append([event.position for event in page])
        after = page[-1].position
    assert pages == [[1, 2], [3], [4], [5]]
    without = await read_page(ledger, 0, payloads=PayloadOf.NONE)
    assert [event.payload for event in without] == [None] * 5


async def test_a_page_carries_the_payloads_that_were_asked_for(ledger: Ledger) -> None:
    await ledger.append([fact(1), frame_event(frame_of(1))])
    for payloads, carried in (
        (PayloadOf.ALL, [True, True]),
        (PayloadOf.FACTS, [True, False]),
        (PayloadOf.NONE, [False, False]),
    ):
        page = await read_page(ledger, 0, payloads=payloads)
        assert [event.payload is not None for event in page] == carried


@pytest.mark.parametrize("limit", [0, -1, PAGE_EVENTS_MAX + 1])
async def test_a_page_s_limit_is_bounded(ledger: Ledger, limit: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await read_page(ledger, 0, limit=limit)
    assert (refused.value.code, refused.value.value) == ("page.limit", limit)


async def test_one_event_is_read_by_its_position(ledger: Ledger) -> None:
    await ledger.append([fact(1), fact(2)])
    found = await read_event(ledger, 2)
    assert found is not None
    assert found.event_id == fact(2).event_id
    assert await read_event(ledger, 3) is None


async def test_a_whole_stream_is_read_page_by_page(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(700)])
    versions = [event.version async for event in read_whole_stream(ledger, "asset:loop-1")]
    assert versions == list(range(1, 701))


async def test_stream_versions_are_told_of_streams_that_exist(ledger: Ledger) -> None:
    await ledger.append([fact(1), fact(2), fact(3, "asset:loop-2")])
    found = await stream_versions(
        ledger.pool, ledger.ledger_id, ["asset:loop-1", "asset:loop-2", "asset:loop-3"]
    )
    assert found == {"asset:loop-1": 2, "asset:loop-2": 1}


async def test_frames_are_found_by_time_whatever_order_they_came_in(ledger: Ledger) -> None:
    order = np.random.default_rng(5).permutation(20)
    frames = [frame_of(int(n) + 1, start_ns=int(n) * SECOND_NS) for n in order]
    await ledger.append([frame_event(frame) for frame in frames])
    found = await read_frames(
        ledger,
        "telemetry:loop-1",
        start_ns=5 * SECOND_NS + 4_000,  # the last reading of frame 6
        end_ns=9 * SECOND_NS,  # the first of frame 10
        limit=100,
    )
    assert [event.frame.sequence for event in found] == [6, 7, 8, 9, 10]


async def test_frames_that_end_together_are_all_read_whatever_the_page(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame_of(n + 1, agent=f"agent-{agent}") for n in range(3) for agent in range(3)]
    await ledger.append([frame_event(frame) for frame in frames])
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 1)
    seen: list[int] = []
    after = (-(2**63), 0)
    while page := await read_frames(
        ledger, "telemetry:loop-1", start_ns=0, end_ns=SECOND_NS, limit=2, after=after
    ):
        assert len(page) == 1
        seen += [event.position for event in page]
        window = page[-1].window
        assert window is not None
        after = (window.end_ns, page[-1].position)
    assert seen == list(range(1, 10))
