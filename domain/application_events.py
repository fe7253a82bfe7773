"""Events of applications that are written with the `eventsourcing` library and kept in our log.

The log knows their outline; what an event says is between the application and its library.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from domain.events import event_type

EVENT_RECORDED: Final = "eventsourcing.event_recorded"
SCHEMA_VERSION: Final = 1


class OriginatorIdType(StrEnum):
    """What an originator's id was before it became text."""

    UUID = "uuid"
    TEXT = "text"


class StateEncoding(StrEnum):
    """How the bytes of a state became text."""

    UTF_8 = "utf-8"
    BASE64 = "base64"


@event_type(EVENT_RECORDED, SCHEMA_VERSION)
@dataclass(frozen=True, slots=True)
class EventRecorded:
    """An application of the `eventsourcing` library recorded an event of an aggregate.

    Parameters
    ----------
    originator_version : as the application counts; the log counts its streams from 1
    topic : the library's name of the event class
    state : what the library's mapper made of the event; in base64 unless it is text without NUL
    """

    originator_id: str
    originator_id_type: OriginatorIdType
    originator_version: int
    state: str
    state_encoding: StateEncoding
    topic: str
