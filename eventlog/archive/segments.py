"""The archive's files as the database knows them: announced, written, proved, used, removed.

A file is announced by a row before it is written, and named by that row until it is deleted.
Only the holder of the ledger's archive lock writes or deletes files, so whatever is announced
and not live when somebody gets the lock was left behind by a process that was killed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Final
from urllib.parse import quote

import asyncpg

from domain.errors import NotFound, Unavailable
from domain.frame_stacks import hash_frames
from eventlog.archive.layout import Segment, SegmentFile, Window, damaged, write_segment
from eventlog.archive.payloads import in_thread, store_at
from eventlog.archive.store import SUFFIX, ArchiveStore
from eventlog.database import CONNECTION_LOST, Connection, Pool

LOCK_CLASS: Final = 0x68656461
LOCK_WAIT_S: Final = 60.0
LOCK_POLL_S: Final = 0.1
WRITE_TIMEOUT_S: Final = 600.0
NS_A_DAY: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class ArchivedLedger:
    """The ledger whose payloads are moved."""

    pool: Pool
    ledger_id: int
    name: str

    @classmethod
    async def find(cls, pool: Pool, name: str) -> ArchivedLedger:
        """Return the ledger called `name`.

        Raises
        ------
        NotFound
            ``ledger.unknown``
        """
        ledger_id = await pool.fetchval("select ledger_id from ledger where name = $1", name)
        if ledger_id is None:
            raise NotFound("ledger.unknown", f"there is no ledger {name!r}", value=name)
        return cls(pool, ledger_id, name)


@dataclass(frozen=True, slots=True)
class LiveSegment:
    """A file of the archive that payloads are read from."""

    segment_id: int
    stream: str
    day: date
    url: str
    path: str
    window_count: int
    first_position: int
    last_position: int

    @property
    def file(self) -> str:
        """The file's whole name."""
        return f"{self.url}/{self.path}"


@dataclass(frozen=True, slots=True)
class Published:
    """What one new file took in."""

    windows: int
    readings: int
    file_bytes: int


