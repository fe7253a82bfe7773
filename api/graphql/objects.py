"""Objects of the thread over GraphQL: what all kinds of them have in common.

Lots, parts, documents … are told as their events make them, read from the log itself: as they
were known at any position, and as they were true at any time. Lists find them by an index
(`projections.objects`) and tell them as of the position that the index reflects. However many are
asked for, an operation reads them in one statement; events, corrections and signatures come with
them at no further cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import orjson
import strawberry

from api.graphql.as_of import Asked, AsOf, asked
from api.graphql.context import OperationContext, OperationInfo
from api.graphql.events.types import CURSOR_KIND, Event, event_cursor
from api.graphql.fields import field
from api.graphql.object_traces import TOGETHER_NODES_MAX, graph_of
from api.graphql.records import enums as _enums  # noqa: F401 (describes Meaning)
from api.graphql.relay import (
    After,
    Connection,
    First,
    Node,
    check_first,
    connection,
    decode_position_cursor,
    encode_cursor,
    encode_id,
)
from api.graphql.scalars import Cursor, Json, Position
from api.graphql.thread.types import ThreadGraph
from api.graphql.versions import VERSION
from domain.errors import Unavailable
from domain.records import Entry, Meaning, RecordCorrected
from eventlog.envelope import RecordedEvent
from eventlog.objects import OBJECTS_MAX, LoadedObject, load_objects
from eventlog.signatures import SignatureStanding, signatures_among
from projections.thread.projection import ThreadProjection
from projections.thread.traced import Direction

TRACE_FIRST_DEFAULT: Final = 500
TRACE_COST: Final = 100

T = TypeVar("T")

# --- what every object has ------------------------------------------------------------------


@strawberry.type(description="That an event was wrong, and what was true instead.")
class Correction:
    """`domain.records.RecordCorrected`."""

    position: Position = strawberry.field(description="Where the correction stands in the log.")
    recorded_at: datetime = strawberry.field(description="When the log learnt of it.")
    actor: str = strawberry.field(description="Who corrected, such as `user:jane`.")
    corrected_position: Position = strawberry.field(
        description="Where the event stands that was wrong."
    )
    corrected_event_id: UUID = strawberry.field(description="The event that was wrong.")
    reason: str = strawberry.field(description="Why, in words.")
    replacement_type: str | None = strawberry.field(
        description="Stored type of what was true instead; null: it did not happen at all."
    )
    replacement: Json | None = strawberry.field(
        description="What was true instead, as the event would have said it."
    )

    @classmethod
    def of(cls, event: RecordedEvent) -> Correction:
        """Return the correction that `event` is."""
        fact: RecordCorrected = event.fact
        return cls(
            position=Position(event.position),
            recorded_at=event.recorded_at,
            actor=event.actor,
            corrected_position=Position(fact.corrected_position),
            corrected_event_id=fact.corrected_event_id,
            reason=fact.reason,
            replacement_type=fact.replacement_type,
            replacement=None if fact.replacement is None else json_of(fact.replacement),
        )


@strawberry.type(description="A signature on an event (21 CFR Part 11), and whether it holds.")
class Signature:
    """`eventlog.signatures.SignatureStanding`."""

    position: Position = strawberry.field(description="Where the signature stands in the log.")
    signed_at: datetime = strawberry.field(description="When it was signed.")
    signed_position: Position = strawberry.field(description="Where the signed event stands.")
    signer: str = strawberry.field(description="Who signed, as an actor.")
    signer_name: str = strawberry.field(description="His printed name.")
    meaning: Meaning = strawberry.field(description="What the signature says.")
    document_sha256: str | None = strawberry.field(
        description="SHA-256 of the file that is signed with it, hexadecimal; null: no file is."
    )
    holds: bool = strawberry.field(
        description="Whether it is on what the log holds, and nothing took its place since. A "
        "document's file is not read for it; whoever downloads it gets what was signed, or nothing."
    )
    faults: list[str] = strawberry.field(
        description="Codes of what is wrong with it, such as `signature.record_corrected`."
    )

    @classmethod
    def of(cls, standing: SignatureStanding) -> Signature:
        """Return `standing` as the schema tells it."""
        signature = standing.signature
        return cls(
            position=Position(standing.position),
            signed_at=standing.signed_at,
            signed_position=Position(signature.signed_position),
            signer=signature.signer,
            signer_name=signature.signer_name,
            meaning=signature.meaning,
            document_sha256=signature.document_sha256,
            holds=standing.holds,
            faults=list(standing.faults),
        )


@strawberry.interface(
    description="An object of the thread, as its events make it: corrections applied, as of when "
    "it was asked for."
)
class ThreadObject(Node):
    """`eventlog.objects.LoadedObject`."""

    loaded: strawberry.Private[LoadedObject]
    stream: str = strawberry.field(description="Its stream in the log, such as `lot:LOT-4711`.")
    version: Position = strawberry.field(description=VERSION)
    position: Position = strawberry.field(description="It is told as it was known here.")
    created_at: datetime | None = strawberry.field(
        description="When the first that is known of it was true; null where nothing counts of it."
    )
    updated_at: datetime = strawberry.field(description="When the log last learnt of it.")
    updated_by: str = strawberry.field(description="From whom, such as `user:jane`.")
    complete: bool = strawberry.field(
        description="False where something of it was erased by law or cannot have happened after "
        "what came before: what is told is what the rest makes of it."
    )

    @field(description="Its events as they were recorded, oldest first.")
    def events(self, info: OperationInfo, first: First, after: After = None) -> Connection[Event]:
        """Return a page of the object's events."""
        return loaded_page(
            info.context,
            self.loaded.events,
            first=first,
            after=after,
            position=self.loaded.position,
            node=Event.of,
        )

    @field(description="What of it was corrected, in the order of the corrections.")
    def corrections(self) -> list[Correction]:
        """Return every correction of the object's events."""
        return [Correction.of(event) for event in self.loaded.events if is_correction(event)]

    @field(description="Who signed what of it, each signature held against the log.")
    def signatures(self) -> list[Signature]:
        """Return every signature on the object's events."""
        return [Signature.of(standing) for standing in signatures_among(self.loaded.events)]

    @field(
        description="What it came from, what it led to, or both: as the root field `trace` tells "
        "it, as of when the object was asked for. Where it is cut at `first`, go on with `trace`: "
        "only where it was asked of one object it has a cursor.",
        cost=TRACE_COST,
    )
    async def trace(
        self,
        info: OperationInfo,
        direction: Annotated[Direction, strawberry.argument(description="Which way to go.")],
        depth: Annotated[
            int | None,
            strawberry.argument(description="Links from it at most; null: all the way."),
        ] = None,
        first: Annotated[
            int,
            strawberry.argument(description=f"How many things at most, 1 to {TOGETHER_NODES_MAX}."),
        ] = TRACE_FIRST_DEFAULT,
    ) -> ThreadGraph:
        """Return the object's part of the thread."""
        await info.context.wait_for(self.loaded.position, ThreadProjection.name)
        return await graph_of(
            info.context, self.loaded, self.thread_keys(), direction, depth, first
        )

    def thread_keys(self) -> list[str]:
        """Return what the thread calls it; by its revisions where it has some."""
        return [self.loaded.stream]


