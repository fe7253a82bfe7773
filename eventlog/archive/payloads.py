"""Payloads that left their rows: where they lie in the archive, and events filled with them.

The files are outside the database, so what comes from them is believed only when it hashes to
what its event says.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from domain.errors import HeddleError, InvalidInput, Unavailable
from domain.events import decode_fact
from domain.frame_encoding import encode_many
from domain.frame_stacks import hash_frames
from domain.frames import Frame
from domain.ledger_events import PayloadsErased, ledger_stream
from eventlog.decoded import DECODED
from eventlog.envelope import RECORDED_COLUMNS, PayloadTier, RecordedEvent

if TYPE_CHECKING:
    from eventlog.archive.layout import Block
    from eventlog.archive.store import ArchiveStore
    from eventlog.database import Connection, Pool

THREADS: Final = 4
"""Blocks read at once; an archive that does not answer holds up these and nobody else."""
READ_TIMEOUT_S: Final = 60.0
CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
STORES_MAX: Final = 16
LOOKUPS_MAX: Final = 3
"""Times a payload is looked up anew because its file was replaced meanwhile."""

PAYLOADS_ERASED: Final = "ledger.payloads_erased"

T = TypeVar("T")

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="heddle-archive")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a payload lies: a row group of a file of an archive."""

    url: str
    path: str
    row_group: int

    @property
    def file(self) -> str:
        """The file's whole name."""
        return f"{self.url}/{self.path}"


async def locate(
    connection: Pool | Connection, ledger_id: int, positions: Iterable[int]
) -> dict[int, Place]:
    """Return where the payloads of `positions` lie, as far as the archive has them."""
    rows = await connection.fetch(
        """
        select p.position, p.row_group, s.path, t.url
        from archived_payload p join archive_segment s using (segment_id)
            join archive_store t using (store_id)
        where p.ledger_id = $1 and p.position = any($2::bigint[])
        """,
        ledger_id,
        list(positions),
    )
    return {row["position"]: Place(row["url"], row["path"], row["row_group"]) for row in rows}


