"""Types of events: the envelope as the log holds it, with a fact or the outline of a frame."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Final
from uuid import UUID

import orjson
import strawberry

from api.graphql.relay import Node, encode_cursor, encode_id
from api.graphql.scalars import Cursor, Json, Position
from domain.frame_statistics import channel_names, time_quality
from domain.frames import time_from_ns
from domain.time_quality import TimeQuality
from eventlog.envelope import RecordedEvent
from projections.running.projection import Policy
from projections.running.runner import ProjectionRunner

EVENT: Final = "Event"
CURSOR_KIND: Final = "events"


@strawberry.input(description="Which events are wanted; what is null or empty does not restrict.")
class EventFilter:
    """What restricts a list or a subscription of events; each list at most 100 values."""

    types: list[str] | None = strawberry.field(
        default=None, description="Stored types, such as `asset.alert_raised`."
    )
    streams: list[str] | None = strawberry.field(
        default=None, description="Whole stream names, such as `asset:press-07`."
    )
    categories: list[str] | None = strawberry.field(
        default=None,
        description="What stands before the colon of a stream's name, such as `asset`.",
    )


@strawberry.enum(description="Who told the times of a frame.")
class TimeSource(Enum):
    """`domain.time_quality.TIME_SOURCES`."""

    DEVICE = strawberry.enum_value("device", description="The device that measured.")
    SERVER = strawberry.enum_value("server", description="A server or gateway in between.")
    AGENT = strawberry.enum_value(
        "agent", description="The agent: when it asked, or when a message arrived."
    )
    RECORDING = strawberry.enum_value(
        "recording", description="A recording or a simulation, however old."
    )
    MIXED = strawberry.enum_value("mixed", description="Several of these.")


@strawberry.type(name="TimeQuality", description="How far the times of a frame can be trusted.")
class FrameTimes:
    """`domain.time_quality.TimeQuality`."""

    source: TimeSource = strawberry.field(description="Who told them.")
    synchronized: bool | None = strawberry.field(
        description="Whether the agent's clock followed a reference, as its operating system "
        "says; null where that is not known."
    )
    offset_s: float | None = strawberry.field(
        description="How far the telling clock was from the agent's at most, s, the time on the "
        "way included; null where that is not known."
    )
    stepped: bool = strawberry.field(
        description="Whether the agent's clock was set while the window was open."
    )

    @classmethod
    def of(cls, time: TimeQuality) -> FrameTimes:
        """Return `time` as it is told."""
        return cls(
            source=TimeSource(time.source),
            synchronized=time.synchronized,
            offset_s=None if time.offset_ns is None else time.offset_ns / 1e9,
            stepped=time.stepped,
        )


@strawberry.type(description="A window of readings of one asset, in outline.")
class Frame:
    """What the log says of a frame without its readings."""

    agent: str = strawberry.field(description="The agent that recorded it.")
    sequence: Position = strawberry.field(description="Its number within the agent, from 1.")
    window_start: datetime = strawberry.field(description="Time of its first reading.")
    window_end: datetime = strawberry.field(description="Time of its last reading.")
    reading_count: int = strawberry.field(description="Readings of all its channels together.")
    channels: list[str] = strawberry.field(description="Names of its channels.")
    time_quality: FrameTimes | None = strawberry.field(
        description="How far its times can be trusted; null where the agent did not say."
    )

    @classmethod
    def of(cls, event: RecordedEvent) -> Frame:
        """Return the outline of the frame that `event` recorded."""
        assert event.window is not None, "a frame has a window"
        assert event.sequence is not None, "a frame is numbered by its agent"
        window = event.window
        names = channel_names(window.statistics) if window.statistics else ()
        time = time_quality(window.statistics) if window.statistics else None
        return cls(
            agent=event.actor.removeprefix("agent:"),
            sequence=Position(event.sequence),
            window_start=time_from_ns(window.start_ns),
            window_end=time_from_ns(window.end_ns),
            reading_count=window.reading_count,
            channels=list(names),
            time_quality=None if time is None else FrameTimes.of(time),
        )


@strawberry.type(
    description="An event as the log holds it for ever: what happened, when it was true "
    "(`occurredAt`), and when and where it became known (`recordedAt`, `position`)."
)
class Event(Node):
    """`eventlog.envelope.RecordedEvent`."""

    position: Position = strawberry.field(description="Its place in the log.")
    cursor: Cursor = strawberry.field(
        description="Where `events`, the query and the subscription, go on after it."
    )
    stream: str = strawberry.field(description="What it happened to, such as `asset:press-07`.")
    version: Position = strawberry.field(
        description="Its number within the stream, from 1 without gaps."
    )
    type: str = strawberry.field(
        description="Dotted type, stable for ever, such as `asset.alert_raised`."
    )
    schema_version: int = strawberry.field(description="Version of the type's payload.")
    event_id: UUID = strawberry.field(description="UUIDv7; recorded once.")
    occurred_at: datetime = strawberry.field(description="When it was true.")
    recorded_at: datetime = strawberry.field(description="When the log learnt of it.")
    actor: str = strawberry.field(description="Who caused it, such as `user:jane`.")
    correlation_id: UUID | None = strawberry.field(
        description="What it belongs to, across streams."
    )
    causation_id: UUID | None = strawberry.field(description="The event that caused it.")
    payload_sha256: str = strawberry.field(
        description="SHA-256 of the payload, hexadecimal: of a fact's JSON bytes, or of a frame's "
        "canonical form."
    )
    leaf_hash: str = strawberry.field(
        description="Its leaf in the log's RFC 6962 Merkle tree, hexadecimal."
    )
    fact: Json | None = strawberry.field(
        description="The payload of a fact as it was recorded, in the shape of `schemaVersion`, "
        "values in SI; null for a frame, and once it was archived or erased."
    )
    frame: Frame | None = strawberry.field(description="The outline of a frame; null for a fact.")

    @classmethod
    def of(cls, event: RecordedEvent) -> Event:
        """Return `event` as the schema tells it."""
        fact = None
        if not event.is_frame and event.payload is not None:
            fact = Json(orjson.loads(event.payload))
        return cls(
            id=encode_id(EVENT, str(event.position)),
            position=Position(event.position),
            cursor=event_cursor(event),
            stream=event.stream,
            version=Position(event.version),
            type=event.type,
            schema_version=event.schema_version,
            event_id=event.event_id,
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            actor=event.actor,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            payload_sha256=event.payload_sha256.hex(),
            leaf_hash=event.leaf_hash.hex(),
            fact=fact,
            frame=Frame.of(event) if event.is_frame else None,
        )


@strawberry.type(description="An event, delivered at least once, and where to resume after it.")
class EventMessage:
    """A message of the subscription `events`."""

    cursor: Cursor = strawberry.field(
        description="Keep it once the event is dealt with, and resume with `after`."
    )
    event: Event = strawberry.field(description="The event.")
    lag: Position = strawberry.field(
        description="Events in the log beyond this one when it was sent, wanted or not; 0 is live."
    )


@strawberry.type(description="How far a projection has come.")
class ProjectionState:
    """A read model or policy that this server folds."""

    name: str = strawberry.field(description="Its name, such as `twins`.")
    position: Position = strawberry.field(description="Everything up to here is folded.")
    lag: Position = strawberry.field(description="Events of the log that are not folded yet.")
    failure: str | None = strawberry.field(
        description="Why it stands still; null while it goes on."
    )
    version: int = strawberry.field(
        description="Version of its rows: a newer one of the software rebuilds them beside."
    )
    active: bool = strawberry.field(
        description="Whether this process folds it; else another one does, and this one follows."
    )
    events_per_s: float = strawberry.field(
        description="Events of the log a second by which it went on over the last minute."
    )
    rebuildable: bool = strawberry.field(
        description="Whether its rows can be made anew from the log; what a policy did cannot."
    )
    repair: str | None = strawberry.field(
        description="What an operator can do about its failure; null without one."
    )


@strawberry.type(description="The log and what follows it.")
class LogState:
    """Where the ledger and its projections stand."""

    ledger: str = strawberry.field(description="Name of the ledger that this server serves.")
    position: Position = strawberry.field(description="Position of the last event, 0 when empty.")
    start: Cursor = strawberry.field(
        description="Cursor before the first event: subscribe after it to get everything."
    )
    end: Cursor = strawberry.field(description="Cursor after the last event.")
    projections: list[ProjectionState] = strawberry.field(
        description="The projections that this server folds."
    )


def repair_of(runner: ProjectionRunner) -> str | None:
    """Return what an operator can do about the failure of `runner`; None without one."""
    if runner.failure is None:
        return None
    name = runner.projection.name
    if "projection.superseded" in runner.failure:
        return (
            f"upgrade this process; to go back, stop the newer ones and run: heddle rebuild {name}"
        )
    if isinstance(runner.projection, Policy):
        return "it is tried again every 30 s; see the server's log for the event that it stopped at"
    return (
        "it is tried again every 30 s; see the server's log for the event that it stopped at, and "
        f"after an upgrade that mends it run: heddle check {name}, or heddle rebuild {name}"
    )


def event_cursor(event: RecordedEvent) -> Cursor:
    """Return the cursor after `event`."""
    return encode_cursor(CURSOR_KIND, event.ledger, event.position)
