"""The archive: payloads move to files, and whoever reads or proves does not notice."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from domain.errors import InvalidInput, NotFound, Unavailable
from domain.frame_decoding import decode
from domain.frames import ChannelHeader, Frame, FrameHeader, Quality, build_frame
from eventlog.archive import layout as archive_layout
from eventlog.archive import moving as archive_module
from eventlog.archive import payloads
from eventlog.archive.moving import archive
from eventlog.archive.payloads import BLOCKS, BlockCache, Place
from eventlog.archive.segments import ArchivedLedger, find_strays, locked
from eventlog.archive.store import ArchiveStore
from eventlog.database import Pool
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf, read_frames, read_page, read_stream
from tests.database import as_superuser, execute
from tests.eventlog.archived import (
    DAY_NS,
    archive_all,
    archived_ledger,
    everything,
    files,
    record,
    tiers,
)
from tests.eventlog.log_soundness import assert_log_is_sound
from tests.eventlog.new_events import fact, frame_event, frame_of, opened
from tests.projections.loop_frames import loop_frame, skab_frames

pytestmark = pytest.mark.anyio

NOON_NS = 1_583_755_200_000_000_000


def odd_frames() -> list[Frame]:
    """Frames of every kind: two headers, two clocks, qualities, floats that no decimal is."""
    rng = np.random.default_rng(1)
    times = NOON_NS + np.arange(9, dtype=np.int64) * 1_000_000_001
    return [
        loop_frame(1, times, {"flow": rng.normal(size=9), "pressure": np.arange(9) / 8}),
        loop_frame(
            2,
            times + 10**11,
            {"flow": rng.normal(size=9), "pressure": np.arange(9) / 8},
            qualities={"flow": [Quality.GOOD] * 7 + [Quality.BAD, Quality.MISSING]},
        ),
        loop_frame(1, times, {"flow": [1.5] * 9}, agent="agent-2"),
        loop_frame(
            2,
            times,
            {"flow": [0.1] * 9},
            agent="agent-2",
            second_clock={"pressure": (times[:4], [-0.0, 1.0, 2.0, 3.0])},
        ),
        loop_frame(3, times + DAY_NS, {"flow": rng.normal(size=9), "pressure": np.zeros(9)}),
    ]


async def test_payloads_move_and_every_reader_reads_on(ledger: Ledger, tmp_path: Path) -> None:
    await ledger.append([fact("before")])
    recorded = await record(ledger, skab_frames("valve1/1", 50))
    before = await everything(ledger)
    report = await archive_all(ledger, tmp_path)
    assert (report.windows, report.segments) == (len(recorded), 1)
    assert report.readings == sum(e.window.reading_count for e in recorded if e.window)
    assert set((await tiers(ledger)).values()) == {0, 1}
    assert (await tiers(ledger))[1] == 0
    after = await everything(ledger)
    assert [e.identity for e in after] == [e.identity for e in before]
    for was, now in zip(before[1:], after[1:], strict=True):
        assert now.payload is not None
        assert decode(now.payload).canonical_sha256 == was.payload_sha256
        assert now.frame.canonical_sha256 == was.payload_sha256
        assert now.window == was.window
    assert after[0].payload == before[0].payload
    stream = await read_stream(ledger, recorded[0].stream)
    assert [e.payload for e in stream] == [e.payload for e in after[1:]]
    first = recorded[0].window
    assert first is not None
    [found] = await read_frames(
        ledger, recorded[0].stream, start_ns=first.start_ns, end_ns=first.start_ns, limit=5
    )
    assert found.payload == after[1].payload
    await assert_log_is_sound(ledger, len(before))


async def test_who_wants_no_payload_opens_no_file(ledger: Ledger, tmp_path: Path) -> None:
    await record(ledger, [frame_of(1)])
    await archive_all(ledger, tmp_path)
    for path in (await files(ledger, tmp_path)).on_disk:
        (tmp_path / path).unlink()
    for wanted in (PayloadOf.NONE, PayloadOf.FACTS):
        [event] = await read_page(ledger, 0, payloads=wanted)
        assert event.payload is None
        assert event.window is not None
    with pytest.raises(Unavailable) as refused:
        await read_page(ledger, 0)
    assert refused.value.code == "archive.file_missing"


async def test_files_lie_by_ledger_asset_and_day_one_a_header(
    ledger: Ledger, tmp_path: Path
) -> None:
    await record(ledger, odd_frames())
    report = await archive_all(ledger, tmp_path)
    assert (report.windows, report.segments, report.unsound_count) == (5, 4, 0)
    lying = await files(ledger, tmp_path)
    assert lying.on_disk == lying.live
    assert lying.unsettled == set()
    folders = sorted(path.rpartition("/")[0] for path in lying.on_disk)
    assert folders == ["ledger=plant-1/asset=loop-1/day=2020-03-09"] * 3 + [
        "ledger=plant-1/asset=loop-1/day=2020-03-10"
    ]
    for event, frame in zip(await everything(ledger), odd_frames(), strict=True):
        assert event.frame.canonical_sha256 == frame.canonical_sha256


async def test_a_file_is_plain_parquet_with_values_as_delivered(
    ledger: Ledger, tmp_path: Path
) -> None:
    await record(ledger, skab_frames("valve1/1", 125))
    await archive_all(ledger, tmp_path)
    [path] = (await files(ledger, tmp_path)).on_disk
    table = pq.read_table(tmp_path / path)
    frames = sorted(skab_frames("valve1/1", 125), key=lambda f: f.window_start_ns)
    assert table["_sequence"].to_pylist() == [frame.sequence for frame in frames]
    for frame, row in zip(frames, table.to_pylist(), strict=True):
        for channel, column in zip(frame.header.channels, frame.values, strict=True):
            assert [float(value) for value in row[channel.name]] == column.tolist()
        assert len(row["_time"]) == len(frame.clocks[0])
    assert table.schema.field("flow").metadata[b"unit"] == b"l/min"


@pytest.mark.parametrize("kind", ["directory", "file URL", "memory"])
async def test_any_file_system_will_do(ledger: Ledger, tmp_path: Path, kind: str) -> None:
    url = {
        "directory": str(tmp_path / "new" / "folder"),
        "file URL": f"file://{tmp_path}/other",
        "memory": f"memory://archive-{tmp_path.name}",
    }[kind]
    frames = [frame_of(n, start_ns=n * 10**9) for n in range(1, 8)]
    await record(ledger, frames)
    report = await archive_all(ledger, ArchiveStore(url))
    assert (report.windows, report.segments) == (7, 1)
    assert [e.frame.canonical_sha256 for e in await everything(ledger)] == [
        frame.canonical_sha256 for frame in frames
    ]
    if kind == "memory":
        fsspec.filesystem("memory").rm(f"/archive-{tmp_path.name}", recursive=True)


async def test_only_what_is_older_than_the_retention_moves(pool: Pool, tmp_path: Path) -> None:
    clock = datetime(2026, 3, 1, tzinfo=UTC)
    ledger = await Ledger.open(pool, "plant-1", clock=lambda: clock)
    try:
        for day in range(5):
            clock = datetime(2026, 3, 1 + day, tzinfo=UTC)
            await ledger.append([frame_event(frame_of(day + 1))])
        run = archived_ledger(ledger)
        store = ArchiveStore(str(tmp_path))
        now = datetime(2026, 3, 6, tzinfo=UTC)
        for older_than, archived in ((30, 0), (4, 2), (4, 0), (2, 2), (10, 0), (0, 1)):
            report = await archive(run, store, older_than=timedelta(days=older_than), now=now)
            assert report.windows == archived
        with pytest.raises(InvalidInput) as refused:
            await archive(run, store, older_than=timedelta(days=-1), now=now)
        assert refused.value.code == "archive.retention"
    finally:
        await ledger.close()


async def test_an_unknown_ledger_is_said(ledger: Ledger) -> None:
    assert (await ArchivedLedger.find(ledger.pool, ledger.name)).ledger_id == ledger.ledger_id
    with pytest.raises(NotFound) as refused:
        await ArchivedLedger.find(ledger.pool, "plant-9")
    assert refused.value.code == "ledger.unknown"


async def test_cuts_plans_and_blocks_may_be_small(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "PLAN_FRAMES_MAX", 7)
    monkeypatch.setattr(archive_module, "SEGMENT_WINDOWS_MAX", 3)
    frames = [frame_of(n, start_ns=n * 10**9) for n in range(1, 21)]
    await record(ledger, frames)
    report = await archive_all(ledger, tmp_path)
    assert (report.windows, report.segments) == (20, 3 + 3 + 2)
    assert [e.frame.canonical_sha256 for e in await everything(ledger)] == [
        frame.canonical_sha256 for frame in frames
    ]


async def test_long_texts_are_spread_over_blocks_and_files(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_layout, "BLOCK_TEXT_BYTES_MAX", 2_500)
    monkeypatch.setattr(archive_module, "SEGMENT_TEXT_BYTES_MAX", 3_000)
    header = FrameHeader("loop-1", "agent-1", (ChannelHeader("state", "1", 1.0, 0.0, "str"),))
    texts = np.array(["räumt auf " * 50, ""], object)
    frames = [
        build_frame(header, n, [np.array([n * 10**9, n * 10**9 + 1])], [texts], [None])
        for n in range(1, 11)
    ]
    await record(ledger, frames)
    assert (await archive_all(ledger, tmp_path)).segments == 2
    groups = await ledger.pool.fetch(
        "select count(*) from archived_payload group by segment_id, row_group"
    )
    assert max(row["count"] for row in groups) == 4
    for event, frame in zip(await everything(ledger), frames, strict=True):
        assert event.frame.canonical_sha256 == frame.canonical_sha256


async def test_a_row_that_is_not_as_recorded_stays_and_is_named(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    await record(ledger, [frame_of(n) for n in range(1, 5)])
    for statement in (
        "alter table event disable trigger event_append_only",
        "update event set payload = 'forged' where position = 2",
        "update event a set payload = b.payload from event b where a.position = 3 "
        "and b.position = 4",
        "alter table event enable trigger event_append_only",
    ):
        await asyncio.to_thread(execute, as_superuser(database_url), statement)
    report = await archive_all(ledger, tmp_path)
    assert (report.windows, report.unsound, report.unsound_count) == (2, [2, 3], 2)
    assert await tiers(ledger) == {1: 1, 2: 0, 3: 0, 4: 1}


# --- what can go wrong --------------------------------------------------------------------


async def test_a_store_that_keeps_something_else_gets_no_payload(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(ledger, skab_frames("valve1/1", 100))
    put = ArchiveStore.put
    for spoil in (
        lambda content: content[: len(content) // 2],
        lambda content: content[:3_000] + bytes([content[3_000] ^ 1]) + content[3_001:],
        lambda content: content[:0],
    ):
        monkeypatch.setattr(
            ArchiveStore,
            "put",
            lambda self, path, content, spoil=spoil: put(self, path, spoil(content)),
        )
        with pytest.raises(Unavailable) as refused:
            await archive_all(ledger, tmp_path)
        assert refused.value.code == "archive.damaged"
        assert str(tmp_path) in refused.value.message
        assert set((await tiers(ledger)).values()) == {0}
    monkeypatch.undo()
    await archive_all(ledger, tmp_path)
    lying = await files(ledger, tmp_path)
    assert lying.on_disk == lying.live
    assert set((await tiers(ledger)).values()) == {1}


async def test_a_file_that_was_changed_later_is_never_believed(
    ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    await record(ledger, [frame_of(n, start_ns=n * 10**9) for n in range(1, 4)])
    other = tmp_path / "other"
    await archive_all(ledger, tmp_path / "archive")
    [path] = (await files(ledger, tmp_path / "archive")).on_disk
    file = tmp_path / "archive" / path
    sound = file.read_bytes()
    async with opened(database_url, "plant-2") as second:
        await record(second, [frame_of(n, start_ns=n * 10**9, length=6) for n in range(1, 4)])
        await archive_all(second, other)
        [forged] = (await files(second, other)).on_disk
    for content in (
        b"",
        b"PAR1",
        sound[:-9],
        sound[:60] + bytes(40) + sound[100:],
        (other / forged).read_bytes(),
    ):
        file.write_bytes(content)
        with pytest.raises(Unavailable) as refused:
            await everything(ledger)
        assert refused.value.code == "archive.damaged"
        assert path in refused.value.message
    file.write_bytes(sound)
    assert len(await everything(ledger)) == 3


async def test_an_archive_out_of_reach_names_the_file(ledger: Ledger, tmp_path: Path) -> None:
    await record(ledger, [frame_of(1)])
    await archive_all(ledger, tmp_path / "archive")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as refused:
        await everything(ledger)
    assert refused.value.code == "archive.file_missing"
    assert ".parquet" in refused.value.message
    # An archive may move: its URL is one row.
    await ledger.pool.execute(
        "update archive_store set url = $1", (tmp_path / "elsewhere").as_uri()
    )
    assert len(await everything(ledger)) == 1
    await ledger.pool.execute("update archive_store set url = 'nosuch://bucket'")
    BLOCKS.clear()
    with pytest.raises(Unavailable) as unknown:
        await everything(ledger)
    assert unknown.value.code == "archive.unavailable"
    await ledger.pool.execute("delete from archived_payload")
    with pytest.raises(Unavailable) as lost:
        await everything(ledger)
    assert (lost.value.code, lost.value.value) == ("archive.payload_lost", 1)


async def test_a_store_that_hangs_is_given_up(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(ledger, [frame_of(1)])
    await archive_all(ledger, tmp_path)
    release = threading.Event()
    monkeypatch.setattr(payloads, "read_block", lambda _: release.wait(30))
    monkeypatch.setattr(payloads.in_thread, "__defaults__", (0.2,))
    try:
        with pytest.raises(Unavailable) as refused:
            await everything(ledger)
    finally:
        release.set()
    assert refused.value.code == "archive.unavailable"


@pytest.mark.parametrize(
    "url", ["", "x" * 501, "nosuch://bucket/x", "sftp://me:secret@host/x", "a\nb"]
)
def test_a_url_that_cannot_be_an_archive_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ArchiveStore(url)
    assert refused.value.code == "archive.url"
    assert "secret" not in str(refused.value)


# --- together -----------------------------------------------------------------------------


async def test_two_archive_runs_at_once_do_no_harm(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url) as one, opened(database_url) as two:
        frames = [
            frame_of(n, start_ns=(n % 8) * DAY_NS + n * 10**9, agent=f"agent-{n % 3}")
            for n in range(1, 120)
        ]
        await record(one, frames)
        reports = await asyncio.gather(archive_all(one, tmp_path), archive_all(two, tmp_path))
        assert sum(report.windows for report in reports) == len(frames)
        lying = await files(one, tmp_path)
        assert lying.on_disk == lying.live
        assert [e.frame.canonical_sha256 for e in await everything(two)] == [
            frame.canonical_sha256 for frame in frames
        ]


async def test_writers_and_readers_go_on_beside_it(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url) as writer, opened(database_url) as archiver:
        frames = [frame_of(n, start_ns=n * 10**9) for n in range(1, 81)]
        await record(writer, frames[:20])
        done = asyncio.Event()

        async def write() -> None:
            for frame in frames[20:]:
                await record(writer, [frame])
            done.set()

        async def read() -> int:
            rounds = 0
            while not done.is_set():
                for event in await everything(writer):
                    assert event.frame.canonical_sha256 == event.payload_sha256
                rounds += 1
            return rounds

        async def move() -> int:
            moved = 0
            while not done.is_set():
                moved += (await archive_all(archiver, tmp_path)).windows
                await asyncio.sleep(0.01)
            return moved

        _, rounds, moved = await asyncio.gather(write(), read(), move())
        assert rounds > 0
        assert moved >= 20
        assert [e.frame.canonical_sha256 for e in await everything(writer)] == [
            frame.canonical_sha256 for frame in frames
        ]


async def test_a_busy_archive_is_said(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventlog.archive.segments.LOCK_WAIT_S", 0.3)
    await record(ledger, [frame_of(1)])
    async with locked(archived_ledger(ledger)):
        with pytest.raises(Unavailable) as refused:
            await archive_all(ledger, tmp_path)
    assert refused.value.code == "archive.busy"
    assert (await archive_all(ledger, tmp_path)).windows == 1


async def test_who_lost_the_lock_commits_nothing(
    ledger: Ledger, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file was taken for a leftover and removed by whoever holds the lock now."""
    await record(ledger, [frame_of(1)])
    put = ArchiveStore.put

    def overtaken(self: ArchiveStore, path: str, content: bytes) -> None:
        put(self, path, content)
        execute(database_url, "update archive_segment set state = 'retired'")

    monkeypatch.setattr(ArchiveStore, "put", overtaken)
    with pytest.raises(Unavailable) as refused:
        await archive_all(ledger, tmp_path)
    assert refused.value.code == "archive.lock_lost"
    assert await tiers(ledger) == {1: 0}
    monkeypatch.undo()
    assert (await archive_all(ledger, tmp_path)).windows == 1
    lying = await files(ledger, tmp_path)
    assert lying.on_disk == lying.live


