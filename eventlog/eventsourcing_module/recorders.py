"""Recorders of the `eventsourcing` library on a ledger.

An aggregate's events are a stream of the log, and notification ids are positions in it. The log
numbers a stream 1, 2, 3 … without gaps; an application may begin at another version (0 is
common), so the two differ by what the stream began with, and never by anything else: an insert
that would leave a gap is refused like one that comes too late.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import asyncpg
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DataError,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    ProcessRecorder,
    ShutDown,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from domain.application_events import EVENT_RECORDED, SCHEMA_VERSION, OriginatorIdType
from domain.errors import Conflict
from domain.identifiers import uuid7
from eventlog.database import Connection
from eventlog.envelope import NewEvent
from eventlog.eventsourcing_module.runtime import Runtime, Session
from eventlog.eventsourcing_module.stored import (
    category_of,
    decode_event,
    encode_event,
    event_id_of,
    source_of,
    stream_of,
)
from eventlog.ledger import NO_STREAM, Appended

T = TypeVar("T")

BEGINNINGS_MAX: Final = 100_000
BEGINNING_LIKELY_MAX: Final = 1
"""The library's aggregates begin at version 1, some applications' at 0."""
POSITION_MAX: Final = 2**63 - 1


class LedgerAggregateRecorder(AggregateRecorder):
    """Events of aggregates, each aggregate a stream of the log."""

    def __init__(self, runtime: Runtime, application: str) -> None:
        self.runtime = runtime
        self.application = application
        self.category = category_of(application)
        self._actor = f"application:{application or 'eventsourcing'}"
        # Of a stream, the originator version of its first event. Touched by the loop alone.
        self._beginnings: OrderedDict[str, int] = OrderedDict()

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **_kwargs: Any
    ) -> Sequence[int] | None:
        """Record `stored_events` together, or raise `IntegrityError` and record none."""
        if stored_events:
            self.runtime.call(lambda session: self._append(session, stored_events))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the aggregate's events with versions beyond `gt` and up to `lte`."""
        stream = stream_of(self.category, originator_id)

        async def select(session: Session) -> list[StoredEvent]:
            beginning = 0
            if gt is not None or lte is not None:
                known = await self._beginnings_of(session, [stream])
                if stream not in known:
                    return []
                beginning = known[stream]
            rows = await session.pool.fetch(
                f"""
                select position, version, payload from event
                where ledger_id = $1 and stream = $2 and version > $3 and version <= $4
                order by version {"desc" if desc else "asc"} limit $5
                """,
                session.ledger.ledger_id,
                stream,
                0 if gt is None else _bounded(gt - beginning + 1),
                POSITION_MAX if lte is None else _bounded(lte - beginning + 1),
                limit,
            )
            events = [StoredEvent(*_decoded(row)) for row in rows]
            if events:
                self._remember(stream, events[0].originator_version - rows[0]["version"] + 1)
            return events

        return self.runtime.read(select)

    async def _append(
        self,
        session: Session,
        stored_events: Sequence[StoredEvent],
        source: tuple[str, int] | None = None,
    ) -> list[int]:
        """Record the events and return their positions.

        Parameters
        ----------
        source : name and number of what the events were made of; recorded once
        """
        now = datetime.now(UTC)
        save_id = uuid7(int(now.timestamp() * 1000), os.urandom(10))
        streams = {s.originator_id: "" for s in stored_events}
        for originator_id in streams:
            streams[originator_id] = stream_of(self.category, originator_id)
        firsts = _firsts(stored_events, streams)
        events = [
            self._new_event(session, streams[s.originator_id], s, now, save_id)
            for s in stored_events
        ]
        if source is not None:
            events[0] = replace(events[0], source=source[0], sequence=source[1])
        appended = await self._append_expecting(session, events, firsts)
        for event, placed, stored in zip(events, appended.placed, stored_events, strict=True):
            if placed.version == 1:
                self._remember(event.stream, stored.originator_version)
        if appended.duplicate and not await _was_saved_as(session, appended, save_id):
            raise IntegrityError(f"the events are recorded already, at {appended.position}")
        return [placed.position for placed in appended.placed]

    async def _append_expecting(
        self, session: Session, events: Sequence[NewEvent], firsts: Mapping[str, int]
    ) -> Appended:
        """Append where every stream stands just before the first of its events."""
        beginnings = {s: self._beginnings[s] for s in firsts if s in self._beginnings}
        beginnings |= await self._beginnings_of(
            session, [s for s, first in firsts.items() if first > BEGINNING_LIKELY_MAX]
        )
        try:
            return await session.ledger.append(events, expected=_expected(firsts, beginnings))
        except Conflict:
            # An event that might have been its stream's first was not: ask, and try once more.
            unknown = [stream for stream in firsts if stream not in beginnings]
            found = await self._beginnings_of(session, unknown)
            if not found:
                raise
            return await session.ledger.append(
                events, expected=_expected(firsts, beginnings | found)
            )

    def _new_event(
        self, session: Session, stream: str, stored: StoredEvent, now: datetime, save_id: UUID
    ) -> NewEvent:
        payload = encode_event(
            stored.originator_id, stored.originator_version, stored.topic, stored.state
        )
        return NewEvent(
            stream=stream,
            type=EVENT_RECORDED,
            schema_version=SCHEMA_VERSION,
            event_id=event_id_of(session.ledger.name, stream, stored.originator_version),
            occurred_at=now,
            actor=self._actor,
            payload=payload,
            payload_sha256=hashlib.sha256(payload).digest(),
            correlation_id=save_id,
        )

    async def _beginnings_of(self, session: Session, streams: Sequence[str]) -> dict[str, int]:
        """Return the originator version of the first event of each of `streams` that exists."""
        missing = [stream for stream in streams if stream not in self._beginnings]
        if missing:
            rows = await session.pool.fetch(
                "select position, stream, payload from event "
                "where ledger_id = $1 and stream = any($2::text[]) and version = 1",
                session.ledger.ledger_id,
                missing,
            )
            for row in rows:
                self._remember(row["stream"], _decoded(row)[1])
        return {s: self._beginnings[s] for s in streams if s in self._beginnings}

    def _remember(self, stream: str, beginning: int) -> None:
        self._beginnings[stream] = beginning
        self._beginnings.move_to_end(stream)
        if len(self._beginnings) > BEGINNINGS_MAX:
            self._beginnings.popitem(last=False)


