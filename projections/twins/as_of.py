"""The twin of an asset as of any position or moment, exactly as it was, without a replay.

As of a position, or a time of recording, it is what the live twin was then. As of a moment
(`AsOf.valid_at`) it is what was true at that moment by all that is, or was, known: facts that
occurred by then, corrections applied, and readings that were taken by then. An asset's name and
type are its own whenever it was registered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from domain.asset import AssetRegistered, asset_stream
from domain.errors import InvalidInput
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import (
    EventFilter,
    PayloadOf,
    read_page,
    read_pages,
    stream_version_at,
)
from projections.as_of import AsOf
from projections.plant.queries import moment_of
from projections.twins.facts import (
    FACTS_MAX,
    AssetRow,
    Occurrence,
    effective_occurrences,
    fold_facts,
    read_facts,
)
from projections.twins.history import channels_at, channels_by
from projections.twins.projection import Twin, judged_twin

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def twin_as_of(
    ledger: Ledger, asset_id: str, as_of: AsOf, *, judged_at: datetime | None = None
) -> tuple[AssetRow, Twin] | None:
    """Return the asset and its twin as of `as_of`; None where nobody had registered it.

    Parameters
    ----------
    judged_at : when its readings' age and its staleness are judged; by default the moment asked
        for, or else that when the position was recorded

    Raises
    ------
    InvalidInput
        ``as_of.ambiguous``, ``twin.too_many_facts``
    Unavailable
        ``twin.history_behind`` while the projection of that name has not caught up
    """
    known, _ = await moment_of(ledger, as_of)
    position = min(known, await ledger.head())
    stream = asset_stream(asset_id)
    version = await stream_version_at(ledger, stream, position)
    events = await read_facts(ledger, stream, version)
    occurrences = effective_occurrences(events)
    if as_of.valid_at is not None:
        occurrences = _true_by(occurrences, as_of.valid_at)
    facts = fold_facts(None, occurrences)
    if facts is None:
        return None
    if as_of.valid_at is None:
        channels = await channels_at(ledger, asset_id, position)
    else:
        channels = await channels_by(ledger, asset_id, position, _until_ns(as_of.valid_at))
    now = judged_at or as_of.valid_at or as_of.recorded_at
    if now is None:
        (last,) = await read_page(ledger, position - 1, limit=1, payloads=PayloadOf.NONE)
        now = last.recorded_at
    asset = facts.row(version, events[-1].position)
    setpoints = [facts.setpoints[name] for name in sorted(facts.setpoints)]
    return asset, judged_twin(asset, now, position, channels, setpoints, facts.open_alerts)


async def assets_as_of(
    ledger: Ledger, asset_ids: Sequence[str], as_of: AsOf
) -> dict[str, AssetRow]:
    """Return those of `asset_ids` that had been registered, as of `as_of`, by their id.

    Their facts are read together, at most 1,000 assets at once.

    Raises
    ------
    InvalidInput
        ``as_of.ambiguous``; ``twin.too_many_facts``: beyond `FACTS_MAX` of all of them
    """
    known, _ = await moment_of(ledger, as_of)
    told: dict[str, list[RecordedEvent]] = {asset_stream(name): [] for name in asset_ids}
    if not told:
        return {}
    count = 0
    async for page in read_pages(
        ledger,
        0,
        up_to=min(known, await ledger.head()),
        limit=2_000,
        wanted=EventFilter(streams=tuple(told)),
        payloads=PayloadOf.FACTS,
    ):
        count += len(page)
        if count > FACTS_MAX:
            raise InvalidInput(
                "twin.too_many_facts",
                f"the assets have more than {FACTS_MAX} facts to fold at once",
                hint="ask for fewer assets",
                value=count,
                limit=FACTS_MAX,
            )
        for event in page:
            told[event.stream].append(event)
    found: dict[str, AssetRow] = {}
    for events in told.values():
        occurrences = effective_occurrences(event for event in events if not event.erased)
        if as_of.valid_at is not None:
            occurrences = _true_by(occurrences, as_of.valid_at)
        facts = fold_facts(None, occurrences)
        if facts is not None:
            found[facts.asset_id] = facts.row(events[-1].version, events[-1].position)
    return found


def _true_by(occurrences: list[Occurrence], moment: datetime) -> list[Occurrence]:
    """Return what had occurred by `moment`, in the order of time, after the registration.

    A registration says when an asset became known, and not that it was not there before.
    """
    registered = [one for one in occurrences if isinstance(one.fact, AssetRegistered)]
    others = [
        one
        for one in occurrences
        if one.occurred_at <= moment and not isinstance(one.fact, AssetRegistered)
    ]
    return registered + sorted(others, key=lambda one: (one.occurred_at, one.position))


def _until_ns(moment: datetime) -> int:
    """Return the last nanosecond of the microsecond `moment`: readings are shown to that."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + 999
