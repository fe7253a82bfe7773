"""Compaction: short files of one day become one, so that cold readings lie in long blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg

from domain.frames import FrameHeader
from eventlog.archive.layout import BLOCK_WINDOWS_MAX, Window
from eventlog.archive.segments import (
    ArchivedLedger,
    LiveSegment,
    checked_windows,
    live_segments,
    locked,
    publish,
    remove_unsettled,
)
from eventlog.archive.store import ArchiveStore
from eventlog.database import Connection

SHORT_WINDOWS: Final = BLOCK_WINDOWS_MAX
"""A file with fewer windows does not fill a block."""
FILES_AT_ONCE: Final = 100
READINGS_AT_ONCE: Final = 2_000_000


@dataclass
class CompactionReport:
    """What a compaction did: `files` short ones became `segments` longer ones."""

    files: int = 0
    segments: int = 0
    windows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


async def compact(ledger: ArchivedLedger, store: ArchiveStore) -> CompactionReport:
    """Merge short files of the same stream, day and frame header into `store`.

    It may be killed at any moment; readers find every payload throughout.

    Raises
    ------
    Unavailable
        ``archive.*``: a file cannot be reached or is not as it was written; it stays as it is
    """
    report = CompactionReport()
    for row in await _days_with_short_files(ledger):
        async with locked(ledger) as connection:
            await _compact_day(connection, ledger, store, row, report)
    async with locked(ledger) as connection:
        await remove_unsettled(connection, ledger)
    return report


async def _days_with_short_files(ledger: ArchivedLedger) -> list[asyncpg.Record]:
    return await ledger.pool.fetch(
        """
        select stream, day from archive_segment
        where ledger_id = $1 and state = 'live' and window_count < $2
        group by stream, day having count(*) > 1 order by stream, day
        """,
        ledger.ledger_id,
        SHORT_WINDOWS,
    )


async def _compact_day(
    connection: Connection,
    ledger: ArchivedLedger,
    store: ArchiveStore,
    row: asyncpg.Record,
    report: CompactionReport,
) -> None:
    stream, day = row["stream"], row["day"]
    segments = await live_segments(connection, ledger.ledger_id, stream=stream, day=day)
    short = [segment for segment in segments if segment.window_count < SHORT_WINDOWS]
    by_header: dict[FrameHeader, list[tuple[LiveSegment, list[Window]]]] = {}
    files = readings = 0
    for segment in short:
        windows = await checked_windows(connection, ledger, segment)
        of_this = sum(window.frame.reading_count for window in windows)
        if files == FILES_AT_ONCE or readings + of_this > READINGS_AT_ONCE:
            await _merge_each(connection, ledger, store, stream, by_header, report)
            by_header, files, readings = {}, 0, 0
        by_header.setdefault(windows[0].frame.header, []).append((segment, windows))
        files, readings = files + 1, readings + of_this
    await _merge_each(connection, ledger, store, stream, by_header, report)


async def _merge_each(
    connection: Connection,
    ledger: ArchivedLedger,
    store: ArchiveStore,
    stream: str,
    by_header: Mapping[FrameHeader, Sequence[tuple[LiveSegment, list[Window]]]],
    report: CompactionReport,
) -> None:
    for files in by_header.values():
        if len(files) > 1:
            await _merge(connection, ledger, store, stream, files, report)


async def _merge(
    connection: Connection,
    ledger: ArchivedLedger,
    store: ArchiveStore,
    stream: str,
    files: Sequence[tuple[LiveSegment, list[Window]]],
    report: CompactionReport,
) -> None:
    windows = [window for _, held in files for window in held]
    windows.sort(key=lambda window: (window.frame.window_start_ns, window.position))
    replaced = [segment for segment, _ in files]
    report.bytes_before += await connection.fetchval(
        "select sum(file_bytes)::bigint from archive_segment where segment_id = any($1::integer[])",
        [segment.segment_id for segment in replaced],
    )
    published = await publish(connection, ledger, store, stream, windows, replaced=replaced)
    report.files += len(files)
    report.segments += 1
    report.windows += published.windows
    report.bytes_after += published.file_bytes