class LedgerApplicationRecorder(LedgerAggregateRecorder, ApplicationRecorder):
    """Events of aggregates, and the application's sequence of notifications: the log itself.

    Notification ids are positions. They rise without end and without gaps of the recorder's
    making; what others record in the same ledger takes positions in between.
    """

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **_kwargs: Any
    ) -> Sequence[int] | None:
        """Record `stored_events` together and return their positions."""
        if not stored_events:
            return []
        return self.runtime.call(lambda session: self._append(session, stored_events))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return at most `limit` events of the application from `start` up to `stop`."""
        first = 1 if start is None else start if inclusive_of_start else start + 1

        async def select(session: Session) -> list[Notification]:
            rows = await session.pool.fetch(
                _NOTIFICATIONS_SQL,
                session.ledger.ledger_id,
                self.category,
                _bounded(first),
                POSITION_MAX if stop is None else _bounded(stop),
                list(topics) or None,
                limit,
            )
            return [Notification(*_decoded(row), id=row["position"]) for row in rows]

        return self.runtime.read(select)

    def max_notification_id(self) -> int | None:
        """Return the position of the application's last event, None when there is none."""

        async def select(session: Session) -> int | None:
            position: int | None = await session.pool.fetchval(
                f"select position from event where {_OWN_EVENTS} order by position desc limit 1",
                session.ledger.ledger_id,
                self.category,
            )
            return position

        return self.runtime.read(select)

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Return an iterator over the notifications beyond `gt`, for ever."""
        return LedgerSubscription(self, gt, topics)


# The type stands in the statement itself, so that the index of these events alone serves it.
_OWN_EVENTS: Final = f"""
    ledger_id = $1 and split_part(stream, ':', 1) = $2 and type = '{EVENT_RECORDED}'
"""
_NOTIFICATIONS_SQL: Final = f"""
    select position, payload from event
    where {_OWN_EVENTS} and position between $3 and $4
        and case when $5::text[] is null or payload is null then true
            when type = '{EVENT_RECORDED}'
            then convert_from(payload, 'UTF8')::jsonb ->> 'topic' = any($5) end
    order by position limit $6
