"""What tests tell a log about a plant: facts with the minutes at which they were true."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from domain.asset import AssetPlaced, AssetRegistered, AssetRetired, asset_stream
from domain.plant.component import component_stream
from domain.plant.location import (
    LocationDefined,
    LocationMoved,
    LocationRetired,
    RollUpDeclared,
    location_stream,
)
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from tests.domain.corrections import correction_of
from tests.projections.loop_frames import NOON


def at(minutes: float) -> datetime:
    """Return the moment so many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def stream_of(fact: Any) -> str:
    match fact:
        case LocationDefined() | LocationMoved() | LocationRetired() | RollUpDeclared():
            return location_stream(fact.location_id)
        case AssetPlaced() | AssetRegistered() | AssetRetired():
            return asset_stream(fact.asset_id)
        case _:
            return component_stream(fact.component_id)


@dataclass(frozen=True)
class Told:
    """A fact and when it was true; `corrects` names the earlier fact, by its place in the log."""

    fact: Any
    minutes: float
    corrects: int | None = None


async def tell(ledger: Ledger, told: Sequence[Told]) -> None:
    """Record what was told, in that order, as the log's beginning."""
    ids = [uuid.uuid4() for _ in told]
    events = []
    for event_id, one in zip(ids, told, strict=True):
        fact = one.fact
        stream = stream_of(fact if one.corrects is None else told[one.corrects - 1].fact)
        if one.corrects is not None:
            fact = correction_of(stream, ids[one.corrects - 1], one.corrects, fact)
        events.append(
            new_fact(
                stream, fact, event_id=event_id, occurred_at=at(one.minutes), actor="user:mara"
            )
        )
    await ledger.append(events)
