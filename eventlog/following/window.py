"""The window: the newest events of a ledger, held once for all who follow it.

It consists of chunks, each a page as it was read. It is bounded in events and in bytes; the
oldest chunk leaves first, and lets its events go even while somebody is in the middle of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Final

from eventlog.envelope import RecordedEvent
from eventlog.reading import EventFilter, PayloadOf, category_of

INDEXED_EVENTS_MIN: Final = 16
"""A chunk with fewer events is looked through faster than it is indexed."""

Places = dict[str, list[int]]

_position = attrgetter("position")


class Chunk:
    """Some consecutive events, and where in it each type, stream and category is.

    `held` until it leaves the window; from then on it has no events.
    """

    def __init__(self, events: Sequence[RecordedEvent], payloads: PayloadOf) -> None:
        self.events: tuple[RecordedEvent, ...] = tuple(events)
        self.payloads = payloads
        self.last = self.events[-1].position
        self.count = len(self.events)
        self.size_bytes = sum(event.size_bytes for event in self.events)
        self._types: Places | None = None
        self._streams: Places | None = None
        self._categories: Places | None = None

    @property
    def held(self) -> bool:
        """Whether it still has its events."""
        return bool(self.events)

    def let_go(self) -> None:
        """Free the events, whoever still looks at them."""
        self.events = ()
        self._types = self._streams = self._categories = None

    def wanted(self, wanted: EventFilter, after: int) -> Iterator[RecordedEvent]:
        """Yield the wanted events beyond position `after`, until the events are let go."""
        first = bisect_right(self.events, after, key=_position)
        places: Sequence[int] = range(first, self.count)
        if wanted.restricts and self.count >= INDEXED_EVENTS_MIN:
            places = [place for place in self._candidates(wanted) if place >= first]
        for place in places:
            if not self.events:
                return
            if wanted.wants(self.events[place]):
                # Nothing here holds the event while its reader is busy with it.
                yield self.events[place]

    def _candidates(self, wanted: EventFilter) -> list[int]:
        """Return the places, in order, of what the most selective part of `wanted` lets through."""
        if wanted.streams:
            self._streams = self._streams or self._indexed(attrgetter("stream"))
            index, values = self._streams, wanted.streams
        elif wanted.types:
            self._types = self._types or self._indexed(attrgetter("type"))
            index, values = self._types, wanted.types
        else:
            self._categories = self._categories or self._indexed(
                lambda event: category_of(event.stream)
            )
            index, values = self._categories, wanted.categories
        found = [index[value] for value in set(values) if value in index]
        return found[0] if len(found) == 1 else sorted(place for some in found for place in some)

    def _indexed(self, key: Callable[[RecordedEvent], str]) -> Places:
        index: defaultdict[str, list[int]] = defaultdict(list)
        for place, event in enumerate(self.events):
            index[key(event)].append(place)
        return dict(index)


class Window:
    """The events from beyond `start` up to `end`, both positions; empty when they are equal.

    Parameters
    ----------
    events_max, bytes_max : what it holds at most; one chunk it always holds
    """

    def __init__(self, events_max: int, bytes_max: int) -> None:
        self.start = 0
        self.end = 0
        self.events = 0
        self.size_bytes = 0
        self.events_max = events_max
        self._bytes_max = bytes_max
        self._chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        """Hold `chunk`, which begins just beyond `end`, and let go what is too much."""
        self._chunks.append(chunk)
        self.end = chunk.last
        self.events += chunk.count
        self.size_bytes += chunk.size_bytes
        leaving = 0
        while self._exceeded and leaving < len(self._chunks) - 1:
            oldest = self._chunks[leaving]
            self.start = oldest.last
            self.events -= oldest.count
            self.size_bytes -= oldest.size_bytes
            oldest.let_go()
            leaving += 1
        del self._chunks[:leaving]

    def beyond(self, position: int) -> Chunk | None:
        """Return the chunk in which the events beyond `position` begin; None: not held."""
        if not self.start <= position < self.end:
            return None
        return self._chunks[bisect_right(self._chunks, position, key=attrgetter("last"))]

    def move(self, position: int) -> None:
        """Let everything go and begin again beyond `position`."""
        for chunk in self._chunks:
            chunk.let_go()
        self._chunks.clear()
        self.start = self.end = position
        self.events = self.size_bytes = 0

    @property
    def _exceeded(self) -> bool:
        return self.events > self.events_max or self.size_bytes > self._bytes_max
