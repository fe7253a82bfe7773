"""The audit trail: who did what to which object, when, and what it was before.

The log is the trail: every entry is read from it. Where the entries of a page stand is found by
`projections.audit.search`, however long the log is, and exactly as of its head, wherever the
projections stand. Frames are left out; they are the machines' own. What was corrected or signed
since is told at the entry itself.

References
----------
21 CFR 11.10(e): secure, computer-generated, time-stamped audit trails that record who did what
and when, and do not obscure what was recorded before. 21 CFR 11.50: what a signature shows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
import orjson

from domain.errors import HeddleError, InvalidInput
from domain.events import format_time
from domain.records import CORRECTED, SIGNED, Meaning, RecordCorrected, RecordSigned
from eventlog.database import Connection
from eventlog.envelope import RECORDED_COLUMNS, RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import POSITION_MAX, position_at
from projections.audit.search import AuditFilter, find_positions
from projections.audit.words import words_of

__all__ = ["AuditEntry", "AuditFilter", "AuditPage", "audit_trail"]

ENTRIES_MAX: Final = 500
FILTER_VALUES_MAX: Final = 50
"""Actors, objects or kinds of one question; each is looked up by itself."""

MARKS_MAX: Final = 10_000
"""Corrections and signatures told with one page."""

_COLUMNS: Final = ", ".join(RECORDED_COLUMNS)


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that a correction changed; values as in the payload's JSON."""

    field: str
    previous: Any
    now: Any


@dataclass(frozen=True, slots=True)
class Change:
    """What a correction says instead, and what was recorded before.

    `previous_position` is where that stands: the corrected event, or its correction before this
    one. `fields` is empty where what stood there was erased: `previous_erased`.
    """

    corrected_position: int
    previous_position: int
    reason: str
    fields: tuple[FieldChange, ...]
    previous_erased: bool


@dataclass(frozen=True, slots=True)
class SignatureMark:
    """A signature of an entry, by its own position."""

    position: int
    signer: str
    signer_name: str
    meaning: Meaning
    signed_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done.

    Parameters
    ----------
    position, event_id : where it stands in the log, and its name there
    recorded_at, occurred_at : when it was recorded, by the log's clock; when it was true
    actor, stream, type : who did what kind of thing to which object
    words : what it says, in one line; why it cannot be read, where it cannot
    corrected_by : positions of its corrections, in order; the last one counts
    signatures : in the order in which they were given
    change : of a correction: what it changed
    """

    position: int
    event_id: uuid.UUID
    recorded_at: datetime
    occurred_at: datetime
    actor: str
    stream: str
    type: str
    words: str
    corrected_by: tuple[int, ...]
    signatures: tuple[SignatureMark, ...]
    change: Change | None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first; `more` lie before the last one. All are of the log up to `as_of`."""

    entries: tuple[AuditEntry, ...]
    more: bool
    as_of: int


async def audit_trail(
    ledger: Ledger,
    wanted: AuditFilter,
    *,
    first: int,
    before: int | None = None,
    as_of: int | None = None,
) -> AuditPage:
    """Return the last `first` entries that are `wanted`, newest first.

    Parameters
    ----------
    before : position of the entry before which to go on
    as_of : position of the log; corrections and signatures too are those known then

    Raises
    ------
    InvalidInput
        ``page.limit``, ``filter.too_many``, ``event.naive_time``
    """
    if not 1 <= first <= ENTRIES_MAX:
        raise InvalidInput(
            "page.limit",
            f"first is {first}; it lies between 1 and {ENTRIES_MAX}",
            value=first,
            limit=ENTRIES_MAX,
        )
    for values in (wanted.actors, wanted.streams, wanted.types):
        if len(values) > FILTER_VALUES_MAX:
            raise InvalidInput(
                "filter.too_many",
                f"a filter names {len(values)} values, more than {FILTER_VALUES_MAX}",
                value=len(values),
                limit=FILTER_VALUES_MAX,
            )
    head = await ledger.head()
    as_of = head if as_of is None else min(as_of, head)
    low, high = await _positions(ledger, wanted, as_of, before)
    async with ledger.pool.acquire() as connection:
        found = await find_positions(connection, ledger, wanted, low, high, first + 1)
        rows = await connection.fetch(
            f"select {_COLUMNS}, payload from event "
            "where ledger_id = $1 and position = any($2::bigint[]) order by position desc",
            ledger.ledger_id,
            found[:first],
        )
        events = [RecordedEvent(ledger.name, row) for row in rows]
        marks = await _marks(connection, ledger, events, as_of)
        previous = await _previous(connection, ledger, events, marks)
    entries = tuple(_entry(event, marks, previous) for event in events)
    return AuditPage(entries, len(found) > first, as_of)


# --- which entries ------------------------------------------------------------------------


async def _positions(
    ledger: Ledger, wanted: AuditFilter, as_of: int, before: int | None
) -> tuple[int, int]:
    """Return the first and the last position that is asked for."""
    low, high = 1, min(as_of, POSITION_MAX if before is None else before - 1)
    if wanted.recorded_from is not None:
        format_time(wanted.recorded_from)
        just_before = wanted.recorded_from - timedelta(microseconds=1)
        low = 1 + await position_at(ledger, just_before)
    if wanted.recorded_until is not None:
        high = min(high, await position_at(ledger, wanted.recorded_until))
    return low, high


