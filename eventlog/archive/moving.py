"""The archive run: payloads of old frames move from their rows to Parquet files.

It may be killed at any moment and simply run again, beside writers, readers and another archive
run: a payload leaves its row in the very transaction that says in which file it lies, after
that file was read back and hashed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from domain.errors import InvalidInput
from domain.frame_decoding import decode_many
from domain.frame_stacks import hash_frames
from domain.frames import Frame, FrameHeader
from eventlog.archive.layout import Window, text_bytes
from eventlog.archive.segments import (
    ArchivedLedger,
    Published,
    day_of,
    locked,
    publish,
    remove_unsettled,
)
from eventlog.archive.store import ArchiveStore
from eventlog.database import Connection
from eventlog.erasure import finish_erasures

PLAN_FRAMES_MAX: Final = 100_000
"""Frames that are sorted into files at a time."""
SEGMENT_WINDOWS_MAX: Final = 5_000
SEGMENT_READINGS_MAX: Final = 2_000_000
SEGMENT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of payloads as they lie in their rows."""
SEGMENT_TEXT_BYTES_MAX: Final = 64 * 1024 * 1024
UNSOUND_MAX: Final = 100
"""Positions that a report names."""


@dataclass
class ArchiveReport:
    """What a run did.

    Parameters
    ----------
    row_bytes : of the payloads that left their rows
    unsound : positions of frames whose payload is not the recorded one; they stay in their rows
    unsound_count : of them all, also those not named
    left_behind : files to be deleted that could not be reached
    """

    windows: int = 0
    readings: int = 0
    segments: int = 0
    row_bytes: int = 0
    file_bytes: int = 0
    unsound: list[int] = field(default_factory=list)
    unsound_count: int = 0
    left_behind: list[str] = field(default_factory=list)

    def add(self, published: Published) -> None:
        """Count a file."""
        self.segments += 1
        self.windows += published.windows
        self.readings += published.readings
        self.file_bytes += published.file_bytes

    def note_unsound(self, position: int) -> None:
        """Name a frame that stays where it is."""
        self.unsound_count += 1
        if len(self.unsound) < UNSOUND_MAX:
            self.unsound.append(position)


async def archive(
    ledger: ArchivedLedger,
    store: ArchiveStore,
    *,
    older_than: timedelta,
    now: datetime,
    progress: Callable[[ArchiveReport], None] | None = None,
) -> ArchiveReport:
    """Move payloads of frames recorded up to `now` - `older_than` to `store`.

    Erasures that were recorded and not carried out are finished first.

    Raises
    ------
    InvalidInput
        ``archive.retention``: `older_than` is negative
    Unavailable
        ``archive.*``: the store cannot be reached, or somebody else is at work; what is done
        by then is done, and the next run goes on from there
    """
    if older_than < timedelta(0):
        raise InvalidInput(
            "archive.retention", f"a retention of {older_than} is negative", value=str(older_than)
        )
    await finish_erasures(ledger)
    await _tidy(ledger)
    report = ArchiveReport()
    up_to = await ledger.pool.fetchval(
        "select position_recorded_by($1, $2)", ledger.ledger_id, now - older_than
    )
    async for plan, planned_to in _plans(ledger, up_to):
        for stream, positions in plan:
            await _archive_cut(ledger, store, stream, positions, report)
            if progress is not None:
                progress(report)
        await _advance(ledger, planned_to)
    report.left_behind = await _tidy(ledger)
    return report


async def _tidy(ledger: ArchivedLedger) -> list[str]:
    """Delete what others, or we, have left behind; return what cannot be reached now."""
    async with locked(ledger) as connection:
        return await remove_unsettled(connection, ledger)


# --- what goes into which file ------------------------------------------------------------


async def _plans(
    ledger: ArchivedLedger, up_to: int
) -> AsyncIterator[tuple[list[tuple[str, list[int]]], int]]:
    """Yield (cuts, position up to which nothing else is to be archived), to the end."""
    done: int = await ledger.pool.fetchval(
        "select coalesce(max(position), 0) from archive_progress where ledger_id = $1",
        ledger.ledger_id,
    )
    while done < up_to:
        rows = await ledger.pool.fetch(
            """
            select position, stream, window_start_ns, reading_count,
                octet_length(payload) as payload_bytes
            from event where ledger_id = $1 and position > $2 and position <= $3
                and window_end_ns is not null and payload_tier = 0
            order by position limit $4
            """,
            ledger.ledger_id,
            done,
            up_to,
            PLAN_FRAMES_MAX,
        )
        done = rows[-1]["position"] if len(rows) == PLAN_FRAMES_MAX else up_to
        yield list(_cuts(rows)), done