"""


class LedgerSubscription(ListenNotifySubscription[LedgerApplicationRecorder]):
    """Notifications as they are recorded: woken by the tail, which polls where a wake is lost."""

    def __init__(
        self, recorder: LedgerApplicationRecorder, gt: int | None, topics: Sequence[str]
    ) -> None:
        self._scanned_to = gt or 0
        super().__init__(recorder, gt, topics)
        try:
            recorder.runtime.call(lambda session: session.listen(self._has_been_notified))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the iteration, and end the wakes."""
        super().stop()
        self._recorder.runtime.forget(self._has_been_notified)

    def _pull(self) -> None:
        while not self._has_been_stopped:
            self._has_been_notified.clear()
            head = self._recorder.runtime.position
            if head <= self._scanned_to:
                return
            page = self._recorder.select_notifications(
                self._scanned_to,
                self._select_limit,
                head,
                self._topics,
                inclusive_of_start=False,
            )
            if page:
                try:
                    self._notifications_queue.put(page)
                except ShutDown:
                    return
            self._scanned_to = page[-1].id if len(page) == self._select_limit else head


class LedgerTrackingRecorder(TrackingRecorder):
    """How far a projection has processed other applications' notifications.

    A view derives from it, keeps its rows in tables of the same database, changes them with
    `track` in the transaction that moves the position, and reads them with `query`.
    """

    def __init__(self, runtime: Runtime, application: str) -> None:
        self.runtime = runtime
        self.application = application
        self._tracker = application.lower()

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record `tracking`, or raise `IntegrityError` unless it is beyond all before it."""
        self.track(tracking)

    def track(
        self, tracking: Tracking, work: Callable[[Connection], Awaitable[None]] | None = None
    ) -> None:
        """Record `tracking` and do `work` on the same connection, both or neither."""

        async def record(session: Session) -> None:
            async with (
                session.holding,
                session.pool.acquire() as connection,
                connection.transaction(),
            ):
                await self._advance(session, connection, tracking)
                if work is not None:
                    await work(connection)

        self.runtime.call(record)

    def query(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Return what `work` reads on a connection; it may be run again where that was lost."""

        async def read(session: Session) -> T:
            async with session.pool.acquire() as connection:
                return await work(connection)

        return self.runtime.read(read)

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the last recorded notification id of that application, or None."""
        return self.query(lambda connection: self._max_tracking_id(connection, application_name))

    async def _max_tracking_id(self, connection: Connection, application_name: str) -> int | None:
        # What a process recorder made of a notification says so itself, as its source.
        notification_id: int | None = await connection.fetchval(
            """
            select greatest(
                (
                    select t.notification_id from eventsourcing_tracking t
                    join ledger l using (ledger_id)
                    where l.name = $1 and t.tracker = $2 and t.application = $3
                ),
                (
                    select max(i.sequence) from event_identity i join ledger l using (ledger_id)
                    where l.name = $1 and i.source = $4
                )
            )
            """,
            self.runtime.settings.ledger,
            self._tracker,
            application_name,
            source_of(self._tracker, application_name),
        )
        return notification_id

    async def _advance(self, session: Session, connection: Connection, tracking: Tracking) -> None:
        await self._check_beyond(session, connection, tracking)
        await connection.execute(
            """
            insert into eventsourcing_tracking (ledger_id, tracker, application, notification_id)
            values ($1, $2, $3, $4)
            on conflict (ledger_id, tracker, application)
                do update set notification_id = excluded.notification_id
            """,
            session.ledger.ledger_id,
            self._tracker,
            tracking.application_name,
            tracking.notification_id,
        )

    async def _check_beyond(
        self, session: Session, connection: Connection, tracking: Tracking
    ) -> None:
        """Have whoever tracks the same application wait; refuse what is not beyond it."""
        key = f"{session.ledger.name}\x1f{self._tracker}\x1f{tracking.application_name}"
        digest = hashlib.sha256(key.encode()).digest()
        await connection.execute(
            "select pg_advisory_xact_lock($1)", int.from_bytes(digest[:8], "big", signed=True)
        )
        reached = await self._max_tracking_id(connection, tracking.application_name)
        if reached is not None and tracking.notification_id <= reached:
            raise IntegrityError(
                f"notification {tracking.notification_id} of {tracking.application_name!r} is "
                f"not beyond {reached}, which is processed"
            )


class LedgerProcessRecorder(LedgerTrackingRecorder, LedgerApplicationRecorder, ProcessRecorder):
    """Events of an application that processes another's notifications, each exactly once.

    The first event made of a notification carries the notification as its source and sequence,
    which the log records once. So the events and what they were made of are one append; a
    notification that made no event is noted in the tracking table.
    """

    def __init__(self, runtime: Runtime, application: str) -> None:
        LedgerApplicationRecorder.__init__(self, runtime, application)
        LedgerTrackingRecorder.__init__(self, runtime, application)

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Record `stored_events` and the keyword `tracking`, both or neither."""
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is None:
            return super().insert_events(stored_events)
        if not stored_events:
            self.track(tracking)
            return []
        source = source_of(self._tracker, tracking.application_name)

        async def append(session: Session) -> list[int]:
            async with (
                session.holding,
                session.pool.acquire() as connection,
                connection.transaction(),
            ):
                await self._check_beyond(session, connection, tracking)
                return await self._append(
                    session, stored_events, (source, tracking.notification_id)
                )

        return self.runtime.call(append)


