"""Erasure by law: gone from row, archive and memory, recorded first; everything else stands."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from domain.errors import InvalidInput, NotFound, PayloadErased, Unavailable
from domain.ledger_events import PayloadsErased
from eventlog import erasure
from eventlog.archive import payloads
from eventlog.archive.payloads import BLOCKS, locate
from eventlog.archive.segments import live_segments, read_windows
from eventlog.erasure import finish_erasures, positions_of_stream
from eventlog.ledger import Ledger
from eventlog.reading import read_event, read_page
from tests.eventlog.archived import (
    DAY_NS,
    archive_all,
    archived_ledger,
    erase_positions,
    everything,
    files,
    record,
    tiers,
)
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_of, opened

pytestmark = pytest.mark.anyio


async def test_an_erased_fact_says_so_and_every_other_stands(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(3)])
    report = await erase_positions(ledger, 2)
    assert (report.erased, report.erased_before, report.recorded_at) == (1, 0, (4,))
    first, erased, third, record_of_it = await everything(ledger)
    assert erased.erased
    assert erased.payload is None
    with pytest.raises(PayloadErased) as refused:
        _ = erased.fact
    assert (refused.value.code, refused.value.value) == ("payload.erased", 2)
    assert not first.erased
    assert first.fact != third.fact
    assert record_of_it.actor == "user:dpo"
    assert record_of_it.stream == "ledger:plant-1"
    said: Any = record_of_it.fact
    assert said == PayloadsErased("plant-1", (2,), "article 17", "Regulation (EU) 2016/679")
    await assert_log_is_sound(ledger, 4)


async def test_an_erased_frame_has_no_statistics_in_row_and_none_in_reading(
    ledger: Ledger,
) -> None:
    await record(ledger, [frame_of(1), frame_of(2)])
    await erase_positions(ledger, 1)
    event = await read_event(ledger, 1)
    assert event is not None
    assert event.window is not None
    assert event.window.statistics == b""
    with pytest.raises(PayloadErased):
        _ = event.frame
    kept = await read_event(ledger, 2)
    assert kept is not None
    assert kept.window is not None
    assert kept.window.statistics != b""
    await assert_log_is_sound(ledger, 3)


async def test_erased_means_gone_from_the_archive_too(ledger: Ledger, tmp_path: Path) -> None:
    frames = [frame_of(n, start_ns=(n % 3) * DAY_NS + n * 10**9) for n in range(1, 13)]
    await record(ledger, frames[:9])
    await archive_all(ledger, tmp_path)
    await record(ledger, frames[9:])
    before = await files(ledger, tmp_path)
    await everything(ledger)  # so that blocks are in memory
    erased = (1, 4, 7, 5, 12)  # a whole day of the archive, one of another, one in its row
    report = await erase_positions(ledger, *erased)
    assert report.erased == 5
    after = await files(ledger, tmp_path)
    assert after.on_disk == after.live
    assert len(before.live - after.live) == 2  # one is gone, one was rewritten
    assert len(after.live) == 2
    assert BLOCKS.memory_bytes == 0
    assert set(await locate(ledger.pool, ledger.ledger_id, range(1, 13))) == {2, 3, 6, 8, 9}
    for event, frame in zip(await everything(ledger), frames, strict=False):
        assert event.erased == (event.position in erased)
        if not event.erased:
            assert event.frame.canonical_sha256 == frame.canonical_sha256
    await assert_log_is_sound(ledger, 13)
    await archive_all(ledger, tmp_path)
    assert {n for n, tier in (await tiers(ledger)).items() if tier == 2} == set(erased)


async def test_erasing_again_changes_nothing(ledger: Ledger) -> None:
    await ledger.append([fact(n) for n in range(3)])
    await erase_positions(ledger, 1, 2)
    report = await erase_positions(ledger, 2, 3, 2)
    assert (report.erased, report.erased_before) == (1, 1)
    nothing = await erase_positions(ledger, 1)
    assert (nothing.erased, nothing.erased_before, nothing.recorded_at) == (0, 1, ())
    assert await ledger.head() == 5


async def test_a_stream_is_erased_in_events_of_bounded_size(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "POSITIONS_AN_EVENT_MAX", 2)
    await ledger.append([fact(n, stream=f"part:SN-{n % 2}") for n in range(10)])
    positions = await positions_of_stream(ledger, "part:SN-1")
    assert positions == [2, 4, 6, 8, 10]
    report = await erase_positions(ledger, *positions)
    assert report.recorded_at == (11, 12, 13)
    assert [e.position for e in await everything(ledger) if e.erased] == positions
    with pytest.raises(NotFound) as refused:
        await positions_of_stream(ledger, "part:SN-9")
    assert refused.value.code == "stream.unknown"


async def test_what_cannot_be_erased_is_refused_before_anything_is_recorded(
    ledger: Ledger,
) -> None:
    await ledger.append([fact(1), fact(2)])
    await erase_positions(ledger, 1)
    for positions, reason, code in (
        ((), "why", "erasure.nothing"),
        ((2, 99), "why", "erasure.no_such_event"),
        ((0,), "why", "erasure.no_such_event"),
        ((2, 3), "why", "erasure.own_record"),
        ((2,), "", "erasure.text"),
        ((2,), "x" * 2_001, "erasure.text"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await erase_positions(ledger, *positions, reason=reason)
        assert refused.value.code == code
    assert await ledger.head() == 3
    assert await tiers(ledger) == {1: 2, 2: 0, 3: 0}


async def test_an_archive_out_of_reach_leaves_it_recorded_and_to_be_finished(
    ledger: Ledger, tmp_path: Path
) -> None:
    await record(ledger, [frame_of(n, start_ns=n * 10**9) for n in range(1, 4)])
    await archive_all(ledger, tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "away")
    with pytest.raises(Unavailable) as refused:
        await erase_positions(ledger, 2)
    assert refused.value.code == "archive.file_missing"
    assert await ledger.head() == 4
    assert (await tiers(ledger))[2] == 1
    (tmp_path / "away").rename(tmp_path / "archive")
    assert await finish_erasures(archived_ledger(ledger)) == 1
    assert (await tiers(ledger))[2] == 2


async def test_a_leftover_out_of_reach_keeps_an_erasure_unfinished(
    ledger: Ledger, tmp_path: Path
) -> None:
    """It may hold what is erased; an archive run names it and goes on."""
    await record(ledger, [frame_of(1)])
    await ledger.pool.execute("insert into archive_store (url) values ('nosuch://bucket')")
    await ledger.pool.execute(
        """
        insert into archive_segment (ledger_id, store_id, state, stream, day, path, window_count,
            reading_count, first_position, last_position)
        select $1, store_id, 'writing', 'telemetry:loop-1', '1970-01-01', 'x.parquet', 1, 5, 1, 1
        from archive_store
        """,
        ledger.ledger_id,
    )
    report = await archive_all(ledger, tmp_path)
    assert (report.windows, report.left_behind) == (1, ["nosuch://bucket/x.parquet"])
    with pytest.raises(Unavailable) as refused:
        await erase_positions(ledger, 1)
    assert (refused.value.code, refused.value.value) == (
        "erasure.unfinished",
        "nosuch://bucket/x.parquet",
    )
    assert await tiers(ledger) == {1: 2, 2: 0}
    await ledger.pool.execute(
        "update archive_store set url = $1 where url like 'nosuch%'", (tmp_path / "b").as_uri()
    )
    assert await finish_erasures(archived_ledger(ledger)) == 1
    assert (await files(ledger, tmp_path)).unsettled == set()


async def test_a_reader_that_saw_it_archived_learns_that_it_is_erased(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(ledger, [frame_of(n, start_ns=n * 10**9) for n in range(1, 4)])
    await archive_all(ledger, tmp_path)
    locate_now, done = payloads.locate, False

    async def erased_in_between(*of: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            await erase_positions(ledger, 2)
        return await locate_now(*of)

    monkeypatch.setattr(payloads, "locate", erased_in_between)
    page = await read_page(ledger, 0, up_to=3)
    assert [event.erased for event in page] == [False, True, False]
    assert [event.payload is None for event in page] == [False, True, False]


async def test_erasing_while_the_archive_is_being_written_leaves_nothing_behind(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        frames = [
            frame_of(n, start_ns=(n % 4) * DAY_NS + n * 10**9, agent=f"agent-{n % 3}")
            for n in range(1, 61)
        ]
        await record(one, frames)
        erased = range(1, 61, 5)

        async def erase_one_by_one() -> None:
            for position in erased:
                await erase_positions(two, position)

        await asyncio.gather(archive_all(one, tmp_path), erase_one_by_one())
        await archive_all(one, tmp_path)
        lying = await files(one, tmp_path)
        assert lying.on_disk == lying.live
        assert await finish_erasures(archived_ledger(one)) == 0
        tier_of = await tiers(one)
        for n in range(1, 61):
            assert tier_of[n] == (2 if n in erased else 1)
        kept = [event for event in (await everything(one))[:60] if not event.erased]
        assert [event.frame.canonical_sha256 for event in kept] == [
            frame.canonical_sha256 for n, frame in enumerate(frames, 1) if n not in erased
        ]
        held = {
            window.position
            for segment in await live_segments(one.pool, one.ledger_id)
            for window in read_windows(segment)
        }
        assert held == set(range(1, 61)) - set(erased)


@pytest.mark.parametrize(
    "change",
    [
        "payload = null, payload_tier = 2",
        "payload = null, payload_tier = 3, statistics = null",
        "payload = null, payload_tier = 1, statistics = null",
        "statistics = null",
        "payload_tier = 2, statistics = null",
        "payload = null, payload_tier = 2, statistics = 'x'",
    ],
)
async def test_the_database_lets_go_of_a_frame_s_statistics_with_its_payload_alone(
    ledger: Ledger, change: str
) -> None:
    await record(ledger, [frame_of(1)])
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await ledger.pool.execute(f"update event set {change}")
    await ledger.pool.execute(
        "update event set payload = null, statistics = null, payload_tier = 2"
    )
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await ledger.pool.execute("update event set payload_tier = 2")
