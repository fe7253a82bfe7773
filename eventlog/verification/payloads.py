"""Payloads against their hashes: in rows, in the archive, or erased as the log says.

What stands beside a frame in its row, window and statistics, has to follow from the frame.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import numpy as np

from domain.asset import telemetry_stream
from domain.errors import HeddleError, Unavailable
from domain.events import FRAME_RECORDED
from domain.frame_decoding import decode, decode_many
from domain.frame_stacks import hash_frames
from domain.frame_statistics import (
    channel_statistics_many,
    pack_statistics,
    unpack_statistics,
    unpack_texts,
)
from domain.frames import Frame
from eventlog.archive.payloads import in_thread, locate, recorded_erasures
from eventlog.database import Connection, Pool
from eventlog.envelope import PayloadTier
from eventlog.transparency.tiles import ENTRY_COLUMNS, ENTRY_NAMES
from eventlog.verification.findings import Erased, Verification

if TYPE_CHECKING:
    from eventlog.archive.segments import LiveSegment

SUM_TOLERANCE: Final = 1e-9
"""Of the magnitude of a sum."""
SEGMENTS_A_PAGE: Final = 200
SEGMENT_TIMEOUT_S: Final = 600.0

BESIDE_COLUMNS: Final = (
    "leaf_hash, payload_tier, source, sequence, window_start_ns, window_end_ns, reading_count, "
    "statistics"
)
"""Columns beside the envelope's that a payload is compared with."""

_POSITION, _PAYLOAD_SHA256 = ENTRY_NAMES.index("position"), ENTRY_NAMES.index("payload_sha256")
_STREAM, _TYPE = ENTRY_NAMES.index("stream"), ENTRY_NAMES.index("type")
_VERSION: Final = ENTRY_NAMES.index("version")
_WINDOW: Final = ("window_start_ns", "window_end_ns", "reading_count", "statistics")


def payload_sha256(event_type: str, payload: bytes) -> bytes:
    """Return the hash that an envelope gives `payload`: a frame's is over its canonical form.

    Raises
    ------
    MalformedFrame
        a frame's bytes that are no frame
    """
    if event_type == FRAME_RECORDED:
        return decode(payload).canonical_sha256
    return hashlib.sha256(payload).digest()


def add_finding(
    report: Verification,
    code: str,
    row: asyncpg.Record,
    message: str,
    expected: Any = None,
    actual: Any = None,
) -> None:
    """Note a finding about the event of `row`."""
    report.add(
        code,
        f"event {row[_POSITION]} ({row[_TYPE]}, {row[_STREAM]} v{row[_VERSION]}): {message}"
        + ("" if expected is None else f"; expected {expected}, found {actual}"),
        position=row[_POSITION],
        stream=row[_STREAM],
        expected=expected,
        actual=actual,
    )