def common(kind: str, loaded: LoadedObject) -> dict[str, Any]:
    """Return the fields of `ThreadObject` for the `kind` of object that was loaded."""
    last = loaded.events[-1]
    return {
        "id": encode_id(kind, loaded.key),
        "loaded": loaded,
        "stream": loaded.stream,
        "version": Position(loaded.version),
        "position": Position(loaded.position),
        "created_at": loaded.entries[0].occurred_at if loaded.entries else None,
        "updated_at": last.recorded_at,
        "updated_by": last.actor,
        "complete": loaded.complete,
    }


def is_correction(event: RecordedEvent) -> bool:
    """Whether `event` is a correction that can be read."""
    return not event.erased and isinstance(event.fact, RecordCorrected)


def json_of(text: str) -> Json:
    """Return the JSON document that `text` is."""
    return Json(orjson.loads(text))


# --- pages of what is loaded already ----------------------------------------------------------


def loaded_page(
    context: OperationContext,
    events: Sequence[RecordedEvent],
    *,
    first: int,
    after: Cursor | None,
    position: int,
    node: Callable[[RecordedEvent], T],
) -> Connection[T]:
    """Return a page of `events`, in the order of the log, as `node` tells them.

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``
    """
    check_first(first)
    beyond = 0
    if after is not None:
        beyond = decode_position_cursor(after, CURSOR_KIND, context.ledger.name)
    found = [event for event in events if event.position > beyond]
    return connection(
        found[: first + 1],
        first=first,
        after=after,
        position=position,
        node=node,
        cursor=event_cursor,
    )