def day_of(window_start_ns: int) -> date:
    """Return the UTC day under which a window that starts at `window_start_ns` is filed."""
    return date(1970, 1, 1) + timedelta(days=window_start_ns // NS_A_DAY)


# --- the lock -----------------------------------------------------------------------------


@asynccontextmanager
async def locked(ledger: ArchivedLedger) -> AsyncIterator[Connection]:
    """Hold the archive of `ledger` alone; yield the connection that does.

    Whatever changes the archive is committed on that connection: once it is lost, so is the
    lock, and nothing can be committed any more.

    Raises
    ------
    Unavailable
        ``archive.busy`` when somebody else holds it for longer than `LOCK_WAIT_S`
    """
    async with ledger.pool.acquire() as connection:
        await _lock(connection, ledger)
        try:
            yield connection
        finally:
            await _unlock(connection, ledger)


async def _unlock(connection: Connection, ledger: ArchivedLedger) -> None:
    try:
        await connection.execute("select pg_advisory_unlock($1, $2)", LOCK_CLASS, ledger.ledger_id)
    except (asyncpg.InterfaceError, *CONNECTION_LOST):
        pass  # the lock went with the connection
    except BaseException:
        connection.terminate()  # so that the lock does not go back to the pool
        raise


async def _lock(connection: Connection, ledger: ArchivedLedger) -> None:
    for _ in range(int(LOCK_WAIT_S / LOCK_POLL_S)):
        if await connection.fetchval(
            "select pg_try_advisory_lock($1, $2)", LOCK_CLASS, ledger.ledger_id
        ):
            return
        await asyncio.sleep(LOCK_POLL_S)
    raise Unavailable(
        "archive.busy",
        f"another process has worked on the archive of {ledger.name!r} for {LOCK_WAIT_S:g} s",
        hint="try again when it is done",
        limit=LOCK_WAIT_S,
    )


async def remove_unsettled(connection: Connection, ledger: ArchivedLedger) -> list[str]:
    """Delete files that were announced and never used, or replaced; return those that stay.

    Only for the holder of the archive's lock: nobody else is writing then. A file stays where
    its store cannot be reached now; its row goes on naming it.
    """
    rows = await connection.fetch(
        """
        update archive_segment s set state = 'retired' from archive_store t
        where t.store_id = s.store_id and s.ledger_id = $1 and s.state <> 'live'
        returning s.segment_id, s.path, t.url
        """,
        ledger.ledger_id,
    )
    left = []
    for row in rows:
        file = f"{row['url']}/{row['path']}"
        try:
            await in_thread(partial(_delete, row["url"], row["path"]), file)
        except Unavailable:
            left.append(file)
            continue
        await connection.execute(
            "delete from archive_segment where segment_id = $1", row["segment_id"]
        )
    return left


def _delete(url: str, path: str) -> None:
    store_at(url).delete(path)


# --- a new file ---------------------------------------------------------------------------


async def publish(
    connection: Connection,
    ledger: ArchivedLedger,
    store: ArchiveStore,
    stream: str,
    windows: Sequence[Window],
    *,
    replaced: Sequence[LiveSegment] = (),
    erased: Sequence[int] = (),
) -> Published:
    """Write `windows`, of one header and one day, to a new file and let go of what it replaces.

    That is the payloads in their rows, and the files `replaced`, which hold no other windows
    but those at the positions `erased`. Nothing is let go of before the file was read back from
    the store and every window in it hashed as its event says.

    Parameters
    ----------
    connection : the one that holds the archive's lock

    Raises
    ------
    Unavailable
        ``archive.*``: the rows are as they were
    """
    expected = {window.position: window.frame.canonical_sha256 for window in windows}
    segment = await in_thread(
        partial(write_segment, ledger.name, stream, windows), "in memory", WRITE_TIMEOUT_S
    )
    day = day_of(windows[0].frame.window_start_ns)
    path = _path(ledger.name, stream, day, min(expected))
    readings = sum(window.frame.reading_count for window in windows)
    segment_id = await _announce(
        connection, ledger, store, stream, day, path, list(expected), readings
    )
    await in_thread(partial(store.put, path, segment.content), store.name(path), WRITE_TIMEOUT_S)
    await in_thread(
        partial(_check_written, store, path, segment, expected), store.name(path), WRITE_TIMEOUT_S
    )
    await _commit(connection, ledger, segment_id, segment, replaced=replaced, erased=erased)
    return Published(len(windows), readings, len(segment.content))


def _path(ledger: str, stream: str, day: date, first_position: int) -> str:
    asset = stream.partition(":")[2]
    folder = f"ledger={quote(ledger, safe='')}/asset={quote(asset, safe='')}/day={day}"
    return f"{folder}/{first_position}-{secrets.token_hex(8)}{SUFFIX}"


async def _announce(
    connection: Connection,
    ledger: ArchivedLedger,
    store: ArchiveStore,
    stream: str,
    day: date,
    path: str,
    positions: Sequence[int],
    readings: int,
) -> int:
    await connection.execute(
        "insert into archive_store (url) values ($1) on conflict do nothing", store.url
    )
    segment_id: int = await connection.fetchval(
        """
        insert into archive_segment (ledger_id, store_id, state, stream, day, path,
            window_count, reading_count, first_position, last_position)
        select $1, store_id, 'writing', $3, $4, $5, $6, $7, $8, $9
        from archive_store where url = $2
        returning segment_id
        """,
        ledger.ledger_id,
        store.url,
        stream,
        day,
        path,
        len(positions),
        readings,
        min(positions),
        max(positions),
    )
    return segment_id


def _check_written(
    store: ArchiveStore, path: str, segment: Segment, expected: Mapping[int, bytes]
) -> None:
    """Raise unless the file holds each window where it should, bit by bit."""
    with store.opened(path) as source:
        file = SegmentFile(source, store.name(path))
        found = []
        for block in file.blocks():
            found.append(tuple(window.position for window in block.windows))
            _hash(block.windows)
            for window in block.windows:
                if window.frame.canonical_sha256 != expected.get(window.position):
                    raise damaged(
                        store.name(path), f"event {window.position} is not the recorded one"
                    )
    if tuple(found) != segment.blocks:
        raise damaged(store.name(path), "its windows are not those that were written")


async def _commit(
    connection: Connection,
    ledger: ArchivedLedger,
    segment_id: int,
    segment: Segment,
    *,
    replaced: Sequence[LiveSegment],
    erased: Sequence[int],
) -> None:
    """Put the written file in the place of what it replaces, all at once."""
    positions = [position for block in segment.blocks for position in block]
    row_groups = [number for number, block in enumerate(segment.blocks) for _ in block]
    async with connection.transaction():
        live = await connection.execute(
            "update archive_segment set state = 'live', file_bytes = $2 "
            "where segment_id = $1 and state = 'writing'",
            segment_id,
            len(segment.content),
        )
        _check_count(live, 1, "the new file")
        await connection.execute(
            """
            insert into archived_payload (ledger_id, segment_id, position, row_group)
            select $1, $2, * from unnest($3::bigint[], $4::smallint[])
            on conflict (ledger_id, position) do update
                set segment_id = excluded.segment_id, row_group = excluded.row_group
            """,
            ledger.ledger_id,
            segment_id,
            positions,
            row_groups,
        )
        if replaced:
            await retire(connection, ledger, replaced, erased=erased)
            return
        let_go = await connection.execute(
            "update event set payload = null, payload_tier = 1 "
            "where ledger_id = $1 and position = any($2::bigint[]) and payload_tier = 0",
            ledger.ledger_id,
            positions,
        )
        _check_count(let_go, len(positions), "payloads in their rows")


async def retire(
    connection: Connection,
    ledger: ArchivedLedger,
    segments: Sequence[LiveSegment],
    *,
    erased: Sequence[int] = (),
) -> None:
    """Let go of `segments`, and of the payloads at the positions `erased` that lie in them.

    Called in a transaction; the files go with the next `remove_unsettled`.
    """
    if erased:
        await connection.execute(
            "delete from archived_payload where ledger_id = $1 and position = any($2::bigint[])",
            ledger.ledger_id,
            list(erased),
        )
        await erase_rows(connection, ledger, erased)
    retired = await connection.execute(
        "update archive_segment set state = 'retired' "
        "where segment_id = any($1::integer[]) and state = 'live'",
        [segment.segment_id for segment in segments],
    )
    _check_count(retired, len(segments), "replaced files")


async def erase_rows(
    connection: Connection, ledger: ArchivedLedger, positions: Sequence[int]
) -> int:
    """Let go of the payloads and statistics of the rows at `positions`; return of how many."""
    erased = await connection.execute(
        "update event set payload = null, statistics = null, payload_tier = 2 "
        "where ledger_id = $1 and position = any($2::bigint[]) and payload_tier < 2",
        ledger.ledger_id,
        list(positions),
    )
    return int(erased.rpartition(" ")[2])


def _check_count(status: str, expected: int, what: str) -> None:
    """Raise, and so roll back, when somebody else changed what only we may change."""
    if status != f"UPDATE {expected}":
        raise Unavailable(
            "archive.lock_lost",
            f"the archive was changed meanwhile: {what}, {status} where {expected} are due",
            hint="run it again; nothing was let go of",
        )


# --- files in use -------------------------------------------------------------------------

_LIVE_SQL: Final = """
    select s.segment_id, s.stream, s.day, t.url, s.path, s.window_count, s.first_position,
        s.last_position
    from archive_segment s join archive_store t using (store_id)
    where s.ledger_id = $1 and s.state = 'live'
"""


async def segments_holding(
    connection: Connection, ledger: ArchivedLedger, positions: Sequence[int]
) -> list[LiveSegment]:
    """Return the files in which payloads of `positions` lie."""
    rows = await connection.fetch(
        f"""
        {_LIVE_SQL} and s.segment_id in (
            select segment_id from archived_payload
            where ledger_id = $1 and position = any($2::bigint[]))
        order by s.segment_id
        """,
        ledger.ledger_id,
        list(positions),
    )
    return [LiveSegment(**row) for row in rows]


async def live_segments(
    connection: Connection | Pool,
    ledger_id: int,
    *,
    stream: str | None = None,
    day: date | None = None,
    after: int = 0,
    limit: int = 1_000,
) -> list[LiveSegment]:
    """Return files in use beyond `after`, of `stream` and `day` where given, by their number."""
    rows = await connection.fetch(
        f"""
        {_LIVE_SQL} and s.segment_id > $2 and ($3::text is null or s.stream = $3)
            and ($4::date is null or s.day = $4)
        order by s.segment_id limit $5
        """,
        ledger_id,
        after,
        stream,
        day,
        limit,
    )
    return [LiveSegment(**row) for row in rows]


def read_windows(segment: LiveSegment) -> list[Window]:
    """Return every window in the file of `segment`; whoever asks compares their hashes."""
    with store_at(segment.url).opened(segment.path) as source:
        blocks = SegmentFile(source, segment.file).blocks()
        return [window for block in blocks for window in block.windows]


async def checked_windows(
    connection: Connection, ledger: ArchivedLedger, segment: LiveSegment
) -> list[Window]:
    """Return every window in the file of `segment`, each of them the recorded one.

    Raises
    ------
    Unavailable
        ``archive.*``
    """
    windows = await in_thread(partial(read_windows, segment), segment.file, WRITE_TIMEOUT_S)
    expected = await recorded_hashes(connection, ledger, [w.position for w in windows])
    await in_thread(partial(_check_windows, segment, windows, expected), segment.file)
    return windows


async def recorded_hashes(
    connection: Connection, ledger: ArchivedLedger, positions: Sequence[int]
) -> dict[int, bytes]:
    """Return the hash that each event at `positions` gives its payload."""
    rows = await connection.fetch(
        "select position, payload_sha256 from event "
        "where ledger_id = $1 and position = any($2::bigint[])",
        ledger.ledger_id,
        list(positions),
    )
    return {row["position"]: row["payload_sha256"] for row in rows}


def _hash(windows: Sequence[Window]) -> None:
    hash_frames([window.frame for window in windows])


def _check_windows(
    segment: LiveSegment, windows: Sequence[Window], expected: Mapping[int, bytes]
) -> None:
    _hash(windows)
    for window in windows:
        if window.frame.canonical_sha256 != expected.get(window.position):
            raise damaged(segment.file, f"event {window.position} is not the recorded one")


async def find_strays(ledger: ArchivedLedger, store: ArchiveStore) -> list[str]:
    """Return files below the ledger's folder in `store` that no row of this database names.

    They may belong to another database that archives a ledger of the same name there.
    """
    folder = f"ledger={quote(ledger.name, safe='')}"
    found = await in_thread(partial(store.paths, folder), store.name(folder), WRITE_TIMEOUT_S)
    rows = await ledger.pool.fetch(
        "select s.path from archive_segment s join archive_store t using (store_id) "
        "where s.ledger_id = $1 and t.url = $2",
        ledger.ledger_id,
        store.url,
    )
    known = {row["path"] for row in rows}
    return [path for path in found if path not in known]


async def remove_strays_in(ledger: ArchivedLedger, store: ArchiveStore) -> list[str]:
    """Delete what `find_strays` finds, and return it."""
    async with locked(ledger):
        strays = await find_strays(ledger, store)
        for path in strays:
            await in_thread(partial(store.delete, path), store.name(path), WRITE_TIMEOUT_S)
    return strays
