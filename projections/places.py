"""Where streams belong: the assets that something happened at, or that it happened to.

A run belongs to its asset, and so do an alert, a work order, a prediction, a scenario and a
component. What runs touched belongs to their assets: lots, parts, and what was inspected, found,
shipped or failed of these. It is folded from what events tie together (`domain.thread`), and only
grows: what once belonged to an asset is part of its story, also where a correction says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar, Final

from domain.records import RecordCorrected
from domain.thread import Link, LinkKind
from eventlog.database import Connection
from eventlog.envelope import RecordedEvent
from eventlog.ledger import Ledger
from eventlog.reading import PayloadOf
from projections.plant.intervals import KNOWN_STILL, Facet
from projections.thread.projection import THREADED_TYPES

_TO_CAUSE: Final = frozenset(
    {
        LinkKind.CONSUMED_BY,
        LinkKind.PROCESSED_BY,
        LinkKind.CONCERNS,
        LinkKind.SERVICED,
        LinkKind.EMBODIED_BY,
        LinkKind.USED_IN,
        LinkKind.INSTALLED_IN,
    }
)
"""The cause belongs where the effect does: a lot where the run is that consumed it."""

_TO_EFFECT: Final = frozenset(
    {
        LinkKind.PRODUCED,
        LinkKind.PERFORMED,
        LinkKind.SPLIT_INTO,
        LinkKind.MERGED_INTO,
        LinkKind.INSPECTED_BY,
        LinkKind.SHIPPED_IN,
        LinkKind.FAILED_AS,
        LinkKind.RAISED,
        LinkKind.ABOUT,
    }
)
"""The effect belongs where the cause does: a part where the run is that produced it."""

_AT_ASSETS: Final = frozenset(
    {LinkKind.PERFORMED, LinkKind.RAISED, LinkKind.SERVICED, LinkKind.ABOUT, LinkKind.INSTALLED_IN}
)
"""Only where the other end is an asset: what was done to a component does not move with it."""

_ASSET: Final = "asset:"


class PlaceProjection:
    """Folds links into the assets that each stream belongs to."""

    name: ClassVar[str] = "places"
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...] | None] = THREADED_TYPES
    payloads: ClassVar[PayloadOf] = PayloadOf.FACTS
    tables: ClassVar[tuple[str, ...]] = ("stream_place", "stream_place_source")

    async def fold(
        self, connection: Connection, ledger: Ledger, events: Sequence[RecordedEvent]
    ) -> None:
        """Add what `events` say."""
        places: set[tuple[str, str]] = set()
        sources: set[tuple[str, str]] = set()
        for event in events:
            for source, stream in _belongings(event):
                if source.startswith(_ASSET):
                    places.add((stream, source))
                else:
                    sources.add((source, stream))
        if places:
            await _insert(connection, ledger, "stream_place (stream, place)", places)
        if sources:
            await _insert(connection, ledger, "stream_place_source (source, stream)", sources)
        if places or sources:
            await connection.execute(
                _PASS_ON,
                ledger.ledger_id,
                sorted({stream for stream, _ in places}),
                sorted({source for source, _ in sources}),
            )


def _belongings(event: RecordedEvent) -> Iterable[tuple[str, str]]:
    """Yield pairs (source, stream) that `event` says: the stream belongs where the source does."""
    fact = event.fact
    if isinstance(fact, RecordCorrected):
        fact = fact.fact()
    say = getattr(fact, "thread", None)
    for item in () if say is None else say():
        if not isinstance(item, Link):
            continue
        if item.kind in _TO_CAUSE:
            source, stream = item.effect, item.cause
        elif item.kind in _TO_EFFECT:
            source, stream = item.cause, item.effect
        else:
            continue
        if source.startswith(_ASSET) or item.kind not in _AT_ASSETS:
            yield source, stream


async def _insert(
    connection: Connection, ledger: Ledger, into: str, pairs: Collection[tuple[str, str]]
) -> None:
    table, _, columns = into.partition(" ")
    ordered = sorted(pairs)
    await connection.execute(
        f"insert into {table} (ledger_id, {columns.strip('()')}) "
        "select $1, * from unnest($2::text[], $3::text[]) on conflict do nothing",
        ledger.ledger_id,
        [first for first, _ in ordered],
        [second for _, second in ordered],
    )


# From streams that were placed just now, and along links that are new, to whatever belongs there
# because of them; what is known already is not gone through again.
_PASS_ON: Final = """
    with recursive gained (stream, place) as (
        select s.stream, p.place
        from stream_place_source s
        join stream_place p on p.ledger_id = s.ledger_id and p.stream = s.source
        where s.ledger_id = $1 and (s.source = any($2::text[]) or s.source = any($3::text[]))
            and not exists (select from stream_place held where held.ledger_id = $1
                and held.stream = s.stream and held.place = p.place)
        union
        select s.stream, g.place
        from gained g join stream_place_source s on s.ledger_id = $1 and s.source = g.stream
        where not exists (select from stream_place held where held.ledger_id = $1
            and held.stream = s.stream and held.place = g.place)
    )
    insert into stream_place (ledger_id, stream, place)
    select $1, stream, place from gained on conflict do nothing
"""


# --- queries ------------------------------------------------------------------------------


def in_sight(stream: str, places: int) -> str:
    """Return, in SQL, that `stream` belongs to one of the places in a parameter; null: all do.

    Parameters
    ----------
    stream : an expression of the statement, such as ``w.stream``; its ledger is ``$1``
    places : number of the parameter: streams of assets, as `api.access.sight.Sight.places`
    """
    return (
        f"(${places}::text[] is null or exists (select from stream_place sp "
        f"where sp.ledger_id = $1 and sp.stream = {stream} and sp.place = any(${places})))"
    )


async def placed_among(
    ledger: Ledger, streams: Collection[str], places: Sequence[str]
) -> frozenset[str]:
    """Return those of `streams` that belong to one of `places`."""
    rows = await ledger.pool.fetch(
        "select asked.stream from unnest($2::text[]) as asked(stream) where "
        + in_sight("asked.stream", 3),
        ledger.ledger_id,
        list(streams),
        list(places),
    )
    return frozenset(row["stream"] for row in rows)


async def placed_elsewhere(ledger: Ledger, streams: Collection[str]) -> frozenset[str]:
    """Return those of `streams` that belong to an asset, stand in the plant, or are a location.

    What has come to stand nowhere yet is not among them.
    """
    rows = await ledger.pool.fetch(_ELSEWHERE, ledger.ledger_id, list(streams))
    return frozenset(row["stream"] for row in rows)


_ELSEWHERE: Final = f"""
    select asked.stream
    from (select stream, regexp_replace(stream, '^telemetry:', 'asset:') as thing
        from unnest($2::text[]) as asked(stream)) asked
    where exists (select from stream_place p where p.ledger_id = $1 and p.stream = asked.thing)
        or exists (select from plant_interval i where i.ledger_id = $1 and i.subject = asked.thing
            and i.known_to = {KNOWN_STILL} and (
                i.facet = {Facet.PLACE:d} and i.place is not null
                or asked.thing like 'location:%' and i.facet = {Facet.DESCRIPTION:d}))
"""
