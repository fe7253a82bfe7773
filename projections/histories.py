"""What was known when: facts with their corrections, placed by when they were true.

A row with `known_from` and `known_to` counts as of every position from the one up to, but not
with, the other. Nothing is overwritten but `known_to`, so a question as of any position reads the
rows that an answer at that time read; and because rows follow from facts alone, in whatever
batches they came, a rebuild gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, NamedTuple

import asyncpg

from domain.records import CORRECTED, RecordCorrected
from eventlog.database import Connection
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.ledger import Ledger

STILL_KNOWN: Final = 2**63 - 1
"""`known_to` of a row that nothing has taken the place of."""

AS_OF_NOW: Final = STILL_KNOWN - 1
"""A position beyond every event: all that is known."""

KNOWN: Final = "ledger_id = $1 and known_from <= $2 and known_to > $2"
"""Rows that count as of the position ``$2``, in SQL."""


def known(alias: str) -> str:
    """Return that the rows of `alias` count as of the position ``$2``, in SQL."""
    return f"{alias}.ledger_id = $1 and {alias}.known_from <= $2 and {alias}.known_to > $2"


def as_of_or_now(as_of: int | None) -> int:
    """Return the position as of which to read; None is now."""
    return AS_OF_NOW if as_of is None else min(as_of, AS_OF_NOW)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a figure rests on: so many records, from which positions of the log.

    `as_of` is None where everything was asked for that is known.
    """

    records: int
    first_position: int | None
    last_position: int | None
    as_of: int | None

    @classmethod
    def of(cls, rows: Sequence[asyncpg.Record], records: int, as_of: int | None) -> Basis:
        """Return what `rows` rest on; each has the range of its positions, ``low`` and ``high``."""
        return cls(
            records,
            min((row["low"] for row in rows if row["low"] is not None), default=None),
            max((row["high"] for row in rows if row["high"] is not None), default=None),
            as_of,
        )


# --- facts --------------------------------------------------------------------------------


class Stated(NamedTuple):
    """What an event, or a correction of it, says.

    Parameters
    ----------
    origin : position of the event; of a correction, of what it corrects
    known_from : position from which on it is known
    occurred_at : when it was true
    value : the fact; None where a correction says that nothing happened
    """

    origin: int
    known_from: int
    occurred_at: datetime
    actor: str
    stream: str
    value: Any


_stated: Final = tuple.__new__
"""Half the time of the class's own, which names each field."""


def stated(events: Iterable[RecordedEvent], categories: frozenset[str]) -> Iterator[Stated]:
    """Yield what `events` on streams of `categories` say."""
    for event in events:
        stream = event.stream
        if stream[: stream.find(":")] not in categories:
            continue
        fact = event.fact
        known_from = origin = event.position
        if type(fact) is RecordCorrected:
            origin, fact = fact.corrected_position, fact.fact()
        yield _stated(Stated, (origin, known_from, event.occurred_at, event.actor, stream, fact))


class History:
    """What is known of one object, in the order in which it was true.

    Parameters
    ----------
    begun_before : it may have stood somehow before the first of the events at hand
    """

    def __init__(self, *, begun_before: bool = False) -> None:
        self.begun_before = begun_before
        self._facts: dict[int, Stated] = {}

    def add(self, said: Stated) -> None:
        """Learn `said`. Who did something stays the same when it is corrected."""
        earlier = self._facts.pop(said.origin, None)
        if said.value is not None:
            self._facts[said.origin] = (
                said if earlier is None else said._replace(actor=earlier.actor)
            )

    def in_order(self) -> list[Stated]:
        """Return the facts that count by when they were true; of the same time, as recorded."""
        facts = list(self._facts.values())
        if len(facts) > 1:
            facts.sort(key=_BY_TIME)
        return facts


_BY_TIME: Final = attrgetter("occurred_at", "origin")


async def histories(
    connection: Connection,
    ledger: Ledger,
    events: Sequence[RecordedEvent],
    *,
    types: Sequence[str],
    categories: frozenset[str],
) -> Iterator[tuple[Stated, History]]:
    """Return what each of `events` says, in order, with its object's history up to there.

    What was recorded before `events` is read from the log, in one statement for all objects.
    """
    said = list(stated(events, categories))
    earlier = {s.stream for s in said} - _begun_here(events)
    known = {s.stream: History(begun_before=s.stream in earlier) for s in said}
    if earlier:
        rows = await connection.fetch(
            f"""
            select {", ".join(RECORDED_COLUMNS)}, payload from event
            where ledger_id = $1 and stream = any($2::text[]) and type = any($3::text[])
                and position < $4 and payload is not null
            order by position
            """,
            ledger.ledger_id,
            sorted(earlier),
            list(types),
            events[0].position,
        )
        for past in stated((RecordedEvent(ledger.name, row) for row in rows), categories):
            known[past.stream].add(past)
    return _grown(said, known)


