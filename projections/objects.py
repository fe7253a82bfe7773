"""Objects in lists: how each of a kind stands and by what it is found, as of any position.

A row is written where one of them changes, and not for every event: a lot that a thousand runs
consume has a row for its coming and one for its end. What else there is to say of an object its
events say (`eventlog.objects`); `projections.object_kinds` describes what is indexed of each kind.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

import asyncpg

from domain.catalogue import decider_of_stream
from domain.deciders import Decider
from domain.events import event_types
from domain.records import (
    CORRECTED,
    SIGNED,
    Entry,
    RecordCorrected,
    RecordSigned,
    effective_entries,
)
from eventlog.database import Connection
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.ledger import Ledger
from eventlog.objects import LoadedObject, evolve_if_it_fits
from eventlog.reading import PayloadOf, category_of
from projections.histories import STILL_KNOWN, Version, write_versions
from projections.object_kinds import KINDS, Attribute, ObjectKind
from projections.places import in_sight

REMEMBERED_MAX: Final = 20_000
"""Objects whose state is remembered between folds; of others the events are read again."""

_PREFIXES: Final = tuple(f"{category.replace('-', '_')}." for category in KINDS)
_COLUMNS: Final = ("stream", "category", "state", "created_at", "since", "due_at", "attributes")


# --- fold ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """What lists tell of an object.

    Parameters
    ----------
    state : the word for how it stands
    created_at : when the first fact that counts of it was true; of one of which nothing counts any
        more, when it was first heard of
    since : since when it stands so
    due_at : when something about it runs out
    attributes : by what it is found, each ``name=value``
    """

    state: str
    created_at: datetime
    since: datetime
    due_at: datetime | None
    attributes: frozenset[str]

    @property
    def values(self) -> tuple[Any, ...]:
        """The columns of its row, from ``state`` on."""
        return self.state, self.created_at, self.since, self.due_at, sorted(self.attributes)


@dataclass(frozen=True, slots=True)
class _Followed:
    """An object at a version of its stream: what the next event is folded on.

    `latest` is the last time at which something of it was true; None: nothing counts of it.
    """

    version: int
    heard_at: datetime
    state: Any
    latest: datetime | None
    created_at: datetime | None
    since: datetime | None
    told: frozenset[Attribute]


class ObjectProjection:
    """Folds objects of the `KINDS` into a row for each change of how they stand."""

    name: ClassVar[str] = "objects"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = (
        *sorted(name for name in event_types() if name.startswith(_PREFIXES)),
        CORRECTED,
        SIGNED,
    )
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("object_version",)

    def __init__(self) -> None:
        self._remembered: OrderedDict[tuple[int, str], _Followed] = OrderedDict()

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Change the rows by `events`."""
        told: defaultdict[str, list[RecordedEvent]] = defaultdict(list)
        for event in events:
            if category_of(event.stream) in KINDS:
                told[event.stream].append(event)
        if not told:
            return
        unknown = [stream for stream, of in told.items() if not self._goes_on(ledger, of)]
        earlier = await _read_earlier(connection, ledger, unknown, events[0].position)
        versions: list[Version] = []
        for stream, of in told.items():
            history = earlier.get(stream)
            if history is None and of[0].version == 1:
                history = []
            versions += self._followed(ledger, stream, of, history)
        versions.sort(key=lambda version: version.known_from)
        await write_versions(connection, ledger.ledger_id, "object_version", _COLUMNS, versions)

    def _goes_on(self, ledger: Ledger, events: Sequence[RecordedEvent]) -> bool:
        """Whether `events` of a stream can be folded on what is remembered of it, or begin it."""
        if events[0].version == 1:
            return True
        held = self._remembered.get((ledger.ledger_id, events[0].stream))
        if held is None or held.version != events[0].version - 1:
            return False
        timed = _decider(events[0].stream).by_valid_time
        latest = held.latest
        for event in events:
            if event.type == CORRECTED or (
                timed and latest is not None and event.occurred_at < latest
            ):
                return False
            latest = event.occurred_at if event.type != SIGNED else latest
        return True

    def _followed(
        self,
        ledger: Ledger,
        stream: str,
        events: Sequence[RecordedEvent],
        history: list[Entry] | None,
    ) -> list[Version]:
        """Return the rows that `events` of a stream make, after `history` where that is needed."""
        kind, decider = KINDS[category_of(stream)], _decider(stream)
        key = (ledger.ledger_id, stream)
        held = self._remembered.pop(key, None)
        if history is not None:
            held = None
        if history:
            held = _refolded(kind, decider, history, events[0].version - 1)
        before = None if held is None else _standing(kind, held)
        rows = []
        for event in events:
            fact = event.fact
            entry = Entry(event.event_id, event.position, event.occurred_at, fact)
            if history is not None:
                history.append(entry)
            held = _gone_on(kind, decider, held, entry, event.version) or _refolded(
                kind, decider, history or [], event.version
            )
            after = _standing(kind, held)
            if after != before:
                rows.append(
                    Version(
                        stream,
                        event.position,
                        events[0].version > 1,
                        (kind.category, *after.values),
                    )
                )
                before = after
        assert held is not None
        self._remembered[key] = held
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return rows


