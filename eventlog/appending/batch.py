"""A batch: the appends of one transaction, each with its outcome, numbered and hashed.

What the log held before comes in, what is to be stored comes out; it is laid out for the database
in `eventlog.appending.statements`. An event is numbered and hashed when its append is taken in,
while the batch before is being committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from domain.errors import Conflict, HeddleError
from domain.events import format_time
from eventlog.appending.appends import NO_STREAM, Append, Appended, IdempotencyKey, Placed
from eventlog.database import statements_sent
from eventlog.envelope import NewEvent, leaf_entry
from eventlog.transparency.merkle import Frontier, leaf_hash

BATCH_EVENTS_MAX: Final = 4_000
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
CALLERS_AT_ONCE: Final = 32
"""Callers told of their outcome before the event loop looks for other work."""

LARGE_APPEND_BYTES: Final = 16 * 1024
"""Whose payloads take so much is told alone. He makes his next append (frames to encode) before the
loop goes on, and what stands ready should be on its way to the database by then."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What an event read from the log says, to compare a repetition with: `NewEvent.content`."""

    content: tuple[str, str, int, bytes]


Existing = tuple[NewEvent | Stored, Placed]


@dataclass(slots=True, eq=False)
class Known:
    """What the log holds under the keys of a batch, and what was added since.

    `versions` names every stream the batch writes to or has expectations of; a stream that does
    not exist has version 0. `identities` goes by the integer of the event id.
    """

    versions: dict[str, int] = field(default_factory=dict)
    identities: dict[int, Existing] = field(default_factory=dict)
    sequences: dict[tuple[str, int | None], Existing] = field(default_factory=dict)
    keys: dict[str, tuple[bytes, Sequence[Placed]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger ends."""

    position: int
    recorded_at: datetime
    frontier: bytes
    root: bytes


class Batch:
    """Gives appends their outcomes, positions, versions and leaves, beyond a head.

    Parameters
    ----------
    recorded_at : of every event of the batch, not before the head's
    uncommitted : what batches before this one have added that may not be committed yet; it counts
        as recorded. Whoever hands it in takes out of it what is committed

    Attributes
    ----------
    requests, outcomes : the appends taken in and what became of each, in the same order
    events, versions, leaves : of each event to be stored
    new_keys : (key, content hash, first and last position) of appends that named a key
    payload_bytes : of all events to be stored
    """

    def __init__(
        self,
        ledger: str,
        head: Head,
        recorded_at: datetime,
        known: Known,
        uncommitted: Sequence[Known] = (),
    ) -> None:
        self.head = head
        self.recorded_at = recorded_at
        self.known = known
        self.requests: list[Append] = []
        self.outcomes: list[Appended | HeddleError] = []
        self.events: list[NewEvent] = []
        self.versions: list[int] = []
        self.leaves: list[bytes] = []
        self.new_keys: list[tuple[str, bytes, int, int]] = []
        self._ledger = ledger
        self._frontier = Frontier(head.position, head.frontier)
        self._recorded_at_text = format_time(recorded_at)
        self.payload_bytes = 0
        self._uncommitted = uncommitted

    @property
    def is_full(self) -> bool:
        """Whether another append should wait for the next batch."""
        return len(self.events) >= BATCH_EVENTS_MAX or self.payload_bytes >= BATCH_BYTES_MAX

    def add(self, request: Append) -> None:
        """Take `request` in and note its outcome, which holds once the batch is committed."""
        self.requests.append(request)
        try:
            earlier = self._earlier(request)
            if earlier is not None:
                self.outcomes.append(Appended(tuple(earlier), duplicate=True))
                return
            if request.expected:
                self._check_expected(request.expected)
        except Conflict as conflict:
            self.outcomes.append(conflict)
            return
        placed = self._place(request.events)
        self.payload_bytes += request.payload_bytes
        if request.idempotency is not None:
            key, content = request.idempotency.key, request.idempotency.content_sha256
            self.new_keys.append((key, content, placed[0].position, placed[-1].position))
            self.known.keys[key] = (content, placed)
        self.outcomes.append(Appended(placed, duplicate=False))

    def sealed(self) -> Head:
        """Return where the ledger ends after this batch."""
        if not self.events:
            return self.head
        frontier = self._frontier
        return Head(frontier.size, self.recorded_at, frontier.packed(), frontier.root())

    def take_refused(self) -> list[Append]:
        """Return the appends that were refused and leave the others to `settle`."""
        if all(isinstance(outcome, Appended) for outcome in self.outcomes):
            return []
        refused: list[Append] = []
        requests: list[Append] = []
        outcomes: list[Appended | HeddleError] = []
        for request, outcome in zip(self.requests, self.outcomes, strict=True):
            if isinstance(outcome, Appended):
                requests.append(request)
                outcomes.append(outcome)
            else:
                refused.append(request)
        self.requests, self.outcomes = requests, outcomes
        return refused

    async def settle(self) -> None:
        """Hand every caller his outcome, a few at a time: the batch is committed."""
        told = list(zip(self.requests, self.outcomes, strict=True))
        at_once = 0
        try:
            for request, outcome in told:
                if request.payload_bytes >= LARGE_APPEND_BYTES:
                    at_once = 0
                    await statements_sent()
                elif at_once == CALLERS_AT_ONCE:
                    at_once = 0
                    await asyncio.sleep(0)
                at_once += 1
                request.settle(outcome)
        finally:
            for request, outcome in told:
                request.settle(outcome)

    def _earlier(self, request: Append) -> Sequence[Placed] | None:
        """Return where `request` was recorded before, or None when it is new."""
        if request.idempotency is not None:
            stored = self._by_key(request.idempotency.key)
            if stored is not None:
                check_same_content(request.idempotency, stored[0])
                return stored[1]
        events = request.events
        numbers = [event.event_id.int for event in events]
        if (
            self._are_new(numbers)
            and not any(e.source is not None and self._by_sequence(e) is not None for e in events)
            and (len(numbers) == 1 or len(set(numbers)) == len(numbers))
        ):
            return None
        earlier = [existing[1] for existing in map(self._existing, events) if existing is not None]
        if len(earlier) == len(events):
            return earlier
        raise Conflict(
            "append.partly_recorded",
            f"{len(earlier)} of the {len(events)} events of the append are recorded already, or "
            "are one event twice",
            hint="append what belongs together in one append, each event once",
            value=len(earlier),
            limit=len(events),
        )

    def _are_new(self, numbers: Sequence[int]) -> bool:
        for known in (self.known, *self._uncommitted):
            if not known.identities.keys().isdisjoint(numbers):
                return False
        return True

    def _by_key(self, key: str) -> tuple[bytes, Sequence[Placed]] | None:
        for known in (self.known, *self._uncommitted):
            if key in known.keys:
                return known.keys[key]
        return None

    def _by_id(self, event: NewEvent) -> Existing | None:
        number = event.event_id.int
        for known in (self.known, *self._uncommitted):
            if number in known.identities:
                return known.identities[number]
        return None

    def _by_sequence(self, event: NewEvent) -> Existing | None:
        number = (event.source, event.sequence)
        for known in (self.known, *self._uncommitted):
            if number in known.sequences:
                return known.sequences[number]
        return None

    def _existing(self, event: NewEvent) -> Existing | None:
        by_id = self._by_id(event)
        if by_id is not None and by_id[0].content != event.content:
            raise Conflict(
                "event.id_reused",
                f"event id {event.event_id} is recorded with other content at position "
                f"{by_id[1].position}",
                value=str(event.event_id),
                limit=by_id[1].position,
            )
        if event.source is None:
            return by_id
        by_sequence = self._by_sequence(event)
        if by_sequence is not None and by_sequence[0].content != event.content:
            raise Conflict(
                "source.sequence_reused",
                f"sequence {event.sequence} of {event.source!r} is recorded with other content "
                f"at position {by_sequence[1].position}",
                hint="give every frame its own sequence number",
                value=event.sequence,
                limit=by_sequence[1].position,
            )
        return by_id or by_sequence

    def _check_expected(self, expectations: Mapping[str, int]) -> None:
        for stream, expected in expectations.items():
            actual = self.known.versions.get(stream, NO_STREAM)
            if actual != expected:
                raise Conflict(
                    "stream.version_conflict",
                    f"stream {stream!r} is at version {actual}, not {expected}",
                    hint="read it again and decide anew",
                    value=expected,
                    limit=actual,
                )

    def _place(self, events: Sequence[NewEvent]) -> tuple[Placed, ...]:
        known, frontier = self.known, self._frontier
        versions, identities = known.versions, known.identities
        ledger, recorded_at = self._ledger, self.recorded_at
        all_placed = []
        for event in events:
            position = frontier.size + 1
            stream = event.stream
            versions[stream] = version = versions.get(stream, NO_STREAM) + 1
            leaf = leaf_hash(leaf_entry(ledger, position, version, self._recorded_at_text, event))
            frontier.add(leaf)
            self.events.append(event)
            self.versions.append(version)
            self.leaves.append(leaf)
            placed = Placed(position, version, recorded_at)
            all_placed.append(placed)
            identities[event.event_id.int] = (event, placed)
            if event.source is not None:
                known.sequences[event.source, event.sequence] = (event, placed)
        return tuple(all_placed)


def check_same_content(idempotency: IdempotencyKey, stored_sha256: bytes) -> None:
    """Raise `Conflict` (``idempotency_key.reused``) unless the key named the same request."""
    if stored_sha256 != idempotency.content_sha256:
        raise Conflict(
            "idempotency_key.reused",
            f"idempotency key {idempotency.key!r} was used for another request",
            hint="use a new key for a new request",
            value=idempotency.key,
        )