def _begun_here(events: Sequence[RecordedEvent]) -> set[str]:
    """Return the streams whose very first event is among `events`."""
    return {event.stream for event in events if event.version == 1}


def _grown(
    said: Sequence[Stated], known: Mapping[str, History]
) -> Iterator[tuple[Stated, History]]:
    for new in said:
        history = known[new.stream]
        history.add(new)
        yield new, history


# --- rows ---------------------------------------------------------------------------------


class Version(NamedTuple):
    """How the object `name` stood from position `known_from` on: `values` of its columns.

    `begun_before` as in `History`.
    """

    name: str
    known_from: int
    begun_before: bool
    values: tuple[Any, ...]


async def write_versions(
    connection: Connection,
    ledger_id: int,
    table: str,
    columns: Sequence[str],
    versions: Sequence[Version],
) -> None:
    """Write how objects stood, and close how they stood before.

    Parameters
    ----------
    columns : the one that names the object, and those of the versions' values
    versions : in the order of positions
    """
    if not versions:
        return
    following: dict[str, Version] = {}
    rows = []
    for version in reversed(versions):
        later = following.get(version.name)
        known_to = STILL_KNOWN if later is None else later.known_from
        rows.append((ledger_id, version.known_from, known_to, version.name, *version.values))
        following[version.name] = version
    stored = [version for version in following.values() if version.begun_before]
    if stored:
        await plan_by_index(connection)
        await connection.execute(
            f"""
            update {table} as row set known_to = first.known_from
            from unnest($2::text[], $3::bigint[]) as first(name, known_from)
            where row.ledger_id = $1 and row.{columns[0]} = first.name
                and row.known_to = {STILL_KNOWN}
            """,
            ledger_id,
            [version.name for version in stored],
            [version.known_from for version in stored],
        )
    rows.reverse()
    await connection.copy_records_to_table(
        table, records=rows, columns=("ledger_id", "known_from", "known_to", *columns)
    )


async def plan_by_index(connection: Connection) -> None:
    """Have the rest of the transaction find rows by index alone.

    A plan that was made while a table was small, or new, would read all of it for every batch.
    """
    await connection.execute(
        "set local enable_seqscan = off; set local enable_hashjoin = off; "
        "set local enable_mergejoin = off"
    )


async def write_facts(
    connection: Connection,
    ledger_id: int,
    table: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Stated, tuple[Any, ...]]],
) -> None:
    """Add a row of `columns` for each of `rows`, known from then on."""
    if rows:
        await connection.copy_records_to_table(
            table,
            records=[
                (ledger_id, said.known_from, STILL_KNOWN, said.origin, *values)
                for said, values in rows
            ],
            columns=("ledger_id", "known_from", "known_to", "origin", *columns),
        )


async def close_corrected(
    connection: Connection, ledger_id: int, tables: Sequence[str], said: Sequence[Stated]
) -> None:
    """Have the rows of what is corrected among `said` count up to there; new rows are written."""
    corrections = [s for s in said if s.known_from != s.origin]
    if not corrections:
        return
    await plan_by_index(connection)
    for table in tables:
        await connection.execute(
            f"""
            update {table} as row set known_to = next.position
            from (
                select held.origin, held.known_from, min(correction.position) as position
                from unnest($2::bigint[], $3::bigint[]) as correction(origin, position)
                join {table} as held on held.ledger_id = $1 and held.origin = correction.origin
                    and held.known_from < correction.position and held.known_to = {STILL_KNOWN}
                group by held.origin, held.known_from
            ) as next
            where row.ledger_id = $1 and row.origin = next.origin
                and row.known_from = next.known_from
            """,
            ledger_id,
            [s.origin for s in corrections],
            [s.known_from for s in corrections],
        )


WITH_CORRECTIONS: Final = (CORRECTED,)
"""The type that a projection of `Stated` facts folds besides its own."""
