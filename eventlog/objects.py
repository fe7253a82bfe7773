"""Objects as their events make them: one strictly, to decide on it; many at once, to look at them.

Both fold by the object's decider, corrections included. Who decides must not rest on half a
history, so there what was erased or cannot have happened is an error. Who looks is told what there
is: what does not fit is passed over and said (`LoadedObject.complete`), and never takes the
objects beside it with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from domain.catalogue import decider_of_stream
from domain.deciders import Decider
from domain.errors import HeddleError, InvalidInput
from domain.records import Entry, effective_entries
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.ledger import NO_STREAM, Ledger
from eventlog.reading import POSITION_MAX, read_whole_stream

OBJECTS_MAX: Final = 500
"""Objects that are loaded at once."""

EVENTS_MAX: Final = 50_000
"""Events that they have together."""

EVENTS_A_TURN: Final = 200
"""Events that are decoded and folded before others have their turn: a few milliseconds."""

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


# --- one, to decide on it -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecidedObject:
    """An object, its stream's version, and the latest time at which something of it was true."""

    state: Any
    version: int
    latest: datetime


def unwritten_object(stream: str) -> DecidedObject:
    """Return the object of a stream that nothing was ever written to."""
    decider = decider_of_stream(stream)
    return DecidedObject(None if decider is None else decider.initial, NO_STREAM, _LONG_AGO)


async def load_object(
    ledger: Ledger, stream: str, valid_at: datetime | None = None
) -> DecidedObject:
    """Return the object of `stream`, to decide on it; None of a kind that nothing decides about.

    What was erased by law is left out where its kind allows for that and the rest makes sense
    without it; else nothing can be decided any more.

    Parameters
    ----------
    valid_at : as it was then, where its kind goes by valid time

    Raises
    ------
    PayloadErased
        ``payload.erased``
    UnreadableEvent
        ``event.unknown_type``, ``event.unknown_version``, ``event.payload_malformed``
    """
    decider = decider_of_stream(stream)
    history = []
    erased: RecordedEvent | None = None
    version = NO_STREAM
    async for event in read_whole_stream(ledger, stream):
        if event.erased and decider is not None and decider.passes_over_erased:
            erased = event
        elif decider is not None:
            history.append(_entry(event))
        version = event.version
    if decider is None:
        return DecidedObject(None, version, _LONG_AGO)
    timed = decider.by_valid_time
    entries = effective_entries(history, by_valid_time=timed, as_of=valid_at if timed else None)
    latest = entries[-1].occurred_at if timed and entries else _LONG_AGO
    try:
        state = decider.fold(entry.fact for entry in entries)
    except ValueError:
        if erased is not None:
            _ = erased.fact  # raises: this is why
        raise
    return DecidedObject(state, version, latest)


def _entry(event: RecordedEvent) -> Entry:
    return Entry(event.event_id, event.position, event.occurred_at, event.fact)