class PayloadChecks:
    """The payloads of one verification, on one snapshot."""

    def __init__(
        self,
        connection: Connection,
        ledger_id: int,
        report: Verification,
        erasures: dict[int, int],
        *,
        archive: bool,
    ) -> None:
        self._connection = connection
        self._ledger_id = ledger_id
        self._report = report
        self._erasures = erasures
        self._archive = archive
        self._in_segments: dict[int, int] = {}
        """How many payloads each file of the archive is said to hold."""

    @classmethod
    async def begin(
        cls, connection: Connection, ledger_id: int, report: Verification, *, archive: bool
    ) -> PayloadChecks:
        """Return the checks of a verification, knowing every erasure that was recorded."""
        erasures = await recorded_erasures(connection, ledger_id, report.ledger)
        return cls(connection, ledger_id, report, erasures, archive=archive)

    # --- in rows --------------------------------------------------------------------------

    def check_fact(self, row: asyncpg.Record, payload: bytes) -> None:
        """Compare the payload of a fact, which is no frame."""
        self._report.payloads += 1
        self._check_not_erased(row)
        expected = row[_PAYLOAD_SHA256]
        actual = hashlib.sha256(payload).hexdigest()
        if actual != expected:
            self._add(
                "event.payload_mismatch", row, "its payload is not the recorded one",
                expected, actual,
            )  # fmt: skip
        if any(row[name] is not None for name in _WINDOW):
            self._add("event.window_mismatch", row, "it is no frame, but has a frame's window")

    def check_frames(self, rows: Sequence[asyncpg.Record], payloads: Sequence[bytes]) -> None:
        """Compare the payloads of frames and what stands beside them."""
        found = []
        for row, frame in zip(rows, decode_many(payloads), strict=True):
            self._report.payloads += 1
            self._check_not_erased(row)
            if isinstance(frame, Frame):
                found.append((row, frame))
            else:
                self._add("event.payload_unreadable", row, f"its frame cannot be read: {frame}")
        self._compare(found)

    def _compare(self, found: Sequence[tuple[asyncpg.Record, Frame]]) -> None:
        frames = [frame for _, frame in found]
        hash_frames(frames)
        for (row, frame), computed in zip(found, channel_statistics_many(frames), strict=True):
            expected, actual = row[_PAYLOAD_SHA256], frame.canonical_sha256.hex()
            if actual != expected:
                self._add(
                    "event.payload_mismatch", row, "its frame is not the recorded one",
                    expected, actual,
                )  # fmt: skip
            self._check_window(row, frame)
            if not _same_statistics(frame, computed, row["statistics"]):
                self._add(
                    "event.statistics_mismatch", row, "its statistics do not follow from its frame"
                )

    def _check_window(self, row: asyncpg.Record, frame: Frame) -> None:
        for name, should in _window_of(frame).items():
            if row[name] != should:
                self._add(
                    "event.window_mismatch", row, f"{name} does not follow from its frame",
                    should, row[name],
                )  # fmt: skip
        if row[_STREAM] != telemetry_stream(frame.header.asset):
            self._add(
                "event.window_mismatch", row, "its frame belongs to another stream",
                telemetry_stream(frame.header.asset), row[_STREAM],
            )  # fmt: skip

    # --- not in rows ----------------------------------------------------------------------

    def _check_not_erased(self, row: asyncpg.Record) -> None:
        erased_by = self._erasures.get(row[_POSITION])
        if erased_by is not None:
            self._add(
                "event.erasure_unfinished",
                row,
                f"event {erased_by} records that its payload is erased, and it is still there; run "
                "`heddle erase --finish`",
            )

    async def check_absent(self, rows: Sequence[asyncpg.Record]) -> None:
        """Judge rows without a payload by what the log or the archive says of it."""
        archived = []
        for row in rows:
            match row["payload_tier"]:
                case PayloadTier.ARCHIVE:
                    archived.append(row)
                case PayloadTier.ERASED:
                    self._check_erased(row)
                case _:
                    self._add(
                        "event.payload_missing", row, "its payload is gone and nothing says why"
                    )
        if archived:
            await self._check_placed(archived)

    def _check_erased(self, row: asyncpg.Record) -> None:
        erased_by = self._erasures.get(row[_POSITION])
        if erased_by is None:
            self._add(
                "event.erasure_unrecorded", row, "its payload is erased and no event records that"
            )
            return
        self._report.add_erased(Erased(row[_POSITION], row[_STREAM], erased_by))
        if row["statistics"] is not None:
            self._add(
                "event.erasure_unfinished", row, "its payload is erased, its statistics are not"
            )

    async def _check_placed(self, rows: Sequence[asyncpg.Record]) -> None:
        """Note archived payloads that no file in use is said to hold."""
        places = await self._connection.fetch(
            "select p.position, p.segment_id from archived_payload p "
            "join archive_segment s using (segment_id) "
            "where p.ledger_id = $1 and p.position = any($2::bigint[]) and s.state = 'live'",
            self._ledger_id,
            [row[_POSITION] for row in rows],
        )
        segments = {place["position"]: place["segment_id"] for place in places}
        for row in rows:
            self._report.payloads_archived += 1
            self._check_not_erased(row)
            segment = segments.get(row[_POSITION])
            if segment is None:
                self._add(
                    "archive.payload_lost", row, "its payload was archived and no file holds it"
                )
            else:
                self._in_segments[segment] = self._in_segments.get(segment, 0) + 1

    # --- in the archive -------------------------------------------------------------------

    async def check_archive(self, pool: Pool) -> None:
        """Compare every payload in the archive, file by file.

        Parameters
        ----------
        pool : to see what became of a file that was replaced since the snapshot
        """
        if not self._in_segments or not self._archive:
            return
        from eventlog.archive.segments import live_segments

        after = 0
        while segments := await live_segments(
            self._connection, self._ledger_id, after=after, limit=SEGMENTS_A_PAGE
        ):
            after = segments[-1].segment_id
            for segment in segments:
                if segment.segment_id in self._in_segments:
                    await self._check_segment(pool, segment)

    async def _check_segment(self, pool: Pool, segment: LiveSegment) -> None:
        due = self._in_segments[segment.segment_id]
        try:
            frames = await in_thread(partial(_frames_in, segment), segment.file, SEGMENT_TIMEOUT_S)
        except Unavailable as error:
            if not await self._replaced(pool, segment):
                self._report.add(
                    error.code,
                    f"{due} payloads of {segment.stream} cannot be compared: {error.message}",
                    stream=segment.stream,
                    position=segment.first_position,
                    expected=due,
                    actual=0,
                )
            return
        found = await self._check_archived(segment.segment_id, frames)
        if found != due:
            self._report.add(
                "archive.payload_lost",
                f"{segment.file} holds {found} of the {due} payloads of {segment.stream} that it "
                "is said to hold",
                stream=segment.stream,
                position=segment.first_position,
                expected=due,
                actual=found,
            )

    async def _check_archived(self, segment_id: int | None, frames: dict[int, Frame]) -> int:
        """Compare `frames` by position, those that are read from this file; return how many."""
        rows = await self._connection.fetch(
            f"""
            select {ENTRY_COLUMNS}, {BESIDE_COLUMNS}, p.segment_id
            from event join archived_payload p using (ledger_id, position)
            where ledger_id = $1 and position = any($3::bigint[]) and payload_tier = 1
            """,
            self._ledger_id,
            self._report.ledger,
            list(frames),
        )
        found = [
            (row, frames[row[_POSITION]])
            for row in rows
            if segment_id is None or row["segment_id"] == segment_id
        ]
        self._compare(found)
        self._report.payloads += len(found)
        return len(found)

    async def _replaced(self, pool: Pool, segment: LiveSegment) -> bool:
        """Whether the file was compacted or erased since the snapshot; then look where it went."""
        from eventlog.archive.payloads import read_block

        if await pool.fetchval(
            "select exists (select from archive_segment where segment_id = $1 and state = 'live')",
            segment.segment_id,
        ):
            return False
        rows = await self._connection.fetch(
            "select position from archived_payload where ledger_id = $1 and segment_id = $2 "
            "and position between $3 and $4",
            self._ledger_id,
            segment.segment_id,
            segment.first_position,
            segment.last_position,
        )
        # What has no place any more was erased meanwhile, and is none of this snapshot's.
        places = await locate(pool, self._ledger_id, [row["position"] for row in rows])
        for place in set(places.values()):
            try:
                block = await in_thread(partial(read_block, place), place.file)
            except Unavailable:
                return False
            await self._check_archived(
                None,
                {w.position: w.frame for w in block.windows if places.get(w.position) == place},
            )
        return True

    def _add(
        self,
        code: str,
        row: asyncpg.Record,
        message: str,
        expected: Any = None,
        actual: Any = None,
    ) -> None:
        add_finding(self._report, code, row, message, expected, actual)


