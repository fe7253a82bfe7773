"""Pages of the log: bounded in events and in bytes, filtered, and whole when put together."""

from __future__ import annotations

import subprocess
import sys
import uuid
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import domain.events
from domain.errors import InvalidInput
from domain.events import MalformedFact, UnknownEventType, event_type
from eventlog.appending.lookup import read_versions
from eventlog.envelope import NewEvent
from eventlog.ledger import Ledger
from eventlog.reading import (
    ALL_EVENTS,
    FILTER_VALUES_MAX,
    PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX,
    EventFilter,
    Page,
    PayloadOf,
    before_unknown,
    position_at,
    read_event,
    read_frames,
    read_page,
    read_page_backwards,
    read_pages,
    read_stream,
    read_whole_stream,
    stream_version_at,
)
from tests.eventlog.new_events import fact, frame_event, frame_of

pytestmark = pytest.mark.anyio

SECOND_NS = 1_000_000_000
STREAMS = ("asset:loop-1", "asset:loop-2", "asset-x:loop-2", "work-order:17", "part:SN-1")
TYPES = ("asset.setpoint_reported", "asset.setpoint_desired", "asset.retired")


async def positions(ledger: Ledger, wanted: EventFilter) -> list[int]:
    return [event.position for event in await read_page(ledger, 0, wanted=wanted)]


async def random_log(ledger: Ledger, count: int, rng: np.random.Generator) -> list[NewEvent]:
    """Append `count` facts of some streams and types and of 0 to 400 bytes; return them."""
    events = [
        fact(
            n,
            str(rng.choice(STREAMS, p=(0.5, 0.3, 0.1, 0.08, 0.02))),
            type=str(rng.choice(TYPES, p=(0.8, 0.17, 0.03))),
            payload=bytes(rng.integers(0, 400)),
        )
        for n in range(count)
    ]
    await ledger.append(events)
    return events


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


async def test_pages_backwards_put_together_are_the_log_reversed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [300, 300, 300, 2_000, 100, 0, 0, 900]
    await ledger.append([fact(n, payload=bytes(size)) for n, size in enumerate(sizes)])
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 700)
    pages, before = [], None
    while page := await read_page_backwards(ledger, before, down_to=2, limit=3):
        pages.append([event.position for event in page])
        before = page.scanned_to
    assert pages == [[8], [7, 6, 5], [4], [3, 2]]
    assert before == 2


async def test_what_lies_beyond_the_log_is_an_empty_page(ledger: Ledger) -> None:
    await ledger.append([fact(1), fact(2)])
    for wanted in (ALL_EVENTS, EventFilter(types=TYPES), EventFilter(streams=STREAMS)):
        page = await read_page(ledger, 7, wanted=wanted)
        assert (page, page.scanned_to) == ([], 7)
        page = await read_page_backwards(ledger, 1, wanted=wanted)
        assert (page, page.scanned_to) == ([], 1)
        page = await read_page(ledger, 0, up_to=9, wanted=wanted)
        assert page.scanned_to == 2


@pytest.mark.parametrize("seed", range(3))
async def test_filtered_pages_put_together_are_what_was_wanted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    log = await random_log(ledger, 400, rng)
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 60)
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 3_000)
    for _ in range(8):
        wanted = EventFilter(
            *(
                tuple(map(str, rng.choice(values, rng.integers(0, 3), replace=False)))
                for values in (TYPES, STREAMS, ("asset", "asset-x", "part", "nothing"))
            )
        )
        low, high = sorted(map(int, rng.integers(0, 401, 2)))
        limit = int(rng.integers(1, 30))
        expected = [
            position
            for position, event in enumerate(log, 1)
            if low < position <= high
            and (not wanted.types or event.type in wanted.types)
            and (not wanted.streams or event.stream in wanted.streams)
            and (not wanted.categories or event.stream.split(":")[0] in wanted.categories)
        ]
        found: list[int] = []
        after = low
        while after < high:
            page = await read_page(ledger, after, up_to=high, limit=limit, wanted=wanted)
            assert_bounded(page, limit)
            assert page.scanned_to > after
            found += [event.position for event in page]
            after = page.scanned_to
        assert found == expected, wanted
        found, before = [], high + 1
        while before > low + 1:
            page = await read_page_backwards(
                ledger, before, down_to=low + 1, limit=limit, wanted=wanted
            )
            assert_bounded(page, limit)
            assert page.scanned_to < before
            found += [event.position for event in page]
            before = page.scanned_to
        assert found == expected[::-1], wanted


def assert_bounded(page: Page, limit: int) -> None:
    assert len(page) <= limit
    assert sum(len(event.payload or b"") for event in page[:-1]) <= 3_000
    assert len(page) == 1 or sum(len(event.payload or b"") for event in page) <= 3_000


