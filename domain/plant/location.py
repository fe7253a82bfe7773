"""Locations: enterprise, site, area, line and cell, and how each judges what stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.events import event_type
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


class RollUp(StrEnum):
    """How the health of what stands in a location becomes the location's own."""

    WORST = "WORST"  # as bad as the worst
    K_OF_N = "K_OF_N"  # good while so many are good: redundancy
    MEAN = "MEAN"


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