async def _read_earlier(
    connection: Connection, ledger: Ledger, streams: Sequence[str], before: int
) -> dict[str, list[Entry]]:
    """Return what was recorded of `streams` before a position, in one statement."""
    if not streams:
        return {}
    rows = await connection.fetch(
        f"""
        select {", ".join(RECORDED_COLUMNS)}, payload from event
        where ledger_id = $1 and stream = any($2::text[]) and position < $3
            and payload is not null
        order by position
        """,
        ledger.ledger_id,
        list(streams),
        before,
    )
    histories: dict[str, list[Entry]] = {stream: [] for stream in streams}
    for row in rows:
        event = RecordedEvent(ledger.name, row)
        histories[event.stream].append(
            Entry(event.event_id, event.position, event.occurred_at, event.fact)
        )
    return histories


def _decider(stream: str) -> Decider[Any, Any, Any]:
    decider = decider_of_stream(stream)
    assert decider is not None, f"{stream} is of no kind in KINDS"
    return decider


def _gone_on(
    kind: ObjectKind,
    decider: Decider[Any, Any, Any],
    held: _Followed | None,
    entry: Entry,
    version: int,
) -> _Followed | None:
    """Return the object after `entry`; None where that changes what came before it."""
    match entry.fact:
        case RecordCorrected():
            return None
        case RecordSigned():
            return None if held is None else replace(held, version=version)
    at = entry.occurred_at
    if held is None:
        held = _Followed(version, at, decider.initial, None, None, None, frozenset())
    if decider.by_valid_time and held.latest is not None and at < held.latest:
        return None
    state, fits = evolve_if_it_fits(decider, held.state, entry.fact)
    same = kind.state_of(state) is kind.state_of(held.state)
    return _Followed(
        version,
        held.heard_at,
        state,
        at,
        held.created_at or at,
        held.since if same and held.since is not None else at,
        held.told.union(kind.told(entry.fact)) if fits else held.told,
    )


def _refolded(
    kind: ObjectKind,
    decider: Decider[Any, Any, Any],
    history: Sequence[Entry],
    version: int,
) -> _Followed:
    """Return the object that all of `history` makes, which has an event at least."""
    heard_at = history[0].occurred_at
    held = _Followed(version, heard_at, decider.initial, None, None, None, frozenset())
    for entry in effective_entries(history, by_valid_time=decider.by_valid_time):
        after = _gone_on(kind, decider, held, entry, version)
        assert after is not None, "what counts is in order, and no correction"
        held = after
    return held


def _standing(kind: ObjectKind, held: _Followed) -> Standing:
    created_at = held.created_at or held.heard_at
    return Standing(
        state=str(kind.state_of(held.state).value),
        created_at=created_at,
        since=held.since or created_at,
        due_at=kind.due_at(held.state),
        attributes=frozenset(
            attribute(*found) for found in (*held.told, *kind.standing(held.state))
        ),
    )


def attribute(name: str, value: str) -> str:
    """Return how a row holds the attribute `name`."""
    return f"{name}={value}"


def standing_of(loaded: LoadedObject) -> Standing | None:
    """Return what lists would tell of an object as it was loaded; None: nothing counts of it."""
    kind, decider = KINDS[category_of(loaded.stream)], _decider(loaded.stream)
    if not loaded.entries:
        return None
    return _standing(kind, _refolded(kind, decider, loaded.entries, loaded.version))


# --- queries ------------------------------------------------------------------------------


class ObjectOrder(StrEnum):
    """In which order a list of objects comes."""

    KEY = "KEY"
    NEWEST = "NEWEST"
    OLDEST = "OLDEST"
    CHANGED = "CHANGED"
    DUE = "DUE"


@dataclass(frozen=True, slots=True)
class _Ordering:
    """`column` to order by before the stream; None: by the stream alone."""

    column: str | None
    descending: bool


_ORDERINGS: Final[Mapping[ObjectOrder, _Ordering]] = {
    ObjectOrder.KEY: _Ordering(None, descending=False),
    ObjectOrder.NEWEST: _Ordering("created_at", descending=True),
    ObjectOrder.OLDEST: _Ordering("created_at", descending=False),
    ObjectOrder.CHANGED: _Ordering("since", descending=True),
    ObjectOrder.DUE: _Ordering("due_at", descending=False),
}