@pytest.mark.parametrize(
    "wanted",
    [
        EventFilter(types=("no.such_type",)),
        EventFilter(categories=("nothing",)),
        EventFilter(streams=("asset:loop-1",), types=("no.such_type",)),
    ],
)
async def test_a_page_looks_at_a_bounded_number_of_events(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, wanted: EventFilter
) -> None:
    await ledger.append([fact(n) for n in range(200)])
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 50)
    page = await read_page(ledger, 10, wanted=wanted)
    assert (page, page.scanned_to) == ([], 60)
    page = await read_page_backwards(ledger, wanted=wanted)
    assert (page, page.scanned_to) == ([], 151)


async def test_a_stream_is_found_however_much_lies_between(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.append([fact("first", "part:SN-1")])
    await ledger.append([fact(n) for n in range(300)])
    await ledger.append([fact("last", "part:SN-1")])
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 10)
    for wanted in (
        EventFilter(streams=("part:SN-1",)),
        EventFilter(streams=("part:SN-1", "part:none"), categories=("part",)),
    ):
        page = await read_page(ledger, 0, wanted=wanted)
        assert [event.position for event in page] == [1, 302]
        assert page.scanned_to == 302
        page = await read_page_backwards(ledger, 302, wanted=wanted)
        assert [event.position for event in page] == [1]
        assert page.scanned_to == 1


async def test_a_filter_has_a_limit(ledger: Ledger) -> None:
    wanted = EventFilter(streams=tuple(f"part:{n}" for n in range(FILTER_VALUES_MAX + 1)))
    with pytest.raises(InvalidInput) as refused:
        await read_page(ledger, 0, wanted=wanted)
    assert (refused.value.code, refused.value.limit) == ("filter.too_many", FILTER_VALUES_MAX)


@pytest.mark.parametrize("wanted", [ALL_EVENTS, EventFilter(types=TYPES[:1])])
async def test_pages_fetched_ahead_are_the_log_up_to_where_it_was_asked_for(
    ledger: Ledger, wanted: EventFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.reading.SCANNED_EVENTS_MAX", 10)
    await ledger.append([fact(n) for n in range(60)])
    for up_to, last in ((47, 47), (60, 60), (1_000, 60), (0, 0)):
        seen = [
            event.position
            async for page in read_pages(ledger, 0, up_to=up_to, limit=7, wanted=wanted)
            for event in page
        ]
        assert seen == list(range(1, last + 1))


async def test_pages_fetched_ahead_may_be_left_in_the_middle(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(60)])
    pages = read_pages(ledger, 0, up_to=60, limit=7)
    assert len(await anext(pages)) == 7
    await pages.aclose()
    assert await ledger.head() == 60


async def test_a_recorded_event_tells_what_its_row_holds(ledger: Ledger) -> None:
    moments = [
        datetime(1969, 7, 20, 20, 17, 40, 1, tzinfo=UTC),
        datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_998, tzinfo=UTC),
    ]
    named: dict[str, Any] = {
        "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
        "source": "scanner:1",
        "sequence": 7,
        "correlation_id": uuid.uuid4(),
        "causation_id": uuid.uuid4(),
    }
    await ledger.append(
        [
            *(fact(n, occurred_at=moment) for n, moment in enumerate(moments)),
            fact("all", **named),
            frame_event(frame_of(1)),
        ]
    )
    names = (
        *("position", "stream", "version", "type", "schema_version", "event_id", "occurred_at"),
        *("recorded_at", "actor", "correlation_id", "causation_id", "traceparent", "source"),
        *("sequence", "payload_sha256", "leaf_hash", "payload_tier", "payload"),
    )
    rows = await ledger.pool.fetch(f"select {', '.join(names)} from event order by position")
    page = await read_page(ledger, 0)
    assert [tuple(getattr(event, name) for name in names) for event in page] == list(
        map(tuple, rows)
    )
    window = await ledger.pool.fetchrow(
        "select window_start_ns, window_end_ns, reading_count, statistics from event "
        "where window_end_ns is not null"
    )
    assert window is not None
    found = page[-1].window
    assert found is not None
    assert (found.start_ns, found.end_ns, found.reading_count, found.statistics) == tuple(window)
    assert page[0].window is None
    again = await read_page(ledger, 0)
    assert again == page
    assert len({*page, *again}) == len(page)
    assert page[0] != page[1]


# --- streams, and the log as it was -------------------------------------------------------


