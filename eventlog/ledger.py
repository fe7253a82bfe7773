"""The ledger: the one writer of the event table.

Concurrent appends of a process share a transaction (group commit), each with its own outcome.
The next batch is numbered and hashed while this one commits. A batch is built on the head as this
process last knew it and stored by one fenced statement: if another process has moved the head
meanwhile, nothing is written and the batch is built again under the head row's lock. So positions
have no gaps, position order is commit order, and a reader never sees a position before a smaller
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg

from domain.errors import InvalidInput, Unavailable
from eventlog.appends import (
    KEY_LENGTH_MAX,
    NO_STREAM,
    Append,
    Appended,
    IdempotencyKey,
    Placed,
)
from eventlog.batch import (
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    EVENT_COLUMNS,
    Batch,
    Head,
    Known,
    Stored,
    check_same_content,
    event_arrays,
    event_copy,
    head_arguments,
)
from eventlog.database import CONNECTION_LOST, Connection, Pool, PoolConnection
from eventlog.envelope import NewEvent, check_event
from eventlog.merkle import EMPTY_ROOT

__all__ = [
    "KEY_LENGTH_MAX",
    "NO_STREAM",
    "Appended",
    "IdempotencyKey",
    "Ledger",
    "Placed",
]

logger = logging.getLogger("heddle.eventlog")

CHANNEL: Final = "heddle_ledger"
"""NOTIFY channel; the payload is ``<ledger>:<position>``."""

WAITING_APPENDS_MAX: Final = 8_000
WAITING_BYTES_MAX: Final = 128 * 1024 * 1024
APPEND_EVENTS_MAX: Final = 2_000
SINGLE_STATEMENT_EVENTS_MAX: Final = 100
"""So many events go with everything else in one statement; COPY pays beyond."""

RETRIES_MAX: Final = 6
RETRY_DELAY_S: Final = 0.1
RELEASE_TIMEOUT_S: Final = 5.0
PARTITION_MARGIN: Final = 500_000
STREAMS_KNOWN_MAX: Final = 200_000
CAREFUL_BATCHES: Final = 16
"""After a lost race so many batches are built under the lock: the other writer is still busy."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """A named log. Open it with `Ledger.open`, close it with `close`."""

    def __init__(self, pool: Pool, name: str, ledger_id: int, clock: Callable[[], datetime]):
        self.name = name
        self.ledger_id = ledger_id
        self.pool = pool
        self._clock = clock
        self._waiting: deque[Append] = deque()
        self._waiting_bytes = 0
        self._work, self._room, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._head: Head | None = None
        self._versions: dict[str, int] = {}
        self._batch: Batch | None = None
        self._under_way: Batch | None = None
        self._commit_task: asyncio.Task[bool] | None = None
        self._careful_batches = 0
        self._partitioned_to = 0
        self._connection: PoolConnection | None = None
        self._closed = False
        self._writer = asyncio.create_task(self._write(), name=f"ledger-writer:{name}")

    @classmethod
    async def open(
        cls, pool: Pool, name: str, *, clock: Callable[[], datetime] = _utc_now
    ) -> Ledger:
        """Return the ledger called `name`, created empty when it is new."""
        await pool.execute(
            "insert into ledger (name, root) values ($1, $2) on conflict do nothing",
            name,
            EMPTY_ROOT,
        )
        ledger_id = await pool.fetchval("select ledger_id from ledger where name = $1", name)
        return cls(pool, name, ledger_id, clock)

    async def close(self) -> None:
        """Finish what was accepted and stop the writer."""
        self._closed = True
        if not self._writer.done() and not self._is_idle:
            self._idle.clear()
            idle = asyncio.create_task(self._idle.wait())
            await asyncio.wait((idle, self._writer), return_when=asyncio.FIRST_COMPLETED)
            idle.cancel()
        self._writer.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer
        finally:
            await self._disconnect()

    async def append(
        self,
        events: Sequence[NewEvent],
        *,
        expected: Mapping[str, int] | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Appended:
        """Record `events` together, once, and return where they stand.

        Parameters
        ----------
        expected : for a stream, the version it must have before this append (`NO_STREAM` = 0);
            streams not named may have any
        idempotency : the same key with the same content returns the first outcome

        Raises
        ------
        InvalidInput
            an event that cannot be recorded, or none or too many of them
        Conflict
            ``stream.version_conflict``, ``idempotency_key.reused``, ``event.id_reused``,
            ``source.sequence_reused`` or ``append.partly_recorded``
        Unavailable
            ``ledger.unavailable``: the database cannot be reached; append again
        """
        if not 1 <= len(events) <= APPEND_EVENTS_MAX:
            raise InvalidInput(
                "append.event_count",
                f"an append has 1 to {APPEND_EVENTS_MAX} events, not {len(events)}",
                value=len(events),
                limit=APPEND_EVENTS_MAX,
            )
        for event in events:
            check_event(event)
        if self._closed or self._writer.done():
            raise Unavailable("ledger.closed", f"ledger {self.name!r} is shutting down")
        request = Append(
            events,
            expected or {},
            idempotency,
            sum([len(event.payload) for event in events]),
            asyncio.get_running_loop().create_future(),
        )
        while len(self._waiting) >= WAITING_APPENDS_MAX or self._waiting_bytes >= WAITING_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(request)
        self._waiting_bytes += request.payload_bytes
        self._work.set()
        return await request.outcome

    async def recall(self, idempotency: IdempotencyKey) -> Appended | None:
        """Return the outcome of an earlier append under the same key and content.

        Raises
        ------
        Conflict
            ``idempotency_key.reused``: the key was used for something else
        """
        rows = await self.pool.fetch(
            """
            select k.content_sha256, e.position, e.version, e.recorded_at
            from idempotency_key k join event e on e.ledger_id = k.ledger_id
                and e.position between k.first_position and k.last_position
            where k.ledger_id = $1 and k.key = $2 order by e.position
            """,
            self.ledger_id,
            idempotency.key,
        )
        if not rows:
            return None
        check_same_content(idempotency, rows[0]["content_sha256"])
        placed = tuple(Placed(r["position"], r["version"], r["recorded_at"]) for r in rows)
        return Appended(placed, duplicate=True)

    async def stream_version(self, stream: str) -> int:
        """Return the version of the last event on `stream`, 0 when there is none."""
        version = await self.pool.fetchval(
            "select version from stream_head where ledger_id = $1 and stream = $2",
            self.ledger_id,
            stream,
        )
        return version or NO_STREAM

    async def head(self) -> int:
        """Return the position of the last event, 0 when there is none."""
        position: int = await self.pool.fetchval(
            "select position from ledger where ledger_id = $1", self.ledger_id
        )
        return position

    # --- the writer: ahead ----------------------------------------------------------------

    @property
    def _is_idle(self) -> bool:
        return not self._waiting and self._batch is None and self._commit_task is None

    async def _write(self) -> None:
        try:
            while True:
                if self._is_idle:
                    self._idle.set()
                await self._work.wait()
                self._work.clear()
                if self._commit_task is not None and self._commit_task.done():
                    self._conclude(committed=self._commit_task.result())
                if self._careful_batches == 0:
                    await self._write_ahead()
                elif self._commit_task is None:
                    await self._write_carefully()
        finally:
            left = [b.requests for b in (self._under_way, self._batch) if b is not None]
            for request in (*(r for requests in left for r in requests), *self._waiting):
                request.settle(
                    Unavailable("ledger.unavailable", f"ledger {self.name!r} has stopped")
                )

    async def _write_ahead(self) -> None:
        """Fill the next batch on what is known of the ledger; commit it when none is under way."""
        try:
            if self._waiting and (self._batch is None or not self._batch.is_full):
                await self._fill()
        except CONNECTION_LOST as error:
            logger.warning("ledger %s: the database is away: %s", self.name, error)
            self._rewind(careful_batches=1)
        except Exception:
            # A fault of ours must not end the writer and with it every other caller: each
            # append is tried again, alone if need be, and only the culprit learns of it.
            logger.exception("ledger %s: a batch could not be built", self.name)
            self._rewind(careful_batches=1)
        if self._commit_task is None and self._batch is not None:
            batch, self._batch = self._batch, None
            self._head = batch.sealed()
            self._under_way = batch
            self._commit_task = asyncio.create_task(self._commit(batch, self._head))
            self._commit_task.add_done_callback(lambda _: self._work.set())
            if self._waiting:
                self._work.set()

    async def _fill(self) -> None:
        """Take waiting appends into the batch, which is begun where there is none."""
        if self._head is None:
            if self._commit_task is not None:
                return  # what is under way decides where the ledger ends
            self._head = await self._read_head(self.pool)
            self._versions = {}
        await self._learn_versions()
        if self._batch is None:
            recorded_at = max(self._clock(), self._head.recorded_at)
            known = Known(self._versions)
            self._batch = Batch(
                self.name, self.ledger_id, self._head, recorded_at, known, self._under_way
            )
        while self._waiting and not self._batch.is_full:
            self._batch.add(self._waiting[0])
            self._taken(self._waiting.popleft())

    async def _learn_versions(self) -> None:
        """Read the versions of streams that waiting appends name for the first time."""
        versions = self._versions
        unknown = set()
        for request in self._waiting:
            for event in request.events:
                if event.stream not in versions:
                    unknown.add(event.stream)
            if request.expected:
                unknown.update(stream for stream in request.expected if stream not in versions)
        if unknown:
            rows = await self.pool.fetch(
                "select stream, version from stream_head "
                "where ledger_id = $1 and stream = any($2::text[])",
                self.ledger_id,
                list(unknown),
            )
            versions.update(dict.fromkeys(unknown, NO_STREAM))
            versions.update((row["stream"], row["version"]) for row in rows)

    async def _commit(self, batch: Batch, after: Head) -> bool:
        """Store `batch`; return False when its appends have to be judged under the lock."""
        if not batch.rows:
            # No fence has proved that refusals rest on what the log holds now.
            is_sure = all(isinstance(outcome, Appended) for outcome in batch.outcomes)
        else:
            try:
                is_sure = await self._store_fenced(batch, after)
            except (asyncpg.PostgresError, *CONNECTION_LOST) as error:
                # A key that is recorded already, or a fault: under the lock each append gets its
                # due. If it was committed after all, its events will recognise themselves.
                logger.debug("ledger %s: a batch is built again: %s", self.name, error)
                is_sure = False
            except Exception:
                # A fault of ours, which under the lock is told from its neighbours.
                logger.exception("ledger %s: a batch could not be stored", self.name)
                is_sure = False
        if is_sure:
            batch.settle()
        return is_sure

    async def _store_fenced(self, batch: Batch, after: Head) -> bool:
        """Store `batch` if the ledger still ends where it begins; return whether it did."""
        async with self._connected() as connection:
            if len(batch.rows) <= SINGLE_STATEMENT_EVENTS_MAX and self._has_partition(after):
                stored: bool = await connection.fetchval(
                    _APPEND_EVENTS,
                    *head_arguments(self.ledger_id, self.name, batch, after),
                    *event_arrays(batch.rows),
                )
                return stored
            try:
                async with connection.transaction():
                    partitioned_to = await self._store(connection, batch, after)
            except _LostRace:
                return False
        # Not before the commit: a transaction that is rolled back takes its partitions with it.
        self._partitioned_to = partitioned_to
        return True

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[PoolConnection]:
        """Yield the writer's own connection, which is given back when something went wrong."""
        if self._connection is None:
            self._connection = await self.pool.acquire()
        try:
            yield self._connection
        except BaseException:
            await self._disconnect()
            raise

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*CONNECTION_LOST):
                await self.pool.release(connection, timeout=RELEASE_TIMEOUT_S)

    def _conclude(self, *, committed: bool) -> None:
        """Note how the commit under way has ended."""
        self._commit_task = None
        if committed:
            self._under_way = None
            if self._batch is not None:
                self._batch.forget_previous()
            elif len(self._versions) > STREAMS_KNOWN_MAX:
                self._head = None  # what is known of streams is read anew, as it is needed
        else:
            self._rewind(careful_batches=CAREFUL_BATCHES)

    def _rewind(self, *, careful_batches: int) -> None:
        """Put every append that is not committed back to where it waited, in its order."""
        failed = self._under_way if self._commit_task is None else None
        for batch in (self._batch, failed):
            if batch is not None:
                self._waiting.extendleft(reversed(batch.requests))
                self._waiting_bytes += sum(r.payload_bytes for r in batch.requests)
        self._batch = None
        if failed is not None:
            self._under_way = None
        self._head = None
        self._careful_batches = careful_batches
        self._work.set()

    def _taken(self, request: Append) -> None:
        self._waiting_bytes -= request.payload_bytes
        self._room.set()

    # --- the writer: under the lock -------------------------------------------------------

    async def _write_carefully(self) -> None:
        """Commit what waits under the lock of the head row, where nothing has to be guessed."""
        if not self._waiting:
            return
        requests: list[Append] = []
        events = size = 0
        while self._waiting and events < BATCH_EVENTS_MAX and size < BATCH_BYTES_MAX:
            request = self._waiting.popleft()
            self._taken(request)
            requests.append(request)
            events += len(request.events)
            size += request.payload_bytes
        try:
            await self._commit_locked(requests)
        finally:
            for request in requests:
                request.settle(
                    Unavailable("ledger.unavailable", f"ledger {self.name!r} has stopped")
                )
        self._careful_batches -= 1
        self._head = None
        self._work.set()

    async def _commit_locked(self, requests: Sequence[Append]) -> None:
        """Commit `requests`; settle every one, whatever becomes of the others."""
        for attempt in range(RETRIES_MAX):
            try:
                batch = await self._transact(requests)
            except CONNECTION_LOST as error:
                # Whether it was committed is unknown; event ids make the repetition harmless.
                logger.warning("ledger %s: the database is away: %s", self.name, error)
                await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
            except Exception as error:
                if not isinstance(error, asyncpg.PostgresError):
                    logger.exception("ledger %s: an append failed", self.name)
                await self._isolate(requests, error)
                return
            else:
                batch.settle()
                return
        for request in requests:
            request.settle(
                Unavailable(
                    "ledger.unavailable",
                    f"ledger {self.name!r} cannot reach its database",
                    hint="append again later; nothing is recorded twice",
                )
            )

    async def _isolate(self, requests: Sequence[Append], error: Exception) -> None:
        """Halve refused appends until the culprit stands alone."""
        if len(requests) == 1:
            requests[0].settle(
                InvalidInput("append.refused", f"the database refused the append: {error}")
            )
            return
        middle = len(requests) // 2
        await self._commit_locked(requests[:middle])
        await self._commit_locked(requests[middle:])

    async def _transact(self, requests: Sequence[Append]) -> Batch:
        partitioned_to = self._partitioned_to
        async with self._connected() as connection, connection.transaction():
            head = await self._read_head(connection, lock=True)
            known = await self._known(connection, requests)
            batch = Batch(
                self.name, self.ledger_id, head, max(self._clock(), head.recorded_at), known
            )
            for request in requests:
                batch.add(request)
            if batch.rows:
                partitioned_to = await self._store(connection, batch, batch.sealed())
        self._partitioned_to = partitioned_to
        return batch

    # --- the database ---------------------------------------------------------------------

    async def _read_head(self, source: Pool | Connection, *, lock: bool = False) -> Head:
        row = await source.fetchrow(
            "select position, recorded_at, frontier, root from ledger where ledger_id = $1"
            + (" for update" if lock else ""),
            self.ledger_id,
        )
        assert row is not None, "the ledger's row is never deleted"
        return Head(row["position"], row["recorded_at"], row["frontier"], row["root"])

    async def _known(self, connection: Connection, requests: Sequence[Append]) -> Known:
        """Load what the log already holds under the keys of `requests`."""
        events = [event for request in requests for event in request.events]
        keys = [r.idempotency.key for r in requests if r.idempotency is not None]
        numbered = [e for e in events if e.source is not None]
        known = Known()
        for row in await connection.fetch(
            "select stream, version from stream_head "
            "where ledger_id = $1 and stream = any($2::text[])",
            self.ledger_id,
            list(
                {event.stream for event in events}.union(
                    *(request.expected for request in requests)
                )
            ),
        ):
            known.versions[row["stream"]] = row["version"]
        for row in await connection.fetch(
            f"""
            select i.event_id as found, {_CONTENT} from event_identity i
            join event e on e.ledger_id = i.ledger_id and e.position = i.position
            where i.ledger_id = $1 and i.event_id = any($2::uuid[])
            """,
            self.ledger_id,
            [event.event_id for event in events],
        ):
            known.identities[row["found"]] = _stored(row)
        if numbered:
            for row in await connection.fetch(
                f"""
                select s.source as found, s.sequence, {_CONTENT}
                from unnest($2::text[], $3::bigint[]) as w(source, sequence)
                join source_sequence s on s.ledger_id = $1
                    and s.source = w.source and s.sequence = w.sequence
                join event e on e.ledger_id = s.ledger_id and e.position = s.position
                """,
                self.ledger_id,
                [event.source for event in numbered],
                [event.sequence for event in numbered],
            ):
                known.sequences[row["found"], row["sequence"]] = _stored(row)
        if keys:
            placed: dict[str, list[Placed]] = {}
            for row in await connection.fetch(
                """
                select k.key, k.content_sha256, e.position, e.version, e.recorded_at
                from idempotency_key k join event e on e.ledger_id = k.ledger_id
                    and e.position between k.first_position and k.last_position
                where k.ledger_id = $1 and k.key = any($2::text[]) order by e.position
                """,
                self.ledger_id,
                keys,
            ):
                places = placed.setdefault(row["key"], [])
                places.append(Placed(row["position"], row["version"], row["recorded_at"]))
                known.keys[row["key"]] = (row["content_sha256"], places)
        return known

    async def _store(self, connection: Connection, batch: Batch, after: Head) -> int:
        """Write all of `batch` inside the caller's transaction; return how far partitions reach.

        Raises
        ------
        _LostRace
            the ledger does not end any more where the batch begins
        """
        partitioned_to = self._partitioned_to
        if not self._has_partition(after):
            partitioned_to = after.position + PARTITION_MARGIN
            await connection.execute("select ensure_event_partitions($1)", partitioned_to)
        stored = await connection.fetchval(
            _APPEND_HEAD, *head_arguments(self.ledger_id, self.name, batch, after)
        )
        if not stored:
            raise _LostRace
        await connection.copy_to_table(
            "event", source=event_copy(batch.rows), columns=EVENT_COLUMNS, format="binary"
        )
        return partitioned_to

    def _has_partition(self, after: Head) -> bool:
        return after.position <= self._partitioned_to


class _LostRace(Exception):
    """Another process has moved the head since the batch was built on it."""


_APPEND_HEAD: Final = f"select append_head({', '.join(f'${n}' for n in range(1, 19))})"
_APPEND_EVENTS: Final = f"select append_events({', '.join(f'${n}' for n in range(1, 37))})"

_CONTENT: Final = (
    "e.stream, e.type, e.schema_version, e.payload_sha256, e.position, e.version, e.recorded_at"
)


def _stored(row: asyncpg.Record) -> Stored:
    return Stored(
        (row["stream"], row["type"], row["schema_version"], row["payload_sha256"]),
        Placed(row["position"], row["version"], row["recorded_at"]),
    )
