"""Which lot of a made-up history is worth a recall: the delivery behind most failures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from api.plant_history.recorder import HistoryEvent
from domain.material.lot import LotReceived
from domain.material.part import PartFailureReported, part_stream
from domain.thread import Link


@dataclass(frozen=True, slots=True)
class BadLot:
    """A delivery, how many parts it reached, and which of them failed in the field."""

    stream: str
    parts: int
    failed: tuple[str, ...]


def lot_to_recall(history: Iterable[HistoryEvent]) -> BadLot | None:
    """Return the delivery that most of what failed was made of; None: there was no delivery.

    The links of the whole history are held: for small ones.
    """
    effects: dict[str, list[str]] = defaultdict(list)
    delivered: list[str] = []
    failed: set[str] = set()
    for event in history:
        if isinstance(event.fact, LotReceived):
            delivered.append(event.stream)
        elif isinstance(event.fact, PartFailureReported):
            failed.add(part_stream(event.fact.part_id))
        for item in getattr(event.fact, "thread", tuple)():
            if isinstance(item, Link) and item.cause.startswith(("lot:", "part:", "process-run:")):
                effects[item.cause].append(item.effect)
    lots = [_reached(stream, effects, failed) for stream in delivered]
    return max(lots, key=lambda lot: (len(lot.failed), lot.parts), default=None)


def _reached(stream: str, effects: dict[str, list[str]], failed: set[str]) -> BadLot:
    reached, frontier = {stream}, [stream]
    while frontier:
        for effect in effects.get(frontier.pop(), ()):
            if effect not in reached:
                reached.add(effect)
                frontier.append(effect)
    parts = {key for key in reached if key.startswith("part:")}
    return BadLot(stream, len(parts), tuple(sorted(parts & failed)))
