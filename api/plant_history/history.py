"""A plant's history from its first day to its last order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from api.plant_history.founding import found
from api.plant_history.making import Shop
from api.plant_history.materials import open_stocks
from api.plant_history.plant import Plant
from api.plant_history.recorder import HistoryEvent, HistoryName, Recorder, Story
from api.plant_history.upkeep import calibrations, improvements, revisions, rounds
from domain.errors import InvalidInput

PARTS_MAX: Final = 100_000_000
SEED_MAX: Final = 2**31 - 1
MONTHS_MAX: Final = 120


def plant_history(
    parts: int, seed: int, *, months: int = 12, first_position: int = 1
) -> Iterator[HistoryEvent]:
    """Yield the events of a made-up plant in the order of their recording.

    The same arguments give the same events, their identifiers included. Quantities balance, and
    each event is one that its stream's decider would have allowed.

    Parameters
    ----------
    parts : how many parts are made and received, 1 to `PARTS_MAX`
    seed : 0 to 2**31 - 1; part of every name, so that histories of several seeds do not mix
    months : over how many months of 30 days it happens, 1 to 120
    first_position : where its first event stands in the log: what corrections and models name
        are positions. Right as long as nobody else writes to that log

    Raises
    ------
    InvalidInput
        ``history.parts``, ``history.seed``, ``history.months``, ``history.first_position``
    """
    _check("parts", parts, 1, PARTS_MAX)
    _check("seed", seed, 0, SEED_MAX)
    _check("months", months, 1, MONTHS_MAX)
    _check("first_position", first_position, 1, 2**53)
    name = HistoryName(parts, seed, months)
    recorder = Recorder(name, first_position)
    plant = Plant(name, recorder)
    recorder.tell(_first_day(plant))
    return recorder.events()


def _first_day(plant: Plant) -> Story:
    yield from ()
    found(plant)
    plant.recorder.tell(Shop(plant, open_stocks(plant)).orders())
    for story in (rounds, calibrations, revisions, improvements):
        plant.recorder.tell(story(plant))


def _check(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidInput(
            f"history.{name}", f"{name} is {value}, not {low} to {high}", value=value, limit=high
        )
