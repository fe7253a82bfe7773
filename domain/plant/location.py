"""Locations: enterprise, site, area, line and cell, and how each judges what stands in it.

A location stands in one of a higher level of ISA-95, levels may be left out. That it is empty
when it is given up cannot be decided here, for what stands in it has streams of its own: the
plant projection says where something stands in what is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, assert_never, cast, get_args

from domain.deciders import Decider, Others
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.identifiers import check_identifier
from domain.texts import TITLE_LENGTH_MAX, check_note
from domain.thread import NodeState, Standing, ThreadItem


def location_stream(location_id: str) -> str:
    """Return the stream of a location."""
    return f"location:{location_id}"


class Level(StrEnum):
    """Levels of ISA-95 part 1, from the top; a work centre is a LINE, a work unit a CELL."""

    ENTERPRISE = "ENTERPRISE"
    SITE = "SITE"
    AREA = "AREA"
    LINE = "LINE"
    CELL = "CELL"

    def above(self, other: Level) -> bool:
        """Whether a location of this level may hold one of level `other`."""
        return _ORDER[self] < _ORDER[other]


_ORDER: Final = {level: n for n, level in enumerate(Level)}


class RollUp(StrEnum):
    """How the health of what stands in a location becomes the location's own."""

    WORST = "WORST"  # as bad as the worst
    K_OF_N = "K_OF_N"  # good while so many are good: redundancy
    MEAN = "MEAN"


# --- events -------------------------------------------------------------------------------


@event_type("location.defined")
@dataclass(frozen=True)
class LocationDefined:
    """A location became known; all but an enterprise stand in another of a higher level."""

    location_id: str
    level: Level
    title: str
    parent_id: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it exists."""
        return (Standing(location_stream(self.location_id), NodeState.ACTIVE),)


@event_type("location.moved")
@dataclass(frozen=True)
class LocationMoved:
    """A location stands in another one now."""

    location_id: str
    parent_id: str


@event_type("location.roll_up_declared")
@dataclass(frozen=True)
class RollUpDeclared:
    """From now on a location judges so; `required` is the k of K_OF_N and None otherwise."""

    location_id: str
    roll_up: RollUp
    required: int | None


@event_type("location.retired")
@dataclass(frozen=True)
class LocationRetired:
    """A location is given up."""

    location_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it is gone."""
        return (Standing(location_stream(self.location_id), NodeState.RETIRED),)


LocationEvent = LocationDefined | LocationMoved | RollUpDeclared | LocationRetired


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DefineLocation:
    """Make a location known; all but an enterprise name the one they stand in."""

    location_id: str
    level: Level
    title: str
    parent_id: str | None = None


@dataclass(frozen=True)
class MoveLocation:
    """Say that a location stands in another one now."""

    location_id: str
    parent_id: str


@dataclass(frozen=True)
class DeclareRollUp:
    """Say how a location judges what stands in it; `required` is the k of K_OF_N."""

    location_id: str
    roll_up: RollUp
    required: int | None = None


@dataclass(frozen=True)
class RetireLocation:
    """Give a location up."""

    location_id: str
    reason: str


LocationCommand = DefineLocation | MoveLocation | DeclareRollUp | RetireLocation


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Undefined:
    """Nobody has named this location yet."""


@dataclass(frozen=True)
class Defined:
    """Known, and not given up. Until something else is declared it is as bad as its worst."""

    location_id: str
    level: Level
    title: str
    parent_id: str | None
    roll_up: RollUp = RollUp.WORST
    required: int | None = None


@dataclass(frozen=True)
class Retired:
    """Given up; what still stands in it has to be moved."""

    location_id: str
    level: Level
    title: str
    parent_id: str | None


Location = Undefined | Defined | Retired


# --- decisions ----------------------------------------------------------------------------


def decide(
    command: LocationCommand, location: Location, others: Others
) -> tuple[LocationEvent, ...]:
    """Return the events `command` causes on `location`; none when it already is so.

    Parameters
    ----------
    others : the locations that `looks_at` names

    Raises
    ------
    CommandRejected
        ``location.already_defined``, ``location.retired``, ``location.cycle``,
        ``location.level_not_below``
    NotFound
        ``location.unknown``
    InvalidInput
        ``location.malformed_name``, ``location.parent_required``,
        ``location.enterprise_has_no_parent``, ``roll_up.required``, ``text.too_long``
    """
    if isinstance(command, DefineLocation):
        return _define(command, location, others)
    match location:
        case Undefined():
            raise unknown_location(command.location_id)
        case Retired():
            raise retired_location(command.location_id)
        case Defined():
            return _decide_defined(command, location, others)
        case _:
            assert_never(location)


def unknown_location(location_id: str) -> NotFound:
    """Return the error for a location that nobody defined."""
    return NotFound(
        "location.unknown",
        f"location {location_id!r} is not defined",
        hint="define it first, or check the name",
        value=location_id,
    )


def retired_location(location_id: str) -> CommandRejected:
    """Return the error for whatever is asked of, or put into, a location that was given up."""
    return CommandRejected(
        "location.retired",
        f"location {location_id!r} was given up and takes nothing in",
        value=location_id,
    )


