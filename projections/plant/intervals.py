"""Timelines of the plant: what was said, placed by when it was true, kept with when it was known.

Every event of a location, asset or component states something of one or more of its facets.
The statements of a facet, ordered by valid time, are its timeline: each holds until the next
one. A statement that comes late, or a correction, goes where it belongs; intervals it changes are
closed at its position and written anew, so that what was known before stays to be asked for.
Nothing here knows of a database.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, NamedTuple

from domain.asset import AssetPlaced, AssetRegistered, AssetRetired, asset_stream
from domain.plant.component import (
    ComponentInstalled,
    ComponentRegistered,
    ComponentRemoved,
    ComponentScrapped,
)
from domain.plant.location import (
    LocationDefined,
    LocationMoved,
    LocationRetired,
    RollUpDeclared,
    location_stream,
)
from domain.records import RecordCorrected

KNOWN_STILL: Final = 2**63 - 1
"""`known_to` of what nothing has changed."""

VALID_STILL: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""`valid_to` of what nothing follows. A moment like any other, for drivers differ on infinity."""


class Facet(IntEnum):
    """What a statement is about; the numbers are stored and never change."""

    PLACE = 1  # where it stands, or is installed
    DESCRIPTION = 2  # what it is
    ROLL_UP = 3  # how a location judges what stands in it
    END = 4  # that it was given up, retired or scrapped


class Said(IntEnum):
    """How a statement works on its facet; the numbers are stored and never change."""

    SET = 0  # it is so from then on
    INSTALLED = 1  # in this slot from then on; wherever it was, it should have been removed
    REMOVED = 2  # no longer in this slot
    GONE = 3  # nowhere from then on


class Finding(IntEnum):
    """What does not fit together; the numbers are stored and never change."""

    NONE = 0
    NOT_REMOVED = 1  # installed elsewhere, or scrapped, while it was still in a slot
    NOT_THERE = 2  # removed from a slot that it was not in: it stays where it is


class Place(NamedTuple):
    """A stream's name, and the slot in it where there is one."""

    subject: str
    slot: str | None


class Statement(NamedTuple):
    """What one event says of a facet of `subject`, true from `valid_from` on."""

    subject: str
    facet: Facet
    source_position: int
    valid_from: datetime
    said: Said = Said.SET
    stated: Place | None = None
    item_type: str | None = None
    title: str | None = None
    part_id: str | None = None
    roll_up: str | None = None
    required: int | None = None

    @property
    def order(self) -> tuple[datetime, int]:
        """Where it stands in its timeline; of one moment, what was recorded later counts."""
        return self.valid_from, self.source_position


class Interval(NamedTuple):
    """A statement, until when it holds, what follows from it, and when that was known."""

    statement: Statement
    valid_to: datetime
    place: Place | None
    finding: Finding
    known_from: int
    known_to: int = KNOWN_STILL

    @property
    def key(self) -> tuple[str, int, int, int]:
        """What identifies it in a ledger."""
        said = self.statement
        return said.subject, said.facet, said.source_position, self.known_from


class Change(NamedTuple):
    """What an event changes at `position`: it may take back what an earlier one said."""

    subject: str
    position: int
    retracted: int | None
    statements: tuple[Statement, ...]


# --- what events say ----------------------------------------------------------------------

CATEGORIES: Final = ("asset", "component", "location")
"""Streams that say something about the plant."""


def change_of(stream: str, position: int, occurred_at: datetime, fact: Any) -> Change | None:
    """Return what `fact` changes, or None where it says nothing about the plant."""
    if isinstance(fact, RecordCorrected):
        if stream.partition(":")[0] not in CATEGORIES:
            return None
        source = fact.corrected_position
        said = tuple(statements_of(stream, source, occurred_at, fact.fact()))
        return Change(stream, position, source, said)
    said = tuple(statements_of(stream, position, occurred_at, fact))
    return Change(stream, position, None, said) if said else None


def statements_of(
    subject: str, source_position: int, valid_from: datetime, fact: Any
) -> Iterator[Statement]:
    """Yield what `fact` states."""

    def say(facet: Facet, said: Said = Said.SET, **what: Any) -> Statement:
        return Statement(subject, facet, source_position, valid_from, said, **what)

    match fact:
        case LocationDefined():
            yield say(Facet.DESCRIPTION, item_type=fact.level.value, title=fact.title)
            if fact.parent_id is not None:
                yield say(Facet.PLACE, stated=Place(location_stream(fact.parent_id), None))
        case LocationMoved():
            yield say(Facet.PLACE, stated=Place(location_stream(fact.parent_id), None))
        case RollUpDeclared():
            yield say(Facet.ROLL_UP, roll_up=fact.roll_up.value, required=fact.required)
        case LocationRetired():
            yield say(Facet.END)
        case AssetRegistered():
            yield say(Facet.DESCRIPTION, item_type=fact.asset_type, title=fact.title)
        case AssetPlaced():
            yield say(Facet.PLACE, stated=Place(location_stream(fact.location_id), None))
        case AssetRetired() | ComponentScrapped():
            yield say(Facet.PLACE, Said.GONE)
            yield say(Facet.END)
        case ComponentRegistered():
            yield say(
                Facet.DESCRIPTION,
                item_type=fact.component_type,
                title=fact.title,
                part_id=fact.part_id,
            )
        case ComponentInstalled():
            in_slot = Place(asset_stream(fact.asset_id), fact.slot)
            yield say(Facet.PLACE, Said.INSTALLED, stated=in_slot)
        case ComponentRemoved():
            in_slot = Place(asset_stream(fact.asset_id), fact.slot)
            yield say(Facet.PLACE, Said.REMOVED, stated=in_slot)