class SnapshotRecorder(AggregateRecorder):
    """Snapshots, which may have any version and may be made anew: in a table beside the log."""

    def __init__(self, runtime: Runtime, application: str, purpose: str) -> None:
        self.runtime = runtime
        self.category = category_of(application)
        self.purpose = purpose

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **_kwargs: Any
    ) -> Sequence[int] | None:
        """Record `stored_events` together, or raise `IntegrityError` and record none."""

        async def insert(session: Session) -> None:
            await session.pool.executemany(
                """
                insert into eventsourcing_snapshot (ledger_id, category, purpose, originator_id,
                    originator_version, originator_id_type, topic, state)
                values ($1, $2, $3, $4, $5, $6, $7, $8)
                """,
                [
                    (
                        session.ledger.ledger_id,
                        self.category,
                        self.purpose,
                        str(stored.originator_id),
                        stored.originator_version,
                        _id_type(stored.originator_id).value,
                        stored.topic,
                        stored.state,
                    )
                    for stored in stored_events
                ],
            )

        if stored_events:
            self.runtime.call(insert)
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the aggregate's snapshots with versions beyond `gt` and up to `lte`."""

        async def select(session: Session) -> list[asyncpg.Record]:
            return await session.pool.fetch(
                f"""
                select originator_id, originator_id_type, originator_version, topic, state
                from eventsourcing_snapshot
                where ledger_id = $1 and category = $2 and purpose = $3 and originator_id = $4
                    and ($5::bigint is null or originator_version > $5)
                    and ($6::bigint is null or originator_version <= $6)
                order by originator_version {"desc" if desc else "asc"} limit $7
                """,
                session.ledger.ledger_id,
                self.category,
                self.purpose,
                str(originator_id),
                gt,
                lte,
                limit,
            )

        return [
            StoredEvent(
                UUID(row["originator_id"])
                if row["originator_id_type"] == OriginatorIdType.UUID
                else row["originator_id"],
                row["originator_version"],
                row["topic"],
                row["state"],
            )
            for row in self.runtime.read(select)
        ]


def _id_type(originator_id: UUID | str) -> OriginatorIdType:
    return OriginatorIdType.UUID if isinstance(originator_id, UUID) else OriginatorIdType.TEXT


def _firsts(
    stored_events: Sequence[StoredEvent], streams: Mapping[UUID | str, str]
) -> dict[str, int]:
    """Return the version of the first event of each stream, all others following it."""
    firsts: dict[str, int] = {}
    lasts: dict[str, int] = {}
    for stored in stored_events:
        stream, version = streams[stored.originator_id], stored.originator_version
        if lasts.get(stream, version - 1) != version - 1:
            raise IntegrityError(
                f"version {version} of {stream!r} cannot follow version {lasts[stream]}"
            )
        firsts.setdefault(stream, version)
        lasts[stream] = version
    return firsts


def _expected(firsts: Mapping[str, int], beginnings: Mapping[str, int]) -> dict[str, int]:
    """Return the version each stream has to be at; one that is not known must not exist."""
    return {
        stream: first - beginnings[stream] if stream in beginnings else NO_STREAM
        for stream, first in firsts.items()
    }


def _decoded(row: asyncpg.Record) -> tuple[UUID | str, int, str, bytes]:
    if row["payload"] is None:
        raise DataError(f"the payload of event {row['position']} is no longer in the log")
    try:
        return decode_event(row["payload"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"event {row['position']} is not of an application: {error}") from error


def _bounded(number: int) -> int:
    return max(-POSITION_MAX, min(number, POSITION_MAX))


async def _was_saved_as(session: Session, appended: Appended, save_id: UUID) -> bool:
    """Whether the events were recorded by this very insert, whose answer got lost."""
    found: UUID | None = await session.pool.fetchval(
        "select correlation_id from event where ledger_id = $1 and position = $2",
        session.ledger.ledger_id,
        appended.position,
    )
    return found == save_id
