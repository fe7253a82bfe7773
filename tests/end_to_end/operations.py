"""What the writers of the fault test append: each operation follows from its writer and number.

So a writer that was killed repeats exactly what it may have said before, and whoever looks at the
log afterwards knows what should be there without having been told by a writer.
"""

from __future__ import annotations

import functools
import random
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np

from domain.asset import SetpointReported
from domain.frames import ChannelHeader, FrameHeader, build_frame
from eventlog.envelope import NewEvent, new_fact, new_frame
from eventlog.ledger import IdempotencyKey

LEDGERS: Final = ("plant-1", "plant-2")
READINGS_A_FRAME: Final = 20
LARGE_READINGS: Final = 60_000
"""A frame whose COPY takes longer than one look at the socket."""

_NAMESPACE: Final = uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    """How an operation appends, and by what it is recognised when it is repeated."""

    FACT = "fact"  # by its event id
    FACTS = "facts"  # several streams in one append, by their ids
    VERSIONED = "versioned"  # with the version that its stream must have
    KEYED = "keyed"  # by its idempotency key alone: each attempt has other event ids
    FRAME = "frame"  # by its source and sequence alone: each attempt has another event id
    FRAMES = "frames"
    LARGE = "large"
    TWICE = "twice"  # two appends of the same at once
    COMMON = "common"  # every writer appends it
    OTHER_CONTENT = "other_content"  # refused: the id of the writer's first operation
    STALE_VERSION = "stale_version"  # refused
    LONG_TYPE = "long_type"  # refused
    UNSTORABLE = "unstorable"  # refused by the database alone


REFUSALS: Final = {
    Kind.OTHER_CONTENT: "event.id_reused",
    Kind.STALE_VERSION: "stream.version_conflict",
    Kind.LONG_TYPE: "event.type_malformed",
    Kind.UNSTORABLE: "append.refused",
}
"""The code each bad append is refused with; whatever stands beside it is not."""