@dataclass(frozen=True, slots=True)
class ObjectFilter:
    """Which objects of a kind are wanted; what is empty or None does not restrict.

    Parameters
    ----------
    states : words for how they stand
    attributes : by name, values of which an object has one at least
    starts_with : how their natural keys begin
    created_from, created_to : when they began, the first included and the second not
    due_before : what runs out before then
    """

    states: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] | None = None
    starts_with: str = ""
    created_from: datetime | None = None
    created_to: datetime | None = None
    due_before: datetime | None = None

    def wants(self, found: Standing) -> bool:
        """Whether an object that stands so is wanted, its key aside."""
        return (
            (not self.states or found.state in self.states)
            and all(
                any(attribute(name, value) in found.attributes for value in values)
                for name, values in (self.attributes or {}).items()
                if values
            )
            and (self.created_from is None or found.created_at >= self.created_from)
            and (self.created_to is None or found.created_at < self.created_to)
            and (
                self.due_before is None
                or (found.due_at is not None and found.due_at < self.due_before)
            )
        )


ANY: Final = ObjectFilter()


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where a list stands: a stream, and the time that it is ordered by before that."""

    stream: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Streams of objects in the order that was asked for, and the position they reflect."""

    position: int
    places: tuple[ObjectPlace, ...]


async def list_objects(
    ledger: Ledger,
    category: str,
    *,
    first: int,
    order: ObjectOrder = ObjectOrder.KEY,
    after: ObjectPlace | None = None,
    wanted: ObjectFilter = ANY,
    as_of: int | None = None,
    places: Sequence[str] | None = None,
) -> ObjectPage:
    """Return a page of the objects of a kind, in one statement.

    Parameters
    ----------
    first : at most so many
    after : the place after which to go on
    as_of : as they were known at that position; None: all that is folded
    places : only what belongs to one of these (`projections.places`); None: all
    """
    ordering = _ORDERINGS[order]
    now = as_of is None
    arguments: list[Any] = [ledger.ledger_id, ObjectProjection.name, category, first]

    def given(value: Any, cast: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::{cast}"

    conditions = [
        "ledger_id = $1",
        "category = $3",
        f"known_to = {STILL_KNOWN}"
        if now
        else f"known_from <= {given(as_of, 'bigint')} and known_to > ${len(arguments)}",
        *_conditions(category, wanted, given),
    ]
    if places is not None:
        given(list(places), "text[]")
        conditions.append(in_sight("object_version.stream", len(arguments)))
    if ordering.column == "due_at":
        conditions.append("due_at is not null")
    if after is not None:
        beyond = "<" if ordering.descending else ">"
        stream = given(after.stream, 'text collate "C"')
        conditions.append(
            f"stream {beyond} {stream}"
            if ordering.column is None
            else f"({ordering.column}, stream) {beyond} "
            f"({given(after.at, 'timestamptz')}, {stream})"
        )
    direction = "desc" if ordering.descending else "asc"
    column = "created_at" if ordering.column is None else ordering.column
    keys = [] if ordering.column is None else [f"{column} {direction}"]
    rows = await ledger.pool.fetch(
        f"""
        select reached, stream, at from (
            select max(position) as reached from (
                select position from projection_checkpoint
                where ledger_id = $1 and projection = $2 order by version desc limit 1
            ) as newest
        ) as folded left join lateral (
            select stream, {column} as at from object_version
            where {" and ".join(conditions)}
            order by {", ".join([*keys, f"stream {direction}"])} limit $4
        ) as found on true
        order by {", ".join([*(["at " + direction] if keys else []), f"stream {direction}"])}
        """,
        *arguments,
    )
    return _page(rows, as_of)


def _conditions(category: str, wanted: ObjectFilter, given: Any) -> list[str]:
    conditions = []
    if wanted.states:
        conditions.append(f"state = any({given(list(wanted.states), 'text[]')})")
    for name, values in (wanted.attributes or {}).items():
        if values:
            held = [attribute(name, value) for value in values]
            conditions.append(f"attributes && {given(held, 'text[]')}")
    if wanted.starts_with:
        begins = f"{category}:{wanted.starts_with}"
        conditions.append(f"stream >= {given(begins, 'text')}")
        conditions.append(f"stream < {given(begins + chr(0x10FFFF), 'text')}")
    if wanted.created_from is not None:
        conditions.append(f"created_at >= {given(wanted.created_from, 'timestamptz')}")
    if wanted.created_to is not None:
        conditions.append(f"created_at < {given(wanted.created_to, 'timestamptz')}")
    if wanted.due_before is not None:
        before = given(wanted.due_before, "timestamptz")
        conditions.append(f"due_at is not null and due_at < {before}")
    return conditions


def _page(rows: Sequence[asyncpg.Record], as_of: int | None) -> ObjectPage:
    reached = rows[0]["reached"] or 0
    return ObjectPage(
        reached if as_of is None else min(as_of, reached),
        tuple(ObjectPlace(row["stream"], row["at"]) for row in rows if row["stream"] is not None),
    )
