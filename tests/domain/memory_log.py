"""A log in memory that decides commands as `eventlog.commands.handle` does, for state machines."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.catalogue import decider_of_command, decider_of_stream
from domain.records import Entry, effective_entries

DAY_ONE = datetime(2025, 3, 3, tzinfo=UTC)


def at(minute: int) -> datetime:
    """Return the time so many minutes after the first day's midnight."""
    return DAY_ONE + timedelta(minutes=minute)


class MemoryLog:
    """Streams of events with the time at which each was true."""

    def __init__(self) -> None:
        self.streams: defaultdict[str, list[Entry]] = defaultdict(list)
        self.position = 0

    def state(self, stream: str, as_of: datetime | None = None) -> Any:
        """Return the object of `stream` by valid time."""
        decider = decider_of_stream(stream)
        assert decider is not None
        entries = effective_entries(
            self.streams[stream], by_valid_time=decider.by_valid_time, as_of=as_of
        )
        return decider.fold(entry.fact for entry in entries)

    def ask(self, command: Any, minute: int) -> tuple[Any, ...]:
        """Decide `command`, which happens or happened at `minute`, and record what follows."""
        decider = decider_of_command(command)
        state = self.state(decider.subject(command), at(minute) if command.late else None)
        others: dict[str, Any] = {}
        while missing := [
            name for name in decider.looks_at(command, state, others) if name not in others
        ]:
            others |= {name: self.state(name) for name in missing}
        events: tuple[Any, ...] = decider.decide(command, state, others)
        for event in events:
            self.record(decider.stream_of(event), event, minute)
        return events

    def record(self, stream: str, event: Any, minute: int) -> None:
        """Record what happened at `minute`."""
        self.position += 1
        entry = Entry(uuid.UUID(int=self.position), self.position, at(minute), event)
        self.streams[stream].append(entry)