_WEIGHTS: Final = {
    Kind.FACT: 20,
    Kind.FACTS: 12,
    Kind.VERSIONED: 12,
    Kind.KEYED: 12,
    Kind.FRAME: 16,
    Kind.FRAMES: 4,
    Kind.LARGE: 1,
    Kind.TWICE: 6,
    Kind.COMMON: 5,
    Kind.OTHER_CONTENT: 3,
    Kind.STALE_VERSION: 3,
    Kind.LONG_TYPE: 3,
    Kind.UNSTORABLE: 3,
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One append, or two of the same at once.

    Parameters
    ----------
    content : per event, what has to be found in the log: stream, type and payload's SHA-256
    abandoned_if_killed : the writer does not repeat it after its process was killed
    """

    writer: str
    number: int
    kind: Kind
    ledger: str
    events: tuple[NewEvent, ...]
    expected: Mapping[str, int]
    idempotency: IdempotencyKey | None
    abandoned_if_killed: bool

    @property
    def content(self) -> tuple[tuple[str, str, bytes], ...]:
        return tuple((e.stream, e.type, e.payload_sha256) for e in self.events)

    @property
    def refusal(self) -> str | None:
        """The code it has to be refused with, or None where it has to be recorded."""
        return REFUSALS.get(self.kind)


def operation(writer: str, number: int, attempt: str = "") -> Operation:
    """Return operation `number` (from 1) of `writer`.

    Parameters
    ----------
    attempt : goes into the event ids of those kinds that are recognised by something else
    """
    kind, ledger, abandoned = _drawn(writer, number)
    expected: dict[str, int] = {}
    idempotency = None
    label = f"{writer}/{number}"
    match kind:
        case Kind.FACT | Kind.TWICE:
            events = [_fact(label, f"asset:{writer}"), *_shared(label, number)]
        case Kind.FACTS:
            events = [
                _fact(f"{label}/{n}", f"asset:{writer}-{n % 3}") for n in range(number % 7 + 2)
            ]
        case Kind.VERSIONED:
            stream = f"asset:{writer}-versioned"
            expected[stream] = sum(
                _drawn(writer, n)[:2] == (kind, ledger) for n in range(1, number)
            )
            events = [_fact(label, stream)]
        case Kind.KEYED:
            idempotency = IdempotencyKey.of(f"key:{label}", label.encode())
            events = [
                _fact(f"{label}/{n}", f"asset:{writer}-{n}", f"{attempt}/{label}/{n}")
                for n in range(number % 3 + 1)
            ]
        case Kind.FRAME:
            events = [_frame(writer, number, 0, READINGS_A_FRAME, attempt)]
        case Kind.FRAMES:
            events = [_frame(writer, number, n, READINGS_A_FRAME, attempt) for n in range(9)]
        case Kind.LARGE:
            events = [_frame(writer, number, 0, LARGE_READINGS, attempt)]
        case Kind.COMMON:
            events = [_fact(f"common/{number // 10}", "asset:common")]
            ledger = LEDGERS[0]
        case Kind.OTHER_CONTENT:
            first = operation(writer, 1).events[0]
            events = [
                _fact(label, first.stream),
                replace(_fact(f"{label}/b", first.stream), event_id=first.event_id),
            ]
            ledger = LEDGERS[0]
        case Kind.STALE_VERSION:
            events = [_fact(label, f"asset:{writer}-versioned")]
            expected["asset:never-written"] = number
        case Kind.LONG_TYPE:
            events = [replace(_fact(label, f"asset:{writer}"), type="asset." + "x" * 300)]
        case Kind.UNSTORABLE:
            source = f"agent:{writer}-bad"
            events = [
                replace(_fact(f"{label}/{n}", f"asset:{writer}"), source=source, sequence=number)
                for n in (1, 2)
            ]
    return Operation(writer, number, kind, ledger, tuple(events), expected, idempotency, abandoned)


@functools.cache
def _drawn(writer: str, number: int) -> tuple[Kind, str, bool]:
    """Return kind, ledger and whether it is abandoned; the first operation is a plain fact."""
    chance = random.Random(zlib.crc32(f"{writer}/{number}".encode()))
    (kind,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
    ledger = LEDGERS[0] if chance.random() < 0.7 else LEDGERS[1]
    abandoned = chance.random() < 0.3
    if number == 1:
        return Kind.FACT, LEDGERS[0], False
    return kind, ledger, abandoned and kind is not Kind.VERSIONED


def _fact(label: str, stream: str, identity: str | None = None) -> NewEvent:
    return new_fact(
        stream,
        SetpointReported("loop-1", label, 1.0),
        event_id=uuid.uuid5(_NAMESPACE, identity or label),
        occurred_at=_START + timedelta(seconds=zlib.crc32(label.encode()) % 1_000_000),
        actor="user:mara",
    )


def _shared(label: str, number: int) -> list[NewEvent]:
    """Now and then an event on a stream that all write, in the same append."""
    return [_fact(f"{label}/shared", "asset:shared")] if number % 3 == 0 else []


def _frame(writer: str, number: int, part: int, readings: int, attempt: str) -> NewEvent:
    """Return a frame of the writer's own asset; no two of its frames overlap in time."""
    sequence = number * 10 + part
    header = FrameHeader(writer, writer, (ChannelHeader("supply_voltage", "V", 1.0, 0.0),))
    start_ns = 1_600_000_000_000_000_000 + sequence * 1_000_000_000
    times = start_ns + np.arange(readings, dtype=np.int64) * 1_000
    values = np.random.default_rng(sequence).standard_normal(readings)
    return new_frame(
        f"telemetry:{writer}",
        build_frame(header, sequence, [times], [values], [None]),
        event_id=uuid.uuid5(_NAMESPACE, f"{attempt}/{writer}/{sequence}"),
        occurred_at=_START,
    )