def follows(before: Place | None, statement: Statement) -> tuple[Place | None, Finding]:
    """Return where `statement` leaves what stood at `before`, and what does not fit."""
    stated = statement.stated
    match statement.said:
        case Said.SET:
            return stated, Finding.NONE
        case Said.INSTALLED:
            fits = before is None or before == stated
            return stated, Finding.NONE if fits else Finding.NOT_REMOVED
        case Said.REMOVED:
            return (None, Finding.NONE) if before == stated else (before, Finding.NOT_THERE)
        case Said.GONE:
            # A retired asset simply leaves its location; a component is taken out of its slot.
            in_slot = before is not None and before.slot is not None
            return None, Finding.NOT_REMOVED if in_slot else Finding.NONE


# --- timelines ----------------------------------------------------------------------------


@dataclass(slots=True)
class Timelines:
    """The intervals of some subjects as they are known, and what becomes of them.

    Parameters
    ----------
    held : intervals that are known still: of each facet all that end at or after the earliest
        moment that changes will touch, so that the first of them is what held before
    """

    held: Iterable[Interval]
    closed: list[Interval] = field(default_factory=list)
    _of: dict[tuple[str, Facet], list[Interval]] = field(default_factory=dict)
    _created: dict[tuple[str, int, int, int], Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for interval in self.held:
            said = interval.statement
            self._of.setdefault((said.subject, said.facet), []).append(interval)
        for intervals in self._of.values():
            intervals.sort(key=_order)

    @property
    def created(self) -> Sequence[Interval]:
        """Intervals that were not held before, those that were closed again among them."""
        return list(self._created.values())

    def apply(self, change: Change) -> None:
        """Put what `change` says where it belongs."""
        if change.retracted is not None:
            for facet in Facet:
                self._retract((change.subject, facet), change.retracted, change.position)
        for statement in change.statements:
            self._insert(statement, change.position)

    def _retract(self, key: tuple[str, Facet], source_position: int, position: int) -> None:
        intervals = self._of.get(key, [])
        for at, interval in enumerate(intervals):
            if interval.statement.source_position == source_position:
                del intervals[at]
                self._close(interval, position)
                self._settle(intervals, at, position)
                return

    def _insert(self, statement: Statement, position: int) -> None:
        intervals = self._of.setdefault((statement.subject, statement.facet), [])
        at = bisect_left(intervals, statement.order, key=_order)
        before = intervals[at - 1].place if at else None
        following = intervals[at].statement.valid_from if at < len(intervals) else VALID_STILL
        place, finding = follows(before, statement)
        added = Interval(statement, following, place, finding, position)
        intervals.insert(at, added)
        self._created[added.key] = added
        self._settle(intervals, at + 1, position)
        self._end_before(intervals, at, position)

    def _settle(self, intervals: list[Interval], at: int, position: int) -> None:
        """Judge again what stands from `at` on, until a judgement stays as it was."""
        self._end_before(intervals, at, position)
        for n in range(at, len(intervals)):
            before = intervals[n - 1].place if n else None
            place, finding = follows(before, intervals[n].statement)
            if (place, finding) == (intervals[n].place, intervals[n].finding):
                return
            self._renew(intervals, n, intervals[n]._replace(place=place, finding=finding), position)

    def _end_before(self, intervals: list[Interval], at: int, position: int) -> None:
        """Let the interval before `at` end where the one there begins."""
        if at == 0:
            return
        ends = intervals[at].statement.valid_from if at < len(intervals) else VALID_STILL
        if intervals[at - 1].valid_to != ends:
            self._renew(intervals, at - 1, intervals[at - 1]._replace(valid_to=ends), position)

    def _renew(self, intervals: list[Interval], at: int, renewed: Interval, position: int) -> None:
        if intervals[at].known_from < position:
            self._close(intervals[at], position)
        intervals[at] = renewed._replace(known_from=position)
        self._created[intervals[at].key] = intervals[at]

    def _close(self, interval: Interval, position: int) -> None:
        closed = interval._replace(known_to=position)
        if interval.key in self._created:
            self._created[interval.key] = closed
        else:
            self.closed.append(closed)


def _order(interval: Interval) -> tuple[datetime, int]:
    return interval.statement.order
