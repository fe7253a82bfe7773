"""Pages that projections read together: each event is fetched once, and nobody misses one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from domain.events import MalformedFact
from eventlog.decoded import DecodedFrames
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import Page, PayloadOf, read_page, read_pages
from projections.running.pages import SharedPages, decoded_pages
from tests.eventlog.new_events import fact
from tests.projections.loop_frames import loop_frame, record, register, seconds_ns

pytestmark = pytest.mark.anyio


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions after which pages were fetched from the log."""
    after_each: list[int] = []

    async def counted(ledger: Ledger, after: int, **wanted: Any) -> Any:
        after_each.append(after)
        return await read_page(ledger, after, **wanted)

    monkeypatch.setattr("projections.running.pages.read_page", counted)
    return after_each


async def positions(pages: SharedPages, after: int, up_to: int, limit: int = 1000) -> list[int]:
    return [event.position for event in await pages.read(after, up_to=up_to, limit=limit)]


async def test_what_one_has_read_is_not_fetched_for_another(
    ledger: Ledger, fetched: list[int]
) -> None:
    await ledger.append([fact(n) for n in range(10)])
    pages = SharedPages(ledger)
    assert await positions(pages, 0, 10) == list(range(1, 11))
    assert await positions(pages, 0, 10, limit=4) == [1, 2, 3, 4]
    assert await positions(pages, 4, 7) == [5, 6, 7]
    assert await positions(pages, 9, 10) == [10]
    assert fetched == [0]
    assert await positions(pages, 10, 10) == []
    await ledger.append([fact(n) for n in range(10, 12)])
    assert await positions(pages, 10, 12) == [11, 12]
    assert await positions(pages, 8, 12) == [9, 10, 11, 12]
    assert fetched == [0, 10, 10]


async def test_who_is_far_behind_reads_for_himself_and_drives_nothing_out(
    ledger: Ledger, fetched: list[int]
) -> None:
    await ledger.append([fact(n) for n in range(10)])
    pages = SharedPages(ledger)
    assert await positions(pages, 7, 10) == [8, 9, 10]
    assert await positions(pages, 0, 10, limit=3) == [1, 2, 3]
    assert await positions(pages, 3, 10, limit=3) == [4, 5, 6]
    assert await positions(pages, 7, 10) == [8, 9, 10]
    assert fetched == [7, 0, 3]


async def test_who_jumps_ahead_leaves_no_gap_behind(ledger: Ledger, fetched: list[int]) -> None:
    await ledger.append([fact(n) for n in range(10)])
    pages = SharedPages(ledger)
    assert await positions(pages, 0, 3) == [1, 2, 3]
    assert await positions(pages, 6, 10) == [7, 8, 9, 10]
    assert await positions(pages, 2, 10) == list(range(3, 11))
    assert fetched == [0, 6, 2]