async def test_files_that_no_row_names_are_recognised(ledger: Ledger, tmp_path: Path) -> None:
    await record(ledger, [frame_of(1)])
    await archive_all(ledger, tmp_path)
    stray = "ledger=plant-1/asset=loop-1/day=1970-01-01/.1-00.parquet.part"
    (tmp_path / stray).write_bytes(b"half")
    (tmp_path / "ledger=plant-2").mkdir()
    (tmp_path / "ledger=plant-2" / "x.parquet").write_bytes(b"somebody else's")
    store = ArchiveStore(str(tmp_path))
    assert await find_strays(archived_ledger(ledger), store) == [stray]


# --- memory -------------------------------------------------------------------------------


async def test_blocks_in_memory_are_bounded_and_read_once(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [frame_of(n, start_ns=n * DAY_NS, length=1_000) for n in range(1, 7)]
    await record(ledger, frames)
    await archive_all(ledger, tmp_path)
    places = list((await payloads.locate(ledger.pool, ledger.ledger_id, range(1, 7))).values())
    reads: list[Place] = []
    read_block = payloads.read_block

    def counted(place: Place) -> object:
        reads.append(place)
        return read_block(place)

    monkeypatch.setattr(payloads, "read_block", counted)
    one = read_block(places[0]).memory_bytes
    cache = BlockCache(bytes_max=2 * one)
    await asyncio.gather(*(asyncio.to_thread(cache.get, places[0]) for _ in range(8)))
    assert reads == places[:1]
    for place in places:
        cache.get(place)
    assert cache.memory_bytes <= 2 * one
    cache.get(places[-1])
    assert reads == places
    cache.get(places[0])
    assert reads == [*places, places[0]]
    missing = Place(places[0].url, "nothing.parquet", 0)
    for _ in range(2):
        with pytest.raises(Unavailable):
            cache.get(missing)