def entry_page(
    context: OperationContext,
    entries: Iterable[Entry],
    *,
    kind: str,
    first: int,
    after: Cursor | None,
    position: int,
    node: Callable[[Entry], T],
) -> Connection[T]:
    """Return a page of what counts of an object, in the order in which it counts.

    Parameters
    ----------
    kind : of list, for its cursors: the place of an entry among those asked for

    Raises
    ------
    InvalidInput
        ``page.first``, ``cursor.malformed``
    """
    check_first(first)
    ledger = context.ledger.name
    beyond = 0 if after is None else decode_position_cursor(after, kind, ledger)
    found = list(enumerate(entries, start=1))[beyond : beyond + first + 1]
    return connection(
        found,
        first=first,
        after=after,
        position=position,
        node=lambda one: node(one[1]),
        cursor=lambda one: encode_cursor(kind, ledger, one[0]),
    )


def last_entry(loaded: LoadedObject, *kinds: type) -> Entry | None:
    """Return the last that counts of `kinds`, by their classes; None where there is none."""
    return next((e for e in reversed(loaded.entries) if isinstance(e.fact, kinds)), None)


def first_entry(loaded: LoadedObject, *kinds: type) -> Entry | None:
    """Return the first that counts of `kinds`, by their classes; None where there is none."""
    return next((e for e in loaded.entries if isinstance(e.fact, kinds)), None)


def actor_of(loaded: LoadedObject, entry: Entry | None) -> str | None:
    """Return who told `entry` of an object; what corrects it does not change that."""
    if entry is None:
        return None
    return next((e.actor for e in loaded.events if e.event_id == entry.event_id), None)


def key_or_none(key: str | None) -> strawberry.ID | None:
    """Return a natural key as the schema tells it."""
    return None if key is None else strawberry.ID(key)


def flags_of(entries: Iterable[Entry]) -> list[str]:
    """Return the codes of what did not fit when it was recorded, each once."""
    flags = (flag for entry in entries for flag in getattr(entry.fact, "flags", ()))
    return list(dict.fromkeys(flags))


# --- one ------------------------------------------------------------------------------------


async def object_in(
    context: OperationContext, stream: str, as_of: Asked | LoadedObject | None = None
) -> LoadedObject | None:
    """Return the object of `stream`; None where nothing is known of it, or it is out of sight.

    Parameters
    ----------
    as_of : as of when; another object: as of when that one is told. None: now
    """
    known_at = valid_at = None
    match as_of:
        case Asked():
            known_at, valid_at = as_of.known_at, as_of.valid_at
        case LoadedObject():
            known_at, valid_at = as_of.position, as_of.valid_at

    async def load(streams: list[str]) -> list[LoadedObject | None]:
        sight = await context.sight()
        seen = sorted(await sight.visible(streams))
        found: dict[str, LoadedObject] = {}
        for n in range(0, len(seen), OBJECTS_MAX):
            some = seen[n : n + OBJECTS_MAX]
            async with context.reads:
                found |= await load_objects(
                    context.ledger, some, position=known_at, valid_at=valid_at
                )
        return [
            one if (one := found.get(stream)) is not None and one.known else None
            for stream in streams
        ]

    return await context.loader(("objects", known_at, valid_at), load).load(stream)


def asked_as(loaded: LoadedObject) -> Asked:
    """Return as of when an object is told, to ask for what stands beside it."""
    return Asked(loaded.position, loaded.valid_at, loaded.position)


async def objects_in(
    context: OperationContext, streams: Sequence[str], as_of: Asked | LoadedObject | None
) -> list[LoadedObject | None]:
    """Return the objects of `streams`, each as `object_in` does; one statement for all."""
    return await asyncio.gather(*(object_in(context, stream, as_of) for stream in streams))


async def asked_object(
    context: OperationContext, stream: str, as_of: AsOf | None, min_position: int | None
) -> LoadedObject | None:
    """Return the object of `stream` for a root field; as `object_in`.

    Raises
    ------
    InvalidInput, Unavailable
        as `api.graphql.as_of.asked`
    """
    # The log itself tells, and a position that was told is in it.
    when = await asked(context, as_of, None)
    if min_position is not None and as_of is None and min_position > when.position:
        raise Unavailable(
            "projection.behind",
            f"the log ends at {when.position}, before {min_position}",
            hint="ask again, or without minPosition",
            value=min_position,
            limit=when.position,
        )
    return await object_in(context, stream, when)
