"""Recording a made-up history: stories told side by side, one event after the other.

A story is a generator that yields the time until which it waits, ms since the history's start.
The one whose time has come goes on and records what it has to say; so everything that stories
share (lots, machines) changes in the order of the log.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from domain.events import Event, encode_fact, type_of
from domain.identifiers import derived_uuid7
from domain.records import RecordCorrected

START: Final = datetime(2025, 1, 6, 6, 0, tzinfo=UTC)
_START_MS: Final = int(START.timestamp() * 1000)

Story = Iterator[int]
"""Yields until when it waits, ms since `START`; never back in time."""


class HistoryName(NamedTuple):
    """What a history is known by: the same name, the same events."""

    parts: int
    seed: int
    months: int

    @property
    def text(self) -> str:
        """The name in one word."""
        return f"plant-history/1/{self.parts}/{self.seed}/{self.months}"


class HistoryEvent(NamedTuple):
    """An event of a history. `number`: its place in it, 1 for the first."""

    stream: str
    fact: Event
    occurred_at: datetime
    actor: str
    event_id: uuid.UUID
    number: int


class Recorder:
    """Numbers and identifies what stories say."""

    def __init__(self, name: HistoryName, first_position: int) -> None:
        self.number = 0
        self.now_ms = 0
        self._before = first_position - 1
        self._name = name.text
        self._recorded: list[HistoryEvent] = []
        self._waiting: list[tuple[int, int, Story]] = []
        self._told = 0
        self._time_ms, self._time = -1, START

    @property
    def now(self) -> datetime:
        """The time at which the current story stands."""
        if self._time_ms != self.now_ms:
            self._time_ms, self._time = self.now_ms, time_at(self.now_ms)
        return self._time

    @property
    def head(self) -> int:
        """Position of the last event, in a log where nobody else writes."""
        return self._before + self.number

    def record(
        self, stream: str, fact: Event, actor: str, *, occurred_ms: int | None = None
    ) -> HistoryEvent:
        """Record `fact`; it was true now, or at `occurred_ms`."""
        self.number = number = self.number + 1
        at_ms = self.now_ms if occurred_ms is None else occurred_ms
        event = HistoryEvent(
            stream,
            fact,
            self.now if occurred_ms is None else time_at(occurred_ms),
            actor,
            derived_uuid7(_START_MS + at_ms, self._name, str(number)),
            number,
        )
        self._recorded.append(event)
        return event

    def correct(
        self, wrong: HistoryEvent, right: Event | None, reason: str, actor: str
    ) -> HistoryEvent:
        """Record that `right` is true in place of `wrong`; None: it did not happen."""
        stored = None if right is None else type_of(right)
        correction = RecordCorrected(
            wrong.stream,
            wrong.event_id,
            self._before + wrong.number,
            reason,
            None if stored is None else stored.name,
            None if stored is None else stored.schema_version,
            None if right is None else encode_fact(right).decode(),
        )
        occurred = (wrong.occurred_at - START) // timedelta(milliseconds=1)
        return self.record(wrong.stream, correction, actor, occurred_ms=occurred)

    def tell(self, story: Story, at_ms: int | None = None) -> None:
        """Let `story` begin now, or at `at_ms`."""
        self._told += 1
        begins = self.now_ms if at_ms is None else max(at_ms, self.now_ms)
        heapq.heappush(self._waiting, (begins, self._told, story))

    def events(self) -> Iterator[HistoryEvent]:
        """Yield what is recorded until every story has ended."""
        waiting = self._waiting
        while waiting:
            self.now_ms, told, story = waiting[0]
            again_ms = next(story, None)
            # What was begun meanwhile stands behind this one: it is not earlier, and told later.
            if again_ms is None:
                heapq.heappop(waiting)
            else:
                heapq.heapreplace(waiting, (again_ms, told, story))
            if self._recorded:
                yield from self._recorded
                self._recorded.clear()


def time_at(at_ms: int) -> datetime:
    """Return the time of `at_ms` after the history's start."""
    return START + timedelta(milliseconds=at_ms)