def _cuts(rows: Sequence[asyncpg.Record]) -> Iterator[tuple[str, list[int]]]:
    """Yield (stream, positions in the order of time): what is read, and filed, together."""
    by_day: dict[tuple[str, int], list[asyncpg.Record]] = {}
    for row in rows:
        day = day_of(row["window_start_ns"]).toordinal()
        by_day.setdefault((row["stream"], day), []).append(row)
    for (stream, _), frames in sorted(by_day.items(), key=lambda item: item[0]):
        frames.sort(key=lambda row: (row["window_start_ns"], row["position"]))
        cut: list[int] = []
        readings = size = 0
        for row in frames:
            readings += row["reading_count"]
            size += row["payload_bytes"] or 0
            full = readings > SEGMENT_READINGS_MAX or size > SEGMENT_BYTES_MAX
            if cut and (full or len(cut) == SEGMENT_WINDOWS_MAX):
                yield stream, cut
                cut, readings, size = [], row["reading_count"], row["payload_bytes"] or 0
            cut.append(row["position"])
        yield stream, cut


async def _advance(ledger: ArchivedLedger, position: int) -> None:
    await ledger.pool.execute(
        """
        insert into archive_progress (ledger_id, position) values ($1, $2)
        on conflict (ledger_id) do update
            set position = greatest(archive_progress.position, excluded.position)
        """,
        ledger.ledger_id,
        position,
    )


# --- moving -------------------------------------------------------------------------------


async def _archive_cut(
    ledger: ArchivedLedger,
    store: ArchiveStore,
    stream: str,
    positions: Sequence[int],
    report: ArchiveReport,
) -> None:
    async with locked(ledger) as connection:
        rows = await _still_in_rows(connection, ledger, positions)
        by_header, unsound = await asyncio.to_thread(_decoded, rows)
        for position in unsound:
            report.note_unsound(position)
        sizes = {row["position"]: len(row["payload"]) for row in rows}
        order = {position: n for n, position in enumerate(positions)}
        for windows in by_header.values():
            windows.sort(key=lambda window: order[window.position])
            for some in _within_text_bounds(windows):
                report.add(await publish(connection, ledger, store, stream, some))
            report.row_bytes += sum(sizes[window.position] for window in windows)


def _within_text_bounds(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield `windows` in runs of bounded text: repeated, it is far longer than when encoded."""
    some: list[Window] = []
    size = 0
    for window in windows:
        length = text_bytes(window.frame)
        size += length
        if some and size > SEGMENT_TEXT_BYTES_MAX:
            yield some
            some, size = [], length
        some.append(window)
    yield some


async def _still_in_rows(
    connection: Connection, ledger: ArchivedLedger, positions: Sequence[int]
) -> list[asyncpg.Record]:
    """Return the rows of `positions` that nobody else archived or erased meanwhile."""
    return await connection.fetch(
        "select position, payload, payload_sha256 from event where ledger_id = $1 "
        "and position = any($2::bigint[]) and payload_tier = 0 and payload is not null",
        ledger.ledger_id,
        list(positions),
    )


def _decoded(
    rows: Sequence[asyncpg.Record],
) -> tuple[dict[FrameHeader, list[Window]], list[int]]:
    """Return the frames by their header, and the positions of those that are not as recorded."""
    by_header: dict[FrameHeader, list[Window]] = {}
    unsound = []
    frames = decode_many([row["payload"] for row in rows])
    hash_frames([frame for frame in frames if isinstance(frame, Frame)])
    for row, frame in zip(rows, frames, strict=True):
        if not isinstance(frame, Frame) or frame.canonical_sha256 != row["payload_sha256"]:
            unsound.append(row["position"])
            continue
        by_header.setdefault(frame.header, []).append(Window(row["position"], frame))
    return by_header, unsound