async def test_a_stream_is_read_from_a_version_up_to_a_version_in_both_directions(
    ledger: Ledger,
) -> None:
    await ledger.append([fact(n, f"asset:loop-{n % 2}") for n in range(20)])
    for backwards in (False, True):
        events = await read_stream(
            ledger, "asset:loop-1", from_version=3, up_to_version=8, backwards=backwards
        )
        versions = [3, 4, 5, 6, 7, 8]
        assert [event.version for event in events] == (versions[::-1] if backwards else versions)
        assert {event.stream for event in events} == {"asset:loop-1"}
    assert await read_stream(ledger, "asset:none") == []


async def test_a_page_of_a_stream_is_bounded_in_bytes(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [300, 300, 300, 2_000, 100]
    await ledger.append([fact(n, payload=bytes(size)) for n, size in enumerate(sizes)])
    monkeypatch.setattr("eventlog.reading.PAGE_BYTES_MAX", 700)
    pages = [
        [e.version for e in await read_stream(ledger, "asset:loop-1", from_version=first)]
        for first in (1, 3, 4, 5)
    ]
    assert pages == [[1, 2], [3], [4], [5]]
    last = await read_stream(ledger, "asset:loop-1", backwards=True)
    assert [event.version for event in last] == [5]
    bare = await read_stream(ledger, "asset:loop-1", payloads=PayloadOf.NONE)
    assert [event.payload for event in bare] == [None] * 5
    whole = [event.version async for event in read_whole_stream(ledger, "asset:loop-1")]
    assert whole == [1, 2, 3, 4, 5]


async def test_a_stream_is_read_as_of_any_position(ledger: Ledger) -> None:
    rng = np.random.default_rng(11)
    log = await random_log(ledger, 120, rng)
    for stream in (*STREAMS, "part:none"):
        for as_of in (-1, 0, 1, 2, *range(3, 130, 7)):
            standing = [event.stream for event in log[: max(0, as_of)]].count(stream)
            assert await stream_version_at(ledger, stream, as_of) == standing
            found = [
                event.version async for event in read_whole_stream(ledger, stream, as_of=as_of)
            ]
            assert found == list(range(1, standing + 1))
    newest = await read_stream(ledger, STREAMS[0], as_of=60, backwards=True, limit=2)
    standing = [event.stream for event in log[:60]].count(STREAMS[0])
    assert [event.version for event in newest] == [standing, standing - 1]


async def test_the_log_is_read_as_of_any_time(ledger: Ledger) -> None:
    rng = np.random.default_rng(3)
    now, appended = datetime(2020, 3, 9, tzinfo=UTC), 0
    log = await Ledger.open(ledger.pool, ledger.name, clock=lambda: now)
    while appended < 150:
        # Clocks stand still, and step back: the log's own time never does.
        now += timedelta(microseconds=int(rng.integers(-3, 9)) // 2 * 1_000_003)
        count = int(rng.integers(1, 6))
        await log.append([fact(appended + n) for n in range(count)])
        appended += count
    await log.close()
    times = [event.recorded_at for event in await read_page(ledger, 0, limit=2_000)]
    assert times == sorted(times)
    assert len(set(times)) > 10
    step = timedelta(microseconds=1)
    for moment in sorted({moment + delta for moment in times for delta in (-step, 0 * step, step)}):
        position = await position_at(ledger, moment)
        assert position == bisect_right(times, moment)
        page = await read_page(ledger, 0, up_to=position, limit=2_000)
        assert [event.position for event in page] == list(range(1, position + 1))
    assert await position_at(ledger, datetime(1990, 1, 1, tzinfo=UTC)) == 0
    assert await position_at(ledger, datetime(2990, 1, 1, tzinfo=UTC)) == appended


async def test_a_time_without_a_zone_names_no_state_of_the_log(ledger: Ledger) -> None:
    with pytest.raises(InvalidInput) as refused:
        await position_at(ledger, datetime(2020, 3, 9))  # noqa: DTZ001
    assert refused.value.code == "event.naive_time"


# --- what this software cannot read -------------------------------------------------------


@pytest.fixture
def own_catalogue(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a test register types that nobody else sees; returns how to forget one again."""
    catalogue = dict(domain.events._BY_NAME)
    monkeypatch.setattr(domain.events, "_BY_NAME", catalogue)
    monkeypatch.setattr(domain.events, "_BY_CLASS", dict(domain.events._BY_CLASS))
    return catalogue.__delitem__


def document(label: str, version: int, payload: bytes, kind: str = "pump.measured") -> NewEvent:
    return fact(label, type=kind, schema_version=version, payload=payload)


async def test_every_version_of_a_stored_event_is_read_as_the_newest(
    ledger: Ledger, own_catalogue: Callable[[str], None]
) -> None:
    order: list[int] = []

    def to_2(old: dict[str, object]) -> dict[str, object]:
        order.append(1)
        return {"flow_l_per_s": old["flow_l"], "by": None}

    def to_3(old: dict[str, object]) -> dict[str, object]:
        order.append(2)
        return {"flow_m3_per_s": float(str(old["flow_l_per_s"])) / 1000, "by": old["by"]}

    @event_type("pump.measured", 3, {1: to_2, 2: to_3})
    @dataclass(frozen=True)
    class PumpMeasured:
        flow_m3_per_s: float
        by: str | None

    await ledger.append(
        [
            document("1", 1, b'{"flow_l":2000}'),
            document("2", 2, b'{"by":"mara","flow_l_per_s":2000}'),
            document("3", 3, b'{"by":"mara","flow_m3_per_s":2}'),
        ]
    )
    first, second, third = await read_page(ledger, 0)
    assert first.fact == PumpMeasured(2.0, None)
    assert order == [1, 2]
    assert second.fact == third.fact == PumpMeasured(2.0, "mara")
    assert order == [1, 2, 2]
    assert first.fact is first.fact  # made once


@pytest.mark.parametrize(
    ("kind", "version", "code", "named"),
    [
        ("pump.measured", 4, "event.unknown_type", ("'pump.measured'", "version 4")),
        ("asset.retired", 2, "event.unknown_version", ("'asset.retired'", "version 1", "not 2")),
    ],
)
async def test_an_event_that_is_not_known_stops_who_decodes_it_and_nobody_else(
    ledger: Ledger, kind: str, version: int, code: str, named: tuple[str, ...]
) -> None:
    await ledger.append([fact(1), document("x", version, b'{"new":1}', kind), fact(2)])
    page = await read_page(ledger, 0)
    assert [event.payload for event in page][1] == b'{"new":1}'
    with pytest.raises(UnknownEventType) as stopped:
        [event.fact for event in page]
    assert stopped.value.code == code
    for words in (*named, "plant-1/2"):
        assert words in stopped.value.message


async def test_a_frame_of_a_newer_version_stops_who_decodes_it(ledger: Ledger) -> None:
    event = frame_event(frame_of(1))
    newer = fact("f", type=event.type, schema_version=2, payload=event.payload)
    await ledger.append([event, newer])
    old, new = await read_page(ledger, 0)
    assert old.frame.canonical_sha256 == frame_of(1).canonical_sha256
    with pytest.raises(UnknownEventType) as stopped:
        new.frame  # noqa: B018
    assert (stopped.value.code, stopped.value.limit) == ("event.unknown_version", 1)
    assert "plant-1/2" in stopped.value.message


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"asset_id":"a"}',
        b'{"asset_id":"a","setpoint":"flow","value":1,"surplus":1}',
        b'{"asset_id":"a","setpoint":"flow","value":"much"}',
    ],
)
async def test_a_payload_that_is_none_of_its_type_stops_who_decodes_it(
    ledger: Ledger, payload: bytes
) -> None:
    await ledger.append([fact(1), fact(2, payload=payload)])
    _, event = await read_page(ledger, 0)
    with pytest.raises(MalformedFact) as stopped:
        event.fact  # noqa: B018
    assert stopped.value.code == "event.payload_malformed"
    assert "'asset.setpoint_reported' version 1" in stopped.value.message
    assert "plant-1/2" in stopped.value.message


async def test_whoever_vouches_for_all_events_stops_before_a_type_that_is_not_known(
    ledger: Ledger,
) -> None:
    unknown = document("x", 1, b"{}")
    await ledger.append([fact(1), frame_event(frame_of(1)), unknown, fact(2)])
    page = await read_page(ledger, 0)
    assert [event.position for event in before_unknown(page)] == [1, 2]
    assert before_unknown(page[3:]) == page[3:]
    assert before_unknown([]) == []
    with pytest.raises(UnknownEventType) as stopped:
        before_unknown(page[2:])
    assert (stopped.value.code, stopped.value.value) == ("event.unknown_type", "pump.measured")
    assert "plant-1/3" in stopped.value.message


def test_who_reads_the_log_knows_every_type_without_asking() -> None:
    listed = "print(*sorted(domain.events.event_types()))"
    by_reading = told(f"import eventlog.reading, domain.events; {listed}")
    by_walking = told(
        "import domain.events, importlib, pkgutil\n"
        "for m in pkgutil.walk_packages(domain.__path__, 'domain.'): "
        f"importlib.import_module(m.name)\n{listed}"
    )
    assert by_reading == by_walking
    assert "asset.retired" in by_reading


def told(program: str) -> list[str]:
    """Return the words that a fresh interpreter prints."""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60
    )
    return run.stdout.split()


# --- pages as ever ------------------------------------------------------------------------


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
    found = await read_versions(
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