async def fill(pool: Pool, ledger_id: int, events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Return `events`, with their payloads those that have it in the archive.

    Such a payload is encoded anew: its bytes may differ from those that were recorded, the
    frame's canonical form and hash do not.

    Raises
    ------
    Unavailable
        ``archive.unavailable``, ``archive.file_missing``, ``archive.damaged`` or
        ``archive.payload_lost``, naming the file or the event
    """
    wanted = {
        event.position: event
        for event in events
        if event.payload is None and event.payload_tier == PayloadTier.ARCHIVE
    }
    if not wanted:
        return events
    erased = await _fill_in(pool, ledger_id, wanted)
    return [erased.get(event.position, event) for event in events]


async def _fill_in(
    pool: Pool, ledger_id: int, wanted: dict[int, RecordedEvent]
) -> dict[int, RecordedEvent]:
    """Give the events `wanted` their payloads; return those that were erased meanwhile."""
    erased: dict[int, RecordedEvent] = {}
    for lookup in range(1, LOOKUPS_MAX + 1):
        left = {n: event for n, event in wanted.items() if event.payload is None}
        places = await locate(pool, ledger_id, left)
        erased |= await _erased_meanwhile(pool, ledger_id, left.keys() - places.keys(), left)
        by_place: dict[Place, list[RecordedEvent]] = {}
        for position in sorted(places):
            by_place.setdefault(places[position], []).append(left[position])
        moved = False
        for place, group in by_place.items():
            try:
                frames = await in_thread(partial(_read, place, group), place.file)
            except Unavailable as error:
                # A file that was replaced since it was looked up is found elsewhere now.
                moved = error.code == "archive.file_missing" and lookup < LOOKUPS_MAX
                if not moved:
                    raise
                continue
            for event, (frame, encoded) in zip(group, frames, strict=True):
                event.payload = encoded
                DECODED.put(frame)
        if not moved:
            break
    return erased


async def _erased_meanwhile(
    pool: Pool, ledger_id: int, positions: Iterable[int], events: Mapping[int, RecordedEvent]
) -> dict[int, RecordedEvent]:
    """Return the events at `positions` as they are now; their payloads were erased.

    Raises
    ------
    Unavailable
        ``archive.payload_lost`` when one was not
    """
    wanted = list(positions)
    if not wanted:
        return {}
    rows = await pool.fetch(
        f"select {', '.join(RECORDED_COLUMNS)}, null::bytea as payload from event "
        "where ledger_id = $1 and position = any($2::bigint[]) and payload_tier = 2",
        ledger_id,
        wanted,
    )
    ledger = events[wanted[0]].ledger
    erased = {row["position"]: RecordedEvent(ledger, row) for row in rows}
    for position in wanted:
        if position not in erased:
            raise Unavailable(
                "archive.payload_lost",
                f"the payload of {ledger}/{position} was archived and nothing says where it lies",
                hint="restore the table archived_payload; `heddle verify` finds what else is lost",
                value=position,
            )
    return erased


def _read(place: Place, events: Sequence[RecordedEvent]) -> list[tuple[Frame, bytes]]:
    """Return frame and payload of each of `events`, which lie at `place`, checked by its hash."""
    from eventlog.archive.layout import damaged

    block = BLOCKS.get(place)
    found: list[Frame] = []
    hash_frames([window.frame for window in block.windows])
    for event in events:
        frame = block.frame(event.position)
        if frame is None or frame.canonical_sha256 != event.payload_sha256:
            BLOCKS.forget(place)  # the file may be restored
            what = "not in it" if frame is None else "not the recorded one"
            raise damaged(place.file, f"event {event.position} is {what}")
        found.append(frame)
    fresh = [n for n, event in enumerate(events) if event.position not in block.encoded]
    for n, encoded in zip(fresh, encode_many([found[n] for n in fresh]), strict=True):
        block.encoded[events[n].position] = encoded
    return [
        (frame, block.encoded[event.position]) for frame, event in zip(found, events, strict=True)
    ]


async def recorded_erasures(
    connection: Connection | Pool, ledger_id: int, ledger: str
) -> dict[int, int]:
    """Return, for each position that a recorded event erases, the position of that event.

    An event that cannot be read erases nothing here: its payload is found wrong by `heddle
    verify`.
    """
    rows = await connection.fetch(
        "select position, schema_version, payload from event where ledger_id = $1 "
        "and stream = $2 and type = $3 and payload is not null order by position",
        ledger_id,
        ledger_stream(ledger),
        PAYLOADS_ERASED,
    )
    erasures: dict[int, int] = {}
    for row in rows:
        try:
            event: PayloadsErased = decode_fact(
                PAYLOADS_ERASED, row["schema_version"], row["payload"]
            )
        except (HeddleError, ValueError, KeyError, TypeError):
            continue
        for position in event.positions:
            if position < row["position"]:
                erasures.setdefault(position, row["position"])
    return erasures


async def in_thread(work: Callable[[], T], file: str, timeout_s: float = READ_TIMEOUT_S) -> T:
    """Return what `work`, which reads or writes `file`, returns in a thread of the archive's.

    Raises
    ------
    Unavailable
        ``archive.unavailable`` after `timeout_s`, and whatever `work` raises
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            return await loop.run_in_executor(_threads, work)
    except TimeoutError as error:
        raise Unavailable(
            "archive.unavailable",
            f"archive file {file} did not answer within {timeout_s:g} s",
            hint="try again once the archive can be reached",
            value=file,
            limit=timeout_s,
        ) from error


# --- blocks in memory ---------------------------------------------------------------------


class BlockCache:
    """Recently read blocks, bounded by what they take in memory; for use by many threads.

    A block that several threads want at once is read by one of them. Files are written once
    and never changed, so a block in memory cannot go stale.
    """

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._blocks: OrderedDict[Place, Block] = OrderedDict()
        self._reading: dict[Place, Future[Block]] = {}
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """What the blocks held take."""
        return self._bytes

    def get(self, place: Place) -> Block:
        """Return the block at `place`, read unless it is remembered.

        Raises
        ------
        Unavailable
            ``archive.*``
        """
        with self._lock:
            held = self._blocks.get(place)
            if held is not None:
                self._blocks.move_to_end(place)
                return held
            reading = self._reading.get(place)
            mine = reading is None
            if reading is None:
                reading = self._reading[place] = Future()
        if mine:
            self._read(place, reading)
        return reading.result()

    def forget(self, place: Place) -> None:
        """Read the block at `place` anew when it is wanted again."""
        with self._lock:
            held = self._blocks.pop(place, None)
            if held is not None:
                self._bytes -= held.memory_bytes

    def clear(self) -> None:
        """Forget every block."""
        with self._lock:
            self._blocks.clear()
            self._bytes = 0

    def _read(self, place: Place, reading: Future[Block]) -> None:
        try:
            block = read_block(place)
        except BaseException as error:
            with self._lock:
                del self._reading[place]
            reading.set_exception(error)
            return
        with self._lock:
            del self._reading[place]
            self._blocks[place] = block
            self._bytes += block.memory_bytes
            while self._bytes > self._bytes_max and len(self._blocks) > 1:
                _, oldest = self._blocks.popitem(last=False)
                self._bytes -= oldest.memory_bytes
        reading.set_result(block)


BLOCKS: Final = BlockCache()
"""This process's memory of blocks of the archive."""

_stores: OrderedDict[str, ArchiveStore] = OrderedDict()
_stores_lock = threading.Lock()


def store_at(url: str) -> ArchiveStore:
    """Return the store at `url`, of which a bounded number is kept open.

    Raises
    ------
    Unavailable
        ``archive.unavailable``: nothing is installed here that speaks its protocol
    """
    from eventlog.archive.store import ArchiveStore

    with _stores_lock:
        store = _stores.get(url)
        if store is None:
            try:
                store = _stores[url] = ArchiveStore(url)
            except InvalidInput as error:
                raise Unavailable(
                    "archive.unavailable", error.message, hint=error.hint, value=url
                ) from error
            while len(_stores) > STORES_MAX:
                _stores.popitem(last=False)
        return store


def read_block(place: Place) -> Block:
    """Return the block at `place`, from its file."""
    from eventlog.archive.layout import SegmentFile

    with store_at(place.url).opened(place.path) as source:
        return SegmentFile(source, place.file).block(place.row_group)