def check_stands(location_id: str, location: Location) -> Defined:
    """Return `location` when something may be put into it.

    Raises
    ------
    NotFound, CommandRejected
        ``location.unknown``, ``location.retired``
    """
    match location:
        case Undefined():
            raise unknown_location(location_id)
        case Retired():
            raise retired_location(location_id)
        case Defined():
            return location
        case _:
            assert_never(location)


def _define(
    command: DefineLocation, location: Location, others: Others
) -> tuple[LocationEvent, ...]:
    check_identifier("location", command.location_id)
    title = check_note("title", command.title.strip(), TITLE_LENGTH_MAX) or command.location_id
    if not isinstance(location, Undefined):
        raise CommandRejected(
            "location.already_defined",
            f"location {command.location_id!r} is defined as a {location.level.value}",
            hint="choose another name; a location is defined once",
            value=command.location_id,
        )
    _check_parent(command.location_id, command.level, command.parent_id, others)
    return (LocationDefined(command.location_id, command.level, title, command.parent_id),)


def _decide_defined(
    command: MoveLocation | DeclareRollUp | RetireLocation, location: Defined, others: Others
) -> tuple[LocationEvent, ...]:
    match command:
        case MoveLocation(parent_id=parent_id):
            _check_parent(location.location_id, location.level, parent_id, others)
            if parent_id == location.parent_id:
                return ()
            return (LocationMoved(location.location_id, parent_id),)
        case DeclareRollUp(roll_up=roll_up, required=required):
            _check_required(roll_up, required)
            if (roll_up, required) == (location.roll_up, location.required):
                return ()
            return (RollUpDeclared(location.location_id, roll_up, required),)
        case RetireLocation(reason=reason):
            return (LocationRetired(location.location_id, check_note("reason", reason)),)
        case _:
            assert_never(command)


def _check_parent(location_id: str, level: Level, parent_id: str | None, others: Others) -> None:
    if level is Level.ENTERPRISE:
        if parent_id is None:
            return
        raise InvalidInput(
            "location.enterprise_has_no_parent",
            f"an ENTERPRISE stands in nothing, not in {parent_id!r}",
            value=parent_id,
        )
    if parent_id is None:
        raise InvalidInput(
            "location.parent_required",
            f"a {level.value} stands in a location of a higher level",
            hint="name its parent",
            value=location_id,
        )
    parent = check_stands(parent_id, _state(others, parent_id))
    if location_id in _ancestors(parent_id, others):
        raise CommandRejected(
            "location.cycle",
            f"location {parent_id!r} stands in {location_id!r}, which cannot stand in it too",
            value=parent_id,
        )
    if not parent.level.above(level):
        raise CommandRejected(
            "location.level_not_below",
            f"a {level.value} cannot stand in {parent_id!r}, a {parent.level.value}",
            hint="enterprise, site, area, line, cell: a parent is of a higher level",
            value=level.value,
            limit=parent.level.value,
        )


def _ancestors(location_id: str, others: Others) -> tuple[str, ...]:
    """Return `location_id` and what it stands in, as far as `others` knows and each once."""
    chain: list[str] = []
    following: str | None = location_id
    while following is not None and following not in chain:
        chain.append(following)
        state = _state(others, following)
        following = None if isinstance(state, Undefined) else state.parent_id
    return tuple(chain)


def _state(others: Others, location_id: str) -> Location:
    return cast("Location", others.get(location_stream(location_id), Undefined()))


def _check_required(roll_up: RollUp, required: int | None) -> None:
    k_of_n = roll_up is RollUp.K_OF_N
    if k_of_n != (required is not None) or (required is not None and required < 1):
        raise InvalidInput(
            "roll_up.required",
            f"a roll-up {roll_up.value} with {required} required says nothing",
            hint="K_OF_N names how many have to be good, at least 1; no other does",
            value=required,
            limit=1 if k_of_n else None,
        )


def looks_at(command: LocationCommand, _location: Location, others: Others) -> tuple[str, ...]:
    """Return the streams of the chain of parents that a location is to stand in."""
    if isinstance(command, DefineLocation | MoveLocation) and command.parent_id is not None:
        return tuple(location_stream(name) for name in _ancestors(command.parent_id, others))
    return ()


# --- fold ---------------------------------------------------------------------------------


def evolve(location: Location, event: LocationEvent) -> Location:
    """Return what `event` makes of `location`."""
    if isinstance(event, LocationDefined):
        return Defined(event.location_id, event.level, event.title, event.parent_id)
    if not isinstance(location, Defined):
        raise ValueError(f"{type(event).__name__} cannot happen to {type(location).__name__}")
    match event:
        case LocationMoved():
            return replace(location, parent_id=event.parent_id)
        case RollUpDeclared():
            return replace(location, roll_up=event.roll_up, required=event.required)
        case LocationRetired():
            return Retired(location.location_id, location.level, location.title, location.parent_id)
        case _:
            assert_never(event)


DECIDER: Final[Decider[LocationCommand, Location, LocationEvent]] = Decider(
    category="location",
    command_types=get_args(LocationCommand),
    initial=Undefined(),
    decide=decide,
    evolve=evolve,
    subject=lambda command: location_stream(command.location_id),
    stream_of=lambda event: location_stream(event.location_id),
    looks_at=looks_at,
)