# --- what became of them ------------------------------------------------------------------


Marks = Mapping[int, Sequence[RecordedEvent]]
"""Corrections and signatures by the position that they speak of, in order."""


async def _marks(
    connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent], as_of: int
) -> Marks:
    """Return what corrects or signs `events`, or what those among them that correct do."""
    spoken_of = {event.position for event in events}
    spoken_of |= {fact.corrected_position for fact in map(_fact, events) if _corrects(fact)}
    rows = await connection.fetch(
        f"""
        select {_COLUMNS}, payload from event
        where ledger_id = $1 and stream = any($2::text[]) and position <= $3
            and type in ('{CORRECTED}', '{SIGNED}') and payload is not null
            and coalesce(
                convert_from(payload, 'UTF8')::jsonb -> 'corrected_position',
                convert_from(payload, 'UTF8')::jsonb -> 'signed_position'
            )::bigint = any($4::bigint[])
        order by position limit {MARKS_MAX}
        """,
        ledger.ledger_id,
        list({event.stream for event in events}),
        as_of,
        list(spoken_of),
    )
    marks: dict[int, list[RecordedEvent]] = {}
    for row in rows:
        mark = RecordedEvent(ledger.name, row)
        fact = mark.fact
        position = fact.corrected_position if _corrects(fact) else fact.signed_position
        marks.setdefault(position, []).append(mark)
    return marks


async def _previous(
    connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent], marks: Marks
) -> dict[int, RecordedEvent]:
    """Return, by the position of each correction among `events`, what was recorded before it."""
    earlier: dict[int, int] = {}
    for event in events:
        fact = _fact(event)
        if _corrects(fact):
            corrections = [
                m.position
                for m in marks.get(fact.corrected_position, ())
                if m.type == CORRECTED and m.position < event.position
            ]
            earlier[event.position] = max(corrections, default=fact.corrected_position)
    if not earlier:
        return {}
    rows: list[asyncpg.Record] = await connection.fetch(
        f"select {_COLUMNS}, payload from event where ledger_id = $1 "
        "and position = any($2::bigint[])",
        ledger.ledger_id,
        list(set(earlier.values())),
    )
    found = {event.position: event for event in (RecordedEvent(ledger.name, row) for row in rows)}
    return {at: found[position] for at, position in earlier.items() if position in found}


def _fact(event: RecordedEvent) -> Any:
    """Return the fact of `event`; None where it was erased or cannot be read."""
    try:
        return event.fact
    except HeddleError:
        return None


def _corrects(fact: Any) -> bool:
    return isinstance(fact, RecordCorrected)


# --- entries ------------------------------------------------------------------------------


def _entry(event: RecordedEvent, marks: Marks, previous: Mapping[int, RecordedEvent]) -> AuditEntry:
    own = marks.get(event.position, ())
    return AuditEntry(
        position=event.position,
        event_id=event.event_id,
        recorded_at=event.recorded_at,
        occurred_at=event.occurred_at,
        actor=event.actor,
        stream=event.stream,
        type=event.type,
        words=_words(event),
        corrected_by=tuple(mark.position for mark in own if mark.type == CORRECTED),
        signatures=tuple(_signature(mark) for mark in own if mark.type == SIGNED),
        change=_change(event, previous.get(event.position)),
    )


def _words(event: RecordedEvent) -> str:
    try:
        return words_of(event.fact, event.stream)
    except HeddleError as error:
        # An auditor has to see that it is there, whether or not this software can read it.
        return f"({error.code})"


def _signature(mark: RecordedEvent) -> SignatureMark:
    fact = mark.fact
    assert isinstance(fact, RecordSigned)
    return SignatureMark(
        mark.position, fact.signer, fact.signer_name, fact.meaning, mark.recorded_at
    )


def _change(event: RecordedEvent, previous: RecordedEvent | None) -> Change | None:
    fact = _fact(event)
    if not isinstance(fact, RecordCorrected) or previous is None:
        return None
    before = _said(previous)
    now = _document(fact.replacement_type, fact.replacement, event)
    return Change(
        corrected_position=fact.corrected_position,
        previous_position=previous.position,
        reason=fact.reason,
        fields=(
            ()
            if before is None
            else tuple(
                FieldChange(name, before.get(name), now.get(name))
                for name in sorted(before.keys() | now.keys())
                if before.get(name) != now.get(name)
            )
        ),
        previous_erased=before is None,
    )


def _said(event: RecordedEvent) -> dict[str, Any] | None:
    """Return what `event` says was so, its type and time among it; None once it was erased."""
    if event.payload is None:
        return None
    if event.type == CORRECTED:
        fact = event.fact
        return _document(fact.replacement_type, fact.replacement, event)
    return _document(event.type, event.payload, event)


def _document(
    name: str | None, payload: str | bytes | None, event: RecordedEvent
) -> dict[str, Any]:
    if name is None or payload is None:
        return {}  # nothing happened
    return {
        **orjson.loads(payload),
        "(kind)": name,
        "(occurred_at)": format_time(event.occurred_at),
    }
