"""Where streams belong: to the assets of what touched them, in whatever order that became known."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from domain.thread import Link, LinkEnd, LinkKind, NodeState, Standing
from eventlog.ledger import Ledger
from projections.places import PlaceProjection, placed_among, placed_elsewhere

pytestmark = pytest.mark.anyio

K = LinkKind
PRESS, MILL = "asset:press-07", "asset:mill-1"
STORY = (
    Link(K.PERFORMED, PRESS, "process-run:R-1"),
    Link(K.PERFORMED, MILL, "process-run:R-2"),
    Link(K.CONSUMED_BY, "lot:L-2", "process-run:R-1"),
    Link(K.SPLIT_INTO, "lot:L-1", "lot:L-2"),
    Link(K.SPLIT_INTO, "lot:L-2", "lot:L-3"),
    Link(K.PRODUCED, "process-run:R-1", "part:P-1"),
    Link(K.PROCESSED_BY, "part:P-1", "process-run:R-2"),
    Link(K.INSPECTED_BY, "part:P-1", "inspection:I-1"),
    Link(K.CONCERNS, "nonconformance:N-1", "part:P-1"),
    Link(K.SHIPPED_IN, "part:P-1", "shipment:S-1"),
    Link(K.FAILED_AS, "part:P-1", "failure:F-1"),
    Link(K.RAISED, PRESS, "alert:A-1"),
    Link(K.SERVICED, "work-order:W-1", PRESS),
    Link(K.SERVICED, "work-order:W-1", "component:C-1"),
    Link(K.INSTALLED_IN, "component:C-1", MILL),
    Link(K.USED_IN, "spare-part:B-1", "work-order:W-1"),
    Link(K.ABOUT, MILL, "prediction:X-1"),
    Link(K.ABOUT, "component:C-1", "prediction:X-2"),
    Link(K.PREDICTED, "model:M@1", "prediction:X-1"),
    Link(K.ASSEMBLED_INTO, "part:P-2", "part:P-1"),
    Link(K.SPECIFIED, "document:D@A", "part:P-1"),
    LinkEnd(K.INSTALLED_IN, "component:C-1", MILL),
    Standing("part:P-3", NodeState.ACTIVE),
)
BELONGS = {
    "process-run:R-1": {PRESS},
    "process-run:R-2": {MILL},
    "lot:L-2": {PRESS},
    "lot:L-3": {PRESS},
    "part:P-1": {PRESS, MILL},
    "inspection:I-1": {PRESS, MILL},
    "nonconformance:N-1": {PRESS, MILL},
    "shipment:S-1": {PRESS, MILL},
    "failure:F-1": {PRESS, MILL},
    "alert:A-1": {PRESS},
    "work-order:W-1": {PRESS},
    "component:C-1": {MILL},
    "spare-part:B-1": {PRESS},
    "prediction:X-1": {MILL},
}


def event(*items: Any) -> Any:
    """Return an event that says these things of the thread."""
    return SimpleNamespace(fact=SimpleNamespace(thread=lambda: items))


async def folded(ledger: Ledger, batches: Sequence[Sequence[Any]]) -> dict[str, set[str]]:
    """Return where each stream belongs after `batches` of items, and forget it again."""
    found: dict[str, set[str]] = {}
    projection = PlaceProjection()
    async with ledger.pool.acquire() as connection, connection.transaction():
        await connection.execute("delete from stream_place; delete from stream_place_source")
        for batch in batches:
            await projection.fold(connection, ledger, [event(item) for item in batch])
        for row in await connection.fetch("select stream, place from stream_place"):
            found.setdefault(row["stream"], set()).add(row["place"])
    return found


async def test_things_belong_to_the_assets_of_what_touched_them(ledger: Ledger) -> None:
    assert await folded(ledger, [STORY]) == BELONGS


async def test_neither_order_nor_batches_make_a_difference(ledger: Ledger) -> None:
    shuffled = random.Random(7)
    for _ in range(40):
        items = shuffled.sample(STORY, len(STORY))
        cuts = sorted(shuffled.sample(range(1, len(items)), shuffled.randrange(6)))
        batches = [items[a:b] for a, b in itertools.pairwise([0, *cuts, len(items)])]
        assert await folded(ledger, batches) == BELONGS


async def test_what_is_told_twice_is_known_once(ledger: Ledger) -> None:
    assert await folded(ledger, [STORY, STORY, STORY[::-1]]) == BELONGS


async def test_a_circle_of_lots_comes_to_an_end(ledger: Ledger) -> None:
    circle = [
        Link(K.SPLIT_INTO, "lot:A", "lot:B"),
        Link(K.MERGED_INTO, "lot:B", "lot:A"),
        Link(K.CONSUMED_BY, "lot:A", "process-run:R"),
        Link(K.PERFORMED, PRESS, "process-run:R"),
    ]
    for order in itertools.permutations(circle):
        found = await folded(ledger, [[item] for item in order])
        assert found == {"lot:A": {PRESS}, "lot:B": {PRESS}, "process-run:R": {PRESS}}


async def test_only_what_belongs_to_one_of_the_places_is_among_them(ledger: Ledger) -> None:
    await folded(ledger, [STORY])
    asked = [*BELONGS, "lot:L-1", "part:nobody", "agent:gateway-1"]
    at_mill = {stream for stream, places in BELONGS.items() if MILL in places}
    assert await placed_among(ledger, asked, [MILL]) == at_mill
    assert await placed_among(ledger, asked, []) == frozenset()


async def test_what_has_come_to_stand_nowhere_is_not_elsewhere(ledger: Ledger) -> None:
    await folded(ledger, [STORY])
    await ledger.pool.execute(
        """
        insert into plant_interval (ledger_id, facet, statement, finding, subject,
            source_position, known_from, known_to, valid_from, valid_to, place)
        select $1, facet, 0, 0, subject, 1, 1, 9223372036854775807, $2, 'infinity', place
        from (values (1, 'asset:press-07', 'location:hall-1'), (2, 'asset:new', null),
            (2, 'location:hall-1', null)) as v(facet, subject, place)
        """,
        ledger.ledger_id,
        datetime(2026, 1, 1, tzinfo=UTC),
    )
    asked = ["lot:L-1", "lot:L-2", "asset:press-07", "telemetry:press-07", "asset:new", "asset:no"]
    found = await placed_elsewhere(ledger, [*asked, "location:hall-1", "location:hall-2"])
    assert found == {"lot:L-2", "asset:press-07", "telemetry:press-07", "location:hall-1"}