async def test_only_the_newest_events_are_kept(
    ledger: Ledger, fetched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.pages.EVENTS_KEPT_MAX", 4)
    await ledger.append([fact(n) for n in range(10)])
    pages = SharedPages(ledger)
    for after in range(0, 10, 2):
        assert await positions(pages, after, after + 2) == [after + 1, after + 2]
    assert await positions(pages, 6, 10) == [7, 8, 9, 10]
    assert fetched == [0, 2, 4, 6, 8]
    assert await positions(pages, 5, 10) == [6, 7, 8, 9, 10]
    assert fetched[-1] == 5


async def test_the_next_page_is_fetched_before_it_is_asked_for(
    ledger: Ledger, fetched: list[int]
) -> None:
    await ledger.append([fact(n) for n in range(10)])
    pages = SharedPages(ledger)

    async def read(after: int, limit: int) -> list[int]:
        page = await pages.read(after, up_to=after + limit, limit=limit, head=10)
        return [event.position for event in page]

    assert await read(0, 4) == [1, 2, 3, 4]
    await asyncio.sleep(0)
    assert fetched == [0, 4]
    assert await read(4, 4) == [5, 6, 7, 8]
    assert await read(8, 4) == [9, 10]
    assert fetched == [0, 4, 8]
    assert await read(2, 4) == [3, 4, 5, 6]  # of the pages that are kept
    pages.forget()
    assert await read(0, 4) == [1, 2, 3, 4]
    assert await positions(pages, 4, 5) == [5]  # less than what was fetched ahead
    assert await positions(pages, 5, 10) == [6, 7, 8]
    assert fetched == [0, 4, 8, 0, 4]


async def test_a_page_that_cannot_be_fetched_ahead_fails_who_asks_for_it_and_comes_then(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append([fact(n) for n in range(10)])
    failing = {5}

    async def cut(ledger: Ledger, after: int, **wanted: Any) -> Any:
        if after in failing:
            raise ConnectionResetError("cut")
        return await read_page(ledger, after, **wanted)

    monkeypatch.setattr("projections.running.pages.read_page", cut)
    pages = SharedPages(ledger)
    await pages.read(0, up_to=5, limit=5, head=10)
    with pytest.raises(ConnectionResetError):
        await pages.read(5, up_to=10, limit=5, head=10)
    failing.clear()
    assert await positions(pages, 5, 10) == [6, 7, 8, 9, 10]


async def test_frames_of_a_page_are_decoded_once_and_together(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = DecodedFrames()
    for place in ("eventlog.envelope.DECODED", "projections.running.pages.DECODED"):
        monkeypatch.setattr(place, memory)
    await register(ledger)
    frames = [loop_frame(n, seconds_ns(n), {"flow": [float(n)]}) for n in range(1, 41)]
    await record(ledger, frames)
    monkeypatch.setattr("projections.running.pages.DECODED", memory := DecodedFrames())
    monkeypatch.setattr("eventlog.envelope.DECODED", memory)
    page = await SharedPages(ledger).read(1, up_to=41, limit=100)
    for event, frame in zip(page, frames, strict=True):
        held = memory.find(frame.canonical_sha256)
        assert held is not None
        assert event.frame is held
        assert held.values[0].tolist() == frame.values[0].tolist()


# --- decoded ahead ------------------------------------------------------------------------


def pages_of(ledger: Ledger, up_to: int) -> AsyncGenerator[Page, None]:
    return read_pages(ledger, 0, up_to=up_to, limit=7, payloads=PayloadOf.ALL)


async def test_pages_decoded_ahead_are_the_log(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(30)])
    events = [event async for page in decoded_pages(pages_of(ledger, 30), None) for event in page]
    assert [event.position for event in events] == list(range(1, 31))
    assert [event.fact.setpoint for event in events] == [str(n) for n in range(30)]


async def test_the_next_page_is_decoded_while_one_is_in_hand(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append([fact(n) for n in range(21)])
    decoded: list[int] = []
    second = asyncio.Event()

    def told(event: RecordedEvent) -> None:
        decoded.append(event.position)
        if event.position == 14:
            second.set()

    monkeypatch.setattr(RecordedEvent, "fact", property(told))
    pages = decoded_pages(pages_of(ledger, 21), frozenset(("asset.setpoint_reported",)))
    await anext(pages)
    async with asyncio.timeout(30):
        await second.wait()
    assert decoded == list(range(1, 15))
    await pages.aclose()


async def test_only_facts_that_are_wanted_are_decoded(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append([fact(n) for n in range(10)])
    monkeypatch.setattr(RecordedEvent, "fact", property(lambda event: pytest.fail(repr(event))))
    pages = decoded_pages(pages_of(ledger, 10), frozenset(("part.created",)))
    assert [len(page) async for page in pages] == [7, 3]


async def test_a_fact_that_cannot_be_read_stops_nobody_before_it_is_asked_for(
    ledger: Ledger,
) -> None:
    await ledger.append([fact(1), fact(2, payload=b"{}"), fact(3)])
    (page,) = [page async for page in decoded_pages(pages_of(ledger, 3), None)]
    assert page[0].fact.setpoint == "1"
    assert page[2].fact.setpoint == "3"
    with pytest.raises(MalformedFact):
        _ = page[1].fact


async def test_pages_decoded_ahead_may_be_left_in_the_middle(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(60)])
    tasks = asyncio.all_tasks()
    pages = decoded_pages(pages_of(ledger, 60), None)
    assert len(await anext(pages)) == 7
    await pages.aclose()
    assert asyncio.all_tasks() == tasks