def _frames_in(segment: LiveSegment) -> dict[int, Frame]:
    from eventlog.archive.segments import read_windows

    frames = {window.position: window.frame for window in read_windows(segment)}
    hash_frames(list(frames.values()))
    return frames


def _window_of(frame: Frame) -> dict[str, Any]:
    return {
        "source": f"agent:{frame.header.agent}",
        "sequence": frame.sequence,
        "window_start_ns": frame.window_start_ns,
        "window_end_ns": frame.window_end_ns,
        "reading_count": frame.reading_count,
    }


def _same_statistics(frame: Frame, computed: Any, packed: bytes | None) -> bool:
    if packed is None:
        return False
    try:
        names, stored = unpack_statistics(packed)
        texts = unpack_texts(packed)
    except (HeddleError, ValueError, struct.error):
        return False
    channels = frame.header.channels
    if names != tuple(channels[index].name for index in frame.numeric_channels):
        return False
    if len(stored) != len(computed):
        return False
    if frame.text_channels and texts != unpack_texts(pack_statistics(frame)):
        return False
    # In which order a processor adds is its own affair; everything else is exact.
    squares = computed["sum_of_squares"]
    magnitudes = {"sum": np.sqrt(computed["good_count"] * squares), "sum_of_squares": squares}
    return all(
        bool(np.all(np.abs(stored[name] - computed[name]) <= SUM_TOLERANCE * magnitudes[name]))
        if name in magnitudes
        else np.array_equal(stored[name], computed[name])
        for name in computed.dtype.names or ()
    )
