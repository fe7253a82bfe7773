"""The ledger: the one writer of the event table.

Concurrent appends of a process share a transaction (group commit), each with its own outcome.
The transaction locks the ledger's head row, checks keys and versions, numbers the events
without gaps, hashes them into the Merkle tree, stores all and notifies. Several processes may
append to one ledger; the head row's lock orders them, so position order is commit order and a
reader never sees a position before a smaller one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg

from domain.errors import Conflict, HeddleError, InvalidInput, Unavailable
from domain.events import format_time
from eventlog.database import CONNECTION_LOST, Connection, Pool
from eventlog.envelope import NewEvent, check_event, leaf_entry
from eventlog.merkle import Frontier, leaf_hash

logger = logging.getLogger("heddle.eventlog")

CHANNEL: Final = "heddle_ledger"
"""NOTIFY channel; the payload is ``<ledger>:<position>``."""

BATCH_EVENTS_MAX: Final = 4_000
BATCH_BYTES_MAX: Final = 32 * 1024 * 1024
QUEUE_APPENDS_MAX: Final = 8_000
APPEND_EVENTS_MAX: Final = 2_000
RETRIES_MAX: Final = 6
RETRY_DELAY_S: Final = 0.1
PARTITION_MARGIN: Final = 500_000
KEY_LENGTH_MAX: Final = 200

NO_STREAM: Final = 0
"""Expected version of a stream that must not exist yet."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an event stands in the log."""

    position: int
    version: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class Appended:
    """The outcome of an append. `duplicate`: it was recorded before, and this is where."""

    placed: tuple[Placed, ...]
    duplicate: bool

    @property
    def position(self) -> int:
        """Position of the last event."""
        return self.placed[-1].position


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own name for an append, and the SHA-256 of what it asked for."""

    key: str
    content_sha256: bytes

    @classmethod
    def of(cls, key: str, content: bytes) -> IdempotencyKey:
        """Return the key for a request whose meaning is `content`."""
        if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isprintable():
            raise InvalidInput(
                "idempotency_key.malformed",
                f"the idempotency key has {len(key)} characters or unprintable ones",
                hint=f"1 to {KEY_LENGTH_MAX} printable characters",
                value=key[:KEY_LENGTH_MAX],
                limit=KEY_LENGTH_MAX,
            )
        return cls(key, hashlib.sha256(content).digest())


@dataclass(slots=True)
class _Append:
    events: Sequence[NewEvent]
    expected: Mapping[str, int]
    idempotency: IdempotencyKey | None
    outcome: asyncio.Future[Appended] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def payload_bytes(self) -> int:
        return sum(len(event.payload) for event in self.events)

    def settle(self, result: Appended | BaseException) -> None:
        if self.outcome.done():
            return  # its caller has gone
        if isinstance(result, BaseException):
            self.outcome.set_exception(result)
        else:
            self.outcome.set_result(result)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """A named log. Open it with `Ledger.open`, close it with `close`."""

    def __init__(self, pool: Pool, name: str, ledger_id: int, clock: Callable[[], datetime]):
        self.name = name
        self.ledger_id = ledger_id
        self.pool = pool
        self._clock = clock
        self._queue: asyncio.Queue[_Append] = asyncio.Queue(QUEUE_APPENDS_MAX)
        self._carried: _Append | None = None
        self._partitioned_to = 0
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
            Frontier().root(),
        )
        ledger_id = await pool.fetchval("select ledger_id from ledger where name = $1", name)
        return cls(pool, name, ledger_id, clock)

    async def close(self) -> None:
        """Finish what was accepted and stop the writer."""
        self._closed = True
        if not self._writer.done():
            await self._queue.join()
        self._writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._writer

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
        if self._closed:
            raise Unavailable("ledger.closed", f"ledger {self.name!r} is shutting down")
        request = _Append(events, expected or {}, idempotency)
        await self._queue.put(request)
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
        _check_same_content(idempotency, rows[0]["content_sha256"])
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

    # --- the writer -----------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            batch = await self._next_batch()
            try:
                await self._commit(batch)
            finally:
                for request in batch:
                    request.settle(
                        Unavailable("ledger.unavailable", f"ledger {self.name!r} has stopped")
                    )
                    self._queue.task_done()

    async def _next_batch(self) -> list[_Append]:
        """Return all appends that wait, within the bounds of one transaction."""
        first = self._carried or await self._queue.get()
        self._carried = None
        batch = [first]
        events, size = len(first.events), first.payload_bytes
        while not self._queue.empty():
            request = self._queue.get_nowait()
            events += len(request.events)
            size += request.payload_bytes
            if events > BATCH_EVENTS_MAX or size > BATCH_BYTES_MAX:
                self._carried = request
                break
            batch.append(request)
        return batch

    async def _commit(self, batch: list[_Append]) -> None:
        """Commit `batch`; settle every request, whatever becomes of the others."""
        for attempt in range(RETRIES_MAX):
            try:
                outcomes = await self._transact(batch)
            except CONNECTION_LOST as error:
                # Whether it was committed is unknown; event ids make the repetition harmless.
                logger.warning("ledger %s: the database is away: %s", self.name, error)
                await asyncio.sleep(RETRY_DELAY_S * 2**attempt)
            except asyncpg.PostgresError as error:
                await self._isolate(batch, error)
                return
            except Exception as error:
                # A fault of ours must not end the writer and with it every other caller.
                logger.exception("ledger %s: an append failed", self.name)
                await self._isolate(batch, error)
                return
            else:
                for request, outcome in zip(batch, outcomes, strict=True):
                    request.settle(outcome)
                return
        for request in batch:
            request.settle(
                Unavailable(
                    "ledger.unavailable",
                    f"ledger {self.name!r} cannot reach its database",
                    hint="append again later; nothing is recorded twice",
                )
            )

    async def _isolate(self, batch: list[_Append], error: Exception) -> None:
        """Halve a refused batch until the culprit stands alone."""
        if len(batch) == 1:
            batch[0].settle(
                InvalidInput("append.refused", f"the database refused the append: {error}")
            )
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])

    async def _transact(self, batch: list[_Append]) -> list[Appended | HeddleError]:
        async with self.pool.acquire() as connection, connection.transaction():
            head = await connection.fetchrow(
                "select position, recorded_at, frontier from ledger "
                "where ledger_id = $1 for update",
                self.ledger_id,
            )
            assert head is not None, "the ledger's row is never deleted"
            known = await self._known(connection, batch)
            recorded_at = max(self._clock(), head["recorded_at"])
            numbering = _Numbering(self.name, head["position"], recorded_at, known)
            outcomes = [numbering.place(request) for request in batch]
            if numbering.rows:
                frontier = Frontier(head["position"], head["frontier"])
                frontier.append(row.leaf for row in numbering.rows)
                await self._store(connection, numbering, frontier)
        # Not before the commit: a transaction that is rolled back takes its partitions with it.
        self._partitioned_to = max(self._partitioned_to, numbering.partitioned_to)
        return outcomes

    async def _known(self, connection: Connection, batch: list[_Append]) -> _Known:
        """Load what the log already holds under the keys of `batch`."""
        events = [event for request in batch for event in request.events]
        keys = [r.idempotency.key for r in batch if r.idempotency is not None]
        numbered = [e for e in events if e.source is not None]
        known = _Known()
        for row in await connection.fetch(
            "select stream, version from stream_head "
            "where ledger_id = $1 and stream = any($2::text[])",
            self.ledger_id,
            list(
                {event.stream for event in events}.union(*(request.expected for request in batch))
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
            known.identities[row["found"]] = _Existing.of(row)
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
                known.sequences[row["found"], row["sequence"]] = _Existing.of(row)
        if keys:
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
                known.keys.setdefault(row["key"], (row["content_sha256"], []))[1].append(
                    Placed(row["position"], row["version"], row["recorded_at"])
                )
        return known

    async def _store(
        self, connection: Connection, numbering: _Numbering, frontier: Frontier
    ) -> None:
        rows, head = numbering.rows, numbering.position
        if head + PARTITION_MARGIN > self._partitioned_to:
            await connection.execute("select ensure_event_partitions($1)", head + PARTITION_MARGIN)
            numbering.partitioned_to = head + 2 * PARTITION_MARGIN
        ledger_id = self.ledger_id
        await connection.copy_records_to_table(
            "event",
            columns=_EVENT_COLUMNS,
            records=[row.record(ledger_id, numbering.recorded_at) for row in rows],
        )
        await connection.copy_records_to_table(
            "event_identity",
            columns=("ledger_id", "event_id", "position"),
            records=[(ledger_id, row.event.event_id, row.position) for row in rows],
        )
        numbered = [row for row in rows if row.event.source is not None]
        if numbered:
            await connection.copy_records_to_table(
                "source_sequence",
                columns=("ledger_id", "source", "sequence", "position"),
                records=[
                    (ledger_id, row.event.source, row.event.sequence, row.position)
                    for row in numbered
                ],
            )
        if numbering.new_keys:
            await connection.copy_records_to_table(
                "idempotency_key",
                columns=("ledger_id", "key", "content_sha256", "first_position", "last_position"),
                records=[(ledger_id, *entry) for entry in numbering.new_keys],
            )
        streams = {row.event.stream: row.version for row in rows}
        await connection.execute(
            """
            insert into stream_head (ledger_id, stream, version)
            select $1, * from unnest($2::text[], $3::bigint[])
            on conflict (ledger_id, stream) do update set version = excluded.version
            """,
            ledger_id,
            list(streams),
            list(streams.values()),
        )
        await connection.execute(
            "update ledger set position = $2, recorded_at = $3, frontier = $4, root = $5 "
            "where ledger_id = $1",
            ledger_id,
            head,
            numbering.recorded_at,
            frontier.packed(),
            frontier.root(),
        )
        await connection.execute("select pg_notify($1, $2)", CHANNEL, f"{self.name}:{head}")


_CONTENT: Final = (
    "e.stream, e.type, e.schema_version, e.payload_sha256, e.position, e.version, e.recorded_at"
)

_EVENT_COLUMNS: Final = (
    "ledger_id",
    "position",
    "stream",
    "version",
    "type",
    "schema_version",
    "event_id",
    "occurred_at",
    "recorded_at",
    "actor",
    "correlation_id",
    "causation_id",
    "traceparent",
    "source",
    "sequence",
    "payload",
    "payload_sha256",
    "leaf_hash",
    "window_start_ns",
    "window_end_ns",
    "reading_count",
    "statistics",
)


@dataclass(frozen=True, slots=True)
class _Existing:
    """An event that the log holds already, as far as a repetition is compared with it."""

    content: tuple[str, str, int, bytes]
    placed: Placed

    @classmethod
    def of(cls, row: asyncpg.Record) -> _Existing:
        return cls(
            (row["stream"], row["type"], row["schema_version"], row["payload_sha256"]),
            Placed(row["position"], row["version"], row["recorded_at"]),
        )


@dataclass(slots=True)
class _Known:
    """What the log holds under the keys of a batch, and what the batch has added so far."""

    versions: dict[str, int] = field(default_factory=dict)
    identities: dict[uuid.UUID, _Existing] = field(default_factory=dict)
    sequences: dict[tuple[str, int | None], _Existing] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, list[Placed]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Row:
    event: NewEvent
    position: int
    version: int
    leaf: bytes

    def record(self, ledger_id: int, recorded_at: datetime) -> tuple[Any, ...]:
        event, window = self.event, self.event.window
        return (
            ledger_id,
            self.position,
            event.stream,
            self.version,
            event.type,
            event.schema_version,
            event.event_id,
            event.occurred_at,
            recorded_at,
            event.actor,
            event.correlation_id,
            event.causation_id,
            event.traceparent,
            event.source,
            event.sequence,
            event.payload,
            event.payload_sha256,
            self.leaf,
            window and window.start_ns,
            window and window.end_ns,
            window and window.reading_count,
            window and window.statistics,
        )


class _Numbering:
    """Gives the requests of one transaction their outcomes, positions, versions and leaves."""

    def __init__(self, ledger: str, position: int, recorded_at: datetime, known: _Known) -> None:
        self.position = position
        self.recorded_at = recorded_at
        self.rows: list[_Row] = []
        self.new_keys: list[tuple[str, bytes, int, int]] = []
        self.partitioned_to = 0
        self._ledger = ledger
        self._recorded_at_text = format_time(recorded_at)
        self._known = known

    def place(self, request: _Append) -> Appended | HeddleError:
        try:
            earlier = self._earlier(request)
            if earlier is not None:
                return Appended(tuple(earlier), duplicate=True)
            self._check_expected(request)
        except Conflict as conflict:
            return conflict
        placed = tuple(self._add(event) for event in request.events)
        if request.idempotency is not None:
            key, content = request.idempotency.key, request.idempotency.content_sha256
            self.new_keys.append((key, content, placed[0].position, placed[-1].position))
            self._known.keys[key] = (content, list(placed))
        return Appended(placed, duplicate=False)

    def _earlier(self, request: _Append) -> list[Placed] | None:
        """Return where `request` was recorded before, or None when it is new."""
        if request.idempotency is not None:
            stored = self._known.keys.get(request.idempotency.key)
            if stored is not None:
                _check_same_content(request.idempotency, stored[0])
                return stored[1]
        found = [self._existing(event) for event in request.events]
        earlier = [existing.placed for existing in found if existing is not None]
        if len(earlier) == len(found):
            return earlier
        ids = [event.event_id for event in request.events]
        if earlier or len(set(ids)) != len(ids):
            raise Conflict(
                "append.partly_recorded",
                f"{len(earlier)} of the {len(found)} events of the append are recorded already",
                hint="append what belongs together in one append, each event once",
                value=len(earlier),
                limit=len(found),
            )
        return None

    def _existing(self, event: NewEvent) -> _Existing | None:
        by_id = self._known.identities.get(event.event_id)
        if by_id is not None and by_id.content != event.content:
            raise Conflict(
                "event.id_reused",
                f"event id {event.event_id} is recorded with other content at position "
                f"{by_id.placed.position}",
                value=str(event.event_id),
                limit=by_id.placed.position,
            )
        if event.source is None:
            return by_id
        by_sequence = self._known.sequences.get((event.source, event.sequence))
        if by_sequence is not None and by_sequence.content != event.content:
            raise Conflict(
                "source.sequence_reused",
                f"sequence {event.sequence} of {event.source!r} is recorded with other content "
                f"at position {by_sequence.placed.position}",
                hint="give every frame its own sequence number",
                value=event.sequence,
                limit=by_sequence.placed.position,
            )
        return by_id or by_sequence

    def _check_expected(self, request: _Append) -> None:
        for stream, expected in request.expected.items():
            actual = self._known.versions.get(stream, NO_STREAM)
            if actual != expected:
                raise Conflict(
                    "stream.version_conflict",
                    f"stream {stream!r} is at version {actual}, not {expected}",
                    hint="read it again and decide anew",
                    value=expected,
                    limit=actual,
                )

    def _add(self, event: NewEvent) -> Placed:
        self.position += 1
        version = self._known.versions.get(event.stream, NO_STREAM) + 1
        self._known.versions[event.stream] = version
        entry = leaf_entry(self._ledger, self.position, version, self._recorded_at_text, event)
        self.rows.append(_Row(event, self.position, version, leaf_hash(entry)))
        placed = Placed(self.position, version, self.recorded_at)
        existing = _Existing(event.content, placed)
        self._known.identities[event.event_id] = existing
        if event.source is not None:
            self._known.sequences[event.source, event.sequence] = existing
        return placed


def _check_same_content(idempotency: IdempotencyKey, stored_sha256: bytes) -> None:
    if stored_sha256 != idempotency.content_sha256:
        raise Conflict(
            "idempotency_key.reused",
            f"idempotency key {idempotency.key!r} was used for another request",
            hint="use a new key for a new request",
            value=idempotency.key,
        )