# --- many, to look at them ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """An object as it was known at `position`, and as it was true where that was asked for.

    Parameters
    ----------
    state : what its decider's fold makes of it; its initial state where nothing counts
    version : of its stream then; 0: it had no event
    events : its stream as it was recorded, corrections and signatures too, oldest first
    entries : what counts of them, corrected, in the order in which it counts
    complete : nothing of it was erased, unreadable, or impossible after what came before
    position : position of the log up to which it is told
    valid_at : the moment at which it is told as it was true; None: all that is known
    """

    stream: str
    state: Any
    version: int
    events: tuple[RecordedEvent, ...]
    entries: tuple[Entry, ...]
    complete: bool
    position: int
    valid_at: datetime | None

    @property
    def key(self) -> str:
        """Its natural key: what its stream calls it within its kind."""
        return self.stream.partition(":")[2]

    @property
    def known(self) -> bool:
        """Whether anything is said of it: an event that counts, or one that did."""
        return bool(self.entries) or (self.valid_at is None and self.version > 0)


async def load_objects(
    ledger: Ledger,
    streams: Sequence[str],
    *,
    position: int | None = None,
    valid_at: datetime | None = None,
) -> dict[str, LoadedObject]:
    """Return the objects of `streams`, by stream: one statement, however many they are.

    Parameters
    ----------
    streams : of kinds that a decider decides, at most `OBJECTS_MAX`
    position : as they were known then; None: now
    valid_at : only what was true by then; where their kind does not go by valid time, in the
        order in which it became known

    Raises
    ------
    InvalidInput
        ``objects.too_many``; ``objects.too_many_events``: more than `EVENTS_MAX` together
    """
    wanted = list(dict.fromkeys(streams))
    if len(wanted) > OBJECTS_MAX:
        raise InvalidInput(
            "objects.too_many",
            f"{len(wanted)} objects at once are more than {OBJECTS_MAX}",
            hint="ask for them in several requests",
            value=len(wanted),
            limit=OBJECTS_MAX,
        )
    reached, events = await _read(ledger, wanted, position)
    by_stream = {name: tuple(of) for name, of in groupby(events, key=lambda event: event.stream)}
    loaded = {}
    turn = 0
    for stream in wanted:
        recorded = by_stream.get(stream, ())
        loaded[stream] = _looked_at(stream, recorded, reached, valid_at)
        turn += len(recorded)
        if turn >= EVENTS_A_TURN:
            turn = 0
            await asyncio.sleep(0)
    return loaded


async def _read(
    ledger: Ledger, streams: Sequence[str], position: int | None
) -> tuple[int, list[RecordedEvent]]:
    """Return the position that is reflected, and the events of `streams` up to there."""
    rows = await ledger.pool.fetch(
        f"""
        select {", ".join(RECORDED_COLUMNS)}, payload, head
        from (
            select least($3, position) as head from ledger where ledger_id = $1
        ) as log left join lateral (
            select * from event
            where ledger_id = $1 and stream = any($2::text[]) and position <= $3::bigint
            order by stream, version limit $4
        ) as told on true
        order by stream, version
        """,
        ledger.ledger_id,
        list(streams),
        POSITION_MAX if position is None else position,
        EVENTS_MAX + 1,
    )
    if len(rows) > EVENTS_MAX:
        raise InvalidInput(
            "objects.too_many_events",
            f"{len(streams)} objects have more than {EVENTS_MAX} events",
            hint="ask for fewer objects, or for their events alone",
            value=len(streams),
            limit=EVENTS_MAX,
        )
    head: int = rows[0]["head"]
    return head, [RecordedEvent(ledger.name, row) for row in rows if row[0] is not None]


def _looked_at(
    stream: str, events: tuple[RecordedEvent, ...], position: int, valid_at: datetime | None
) -> LoadedObject:
    decider = decider_of_stream(stream)
    if decider is None:
        raise ValueError(f"nothing decides about {stream!r}")
    history, complete = [], True
    for event in events:
        try:
            history.append(_entry(event))
        except HeddleError:  # erased, or of a type that this software does not know
            complete = False
    entries = effective_entries(history, by_valid_time=decider.by_valid_time, as_of=valid_at)
    state, fits = fold_what_fits(decider, entries)
    version = events[-1].version if events else NO_STREAM
    return LoadedObject(
        stream, state, version, events, tuple(entries), complete and fits, position, valid_at
    )


def fold_what_fits(decider: Decider[Any, Any, Any], entries: Iterable[Entry]) -> tuple[Any, bool]:
    """Return the object that `entries` make, without those that do not fit; whether all did."""
    state, fits = decider.initial, True
    for entry in entries:
        state, fitted = evolve_if_it_fits(decider, state, entry.fact)
        fits = fits and fitted
    return state, fits


def evolve_if_it_fits(decider: Decider[Any, Any, Any], state: Any, fact: Any) -> tuple[Any, bool]:
    """Return what `fact` makes of `state`; unchanged, and False, where it cannot have happened.

    That is so where the law took an event that it rests on, or a correction has.
    """
    try:
        return decider.evolve(state, fact), True
    except (ValueError, HeddleError):
        return state, False
