"""Recording a made-up history in a ledger: in large appends, once, however often it is begun.

An event's identifier follows from the history, so the log recognises what it has already; the
appends are cut at the same events every time. What a correction names by position is looked up:
others may write to the ledger meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from api.plant_history import HistoryEvent, HistoryName, plant_history
from domain.errors import Conflict, HeddleError
from domain.records import RecordCorrected
from eventlog.appending.lookup import read_positions
from eventlog.envelope import NewEvent, new_fact
from eventlog.ledger import NO_STREAM, Appended, IdempotencyKey, Ledger

APPEND_EVENTS: Final = 100
APPENDS_AT_ONCE: Final = 16
"""Together they fill the writer's batches while the next events are being made."""


@dataclass(frozen=True, slots=True)
class RecordedHistory:
    """What became of a history.

    Parameters
    ----------
    events : how many it has, as far as they were looked at; 0 when all was there before
    new : how many of them the log did not have
    position : of the last one
    """

    events: int
    new: int
    position: int

    @property
    def complete_before(self) -> bool:
        """Whether the log had all of it before."""
        return self.events == 0


async def record_history(
    ledger: Ledger, name: HistoryName, *, told: Callable[[int], None] = lambda _: None
) -> RecordedHistory:
    """Record the history `name`, or what is missing of it.

    Parameters
    ----------
    told : called with the number of events so far, after each append

    Raises
    ------
    Conflict
        ``history.other``: a history of the same seed and another size is in the ledger
    HeddleError
        as `plant_history` and `Ledger.append`
    """
    end = IdempotencyKey.of(name.text, name.text.encode())
    complete = await ledger.recall(end)
    if complete is not None:
        return RecordedHistory(0, 0, complete.position)
    first = next(_history(name, 1))
    begun = await _begin(ledger, first)
    recording = _Recording(ledger, told)
    batches = _batches(islice(_history(name, begun.position), 1, None))
    batch = next(batches)
    for following in batches:
        await recording.append(batch, None)
        batch = following
    await recording.append(batch, end)
    await recording.settle()
    new = recording.new + (not begun.duplicate)
    return RecordedHistory(recording.events + 1, new, recording.position)


def _history(name: HistoryName, first_position: int) -> Iterator[HistoryEvent]:
    return plant_history(name.parts, name.seed, months=name.months, first_position=first_position)


async def _begin(ledger: Ledger, first: HistoryEvent) -> Appended:
    """Record the first event: it tells the positions of all others, were the log quiet."""
    try:
        return await ledger.append([_new(first)], expected={first.stream: NO_STREAM})
    except Conflict as conflict:
        if conflict.code != "stream.version_conflict":
            raise
        raise Conflict(
            "history.other",
            f"another history is in ledger {ledger.name!r} under the same seed: {first.stream!r} "
            "has events",
            hint="go on with the parts and months it was begun with, or choose another seed",
            value=first.stream,
        ) from conflict


def _batches(events: Iterable[HistoryEvent]) -> Iterator[list[HistoryEvent]]:
    """Yield `events` by appends; a correction never stands in one append with what it corrects."""
    batch: list[HistoryEvent] = []
    ids: set[object] = set()
    for event in events:
        fact = event.fact
        corrects_here = isinstance(fact, RecordCorrected) and fact.corrected_event_id in ids
        if len(batch) == APPEND_EVENTS or corrects_here:
            yield batch
            batch, ids = [], set()
        batch.append(event)
        ids.add(event.event_id)
    yield batch


class _Recording:
    """Appends that are under way, at most `APPENDS_AT_ONCE` of them, in order."""

    def __init__(self, ledger: Ledger, told: Callable[[int], None]) -> None:
        self.events = 0
        self.new = 0
        self.position = 0
        self._ledger = ledger
        self._told = told
        self._under_way: list[asyncio.Task[Appended]] = []

    async def append(self, batch: list[HistoryEvent], key: IdempotencyKey | None) -> None:
        """Append `batch` as soon as there is room for it."""
        if len(self._under_way) == APPENDS_AT_ONCE:
            await self._take_in(self._under_way.pop(0))
        events = [_new(event) for event in await self._positioned(batch)]
        self.events += len(events)
        append = self._ledger.append(events, idempotency=key)
        self._under_way.append(asyncio.create_task(append))
        # Handed to the writer now, before what follows: in the order of the history.
        await asyncio.sleep(0)

    async def settle(self) -> None:
        """Wait for all that is under way."""
        while self._under_way:
            await self._take_in(self._under_way.pop(0))

    async def _take_in(self, task: asyncio.Task[Appended]) -> None:
        try:
            appended = await task
        except HeddleError:
            for other in self._under_way:
                other.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)
            raise
        self.position = appended.position
        if not appended.duplicate:
            self.new += len(appended.placed)
        self._told(self.events)

    async def _positioned(self, batch: list[HistoryEvent]) -> list[HistoryEvent]:
        """Return `batch` with the true positions of what its corrections correct."""
        corrected = [
            event.fact.corrected_event_id
            for event in batch
            if isinstance(event.fact, RecordCorrected)
        ]
        if not corrected:
            return batch
        pool, ledger_id = self._ledger.pool, self._ledger.ledger_id
        positions = await read_positions(pool, ledger_id, corrected)
        if len(positions) < len(set(corrected)):
            await self.settle()
            positions = await read_positions(pool, ledger_id, corrected)
        return [
            event._replace(
                fact=replace(
                    event.fact, corrected_position=positions[event.fact.corrected_event_id]
                )
            )
            if isinstance(event.fact, RecordCorrected)
            else event
            for event in batch
        ]


def _new(event: HistoryEvent) -> NewEvent:
    return new_fact(
        event.stream,
        event.fact,
        event_id=event.event_id,
        occurred_at=event.occurred_at,
        actor=event.actor,
    )
