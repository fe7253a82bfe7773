"""Alerts as they stood at an earlier position or moment, folded from their assets' facts.

The rows of `projections.alerts.projection` say how alerts stand now. What they said before is not
kept: it is asked for seldom, and the facts of the few assets of a page say it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from domain.asset import asset_stream
from domain.asset_model import Severity
from domain.errors import InvalidInput
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, PayloadOf, read_page_backwards, read_pages
from projections.alerts.projection import AlertProjection, AlertRow, AlertState, stories
from projections.twins.facts import FACTS_MAX, effective_occurrences

RAISED: Final = "asset.alert_raised"
ASSETS_AT_ONCE: Final = 500


async def alerts_then(
    ledger: Ledger, asset_ids: Sequence[str], *, known_at: int, valid_at: datetime | None = None
) -> dict[str, list[AlertRow]]:
    """Return the alerts of each of `asset_ids` by what was known at a position, newest first.

    Parameters
    ----------
    asset_ids : at most `ASSETS_AT_ONCE`
    valid_at : only what had happened by then

    Raises
    ------
    InvalidInput
        ``alert.too_many_facts``: their streams hold more than `FACTS_MAX` facts of alerts
    """
    streams = {asset_stream(asset_id): asset_id for asset_id in asset_ids}
    told: dict[str, list[RecordedEvent]] = {stream: [] for stream in streams}
    count = 0
    async for page in read_pages(
        ledger,
        0,
        up_to=known_at,
        limit=2_000,
        wanted=EventFilter(types=AlertProjection.types or (), streams=tuple(streams)),
        payloads=PayloadOf.FACTS,
    ):
        count += len(page)
        if count > FACTS_MAX:
            raise InvalidInput(
                "alert.too_many_facts",
                f"there are more than {FACTS_MAX} facts of alerts to look at",
                hint="ask for fewer assets",
                value=count,
                limit=FACTS_MAX,
            )
        for event in page:
            if not event.erased:
                told[event.stream].append(event)
    found: dict[str, list[AlertRow]] = {}
    for stream, asset_id in streams.items():
        occurrences = effective_occurrences(told[stream])
        if valid_at is not None:
            occurrences = [one for one in occurrences if one.occurred_at <= valid_at]
        rows = stories(occurrences).values()
        found[asset_id] = sorted(rows, key=lambda row: row.position, reverse=True)
    return found


@dataclass(frozen=True, slots=True)
class AlertsThen:
    """A page of alerts; `scanned_to`: those before this position have not been looked at."""

    rows: tuple[AlertRow, ...]
    scanned_to: int


async def list_alerts_then(
    ledger: Ledger,
    *,
    known_at: int,
    valid_at: datetime | None = None,
    before: int | None = None,
    first: int,
    asset_ids: Sequence[str] | None = None,
    severities: Sequence[Severity] = (),
    states: Sequence[AlertState] = (),
) -> AlertsThen:
    """Return up to `first` alerts raised before position `before`, newest first.

    A page looks at so many raised alerts as it may hold; fewer, or none, may be wanted.

    Parameters
    ----------
    asset_ids : None: all; at most 1,000

    Raises
    ------
    InvalidInput
        ``alert.too_many_facts``, ``filter.too_many``
    """
    if asset_ids is not None and not asset_ids:
        return AlertsThen((), 1)
    page = await read_page_backwards(
        ledger,
        known_at + 1 if before is None else min(before, known_at + 1),
        limit=min(first, ASSETS_AT_ONCE),
        wanted=EventFilter(types=(RAISED,), streams=tuple(map(asset_stream, asset_ids or ()))),
        payloads=PayloadOf.NONE,
    )
    named = list(dict.fromkeys(event.stream.partition(":")[2] for event in page))
    then = await alerts_then(ledger, named, known_at=known_at, valid_at=valid_at)
    by_position = {row.position: row for rows in then.values() for row in rows}
    rows = [by_position[event.position] for event in page if event.position in by_position]
    return AlertsThen(
        tuple(
            row
            for row in rows
            if (not severities or row.severity in severities)
            and (not states or row.state in states)
        ),
        page.scanned_to,
    )
