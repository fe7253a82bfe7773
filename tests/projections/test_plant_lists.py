"""Many things of the plant at once are what each is alone."""

from __future__ import annotations

import pytest

from api.history_recording import record_history
from api.plant_history import HistoryName
from domain.plant.location import Level, LocationDefined, LocationMoved, LocationRetired
from eventlog.ledger import Ledger
from projections.alerts.projection import AlertProjection
from projections.as_of import NOW, AsOf
from projections.maintenance.projection import MaintenanceProjection
from projections.maintenance.work_orders import (
    WorkOrderFilter,
    WorkOrderOrder,
    key_of,
    list_work_orders,
    work_orders_of,
)
from projections.plant.lists import below, forest_below, items_of, list_items, paths_of
from projections.plant.projection import PlantProjection
from projections.plant.queries import ItemKind, PlantItem, path_of, tree_below
from projections.plant.twins import location_twins, location_twins_of
from projections.production.process_runs import RunFilter, list_runs, runs_of
from projections.production.projection import ProductionProjection
from projections.twins.projection import TwinProjection
from tests.projections.loop_frames import NOON, PATIENCE_S, running
from tests.projections.plant_history import Told, tell

pytestmark = pytest.mark.anyio


async def test_of_many_is_what_is_of_each(ledger: Ledger, database_url: str) -> None:
    history = await record_history(ledger, HistoryName(parts=40, seed=5, months=6))
    folded = (PlantProjection(), TwinProjection(), AlertProjection(), ProductionProjection())
    async with running(ledger, database_url, *folded) as runners:
        for runner in runners:
            await runner.wait_for(history.position, PATIENCE_S)
    for as_of in (NOW, AsOf(position=history.position // 3)):
        locations = await list_items(ledger, ItemKind.LOCATION, as_of, first=500)
        assets = await list_items(ledger, ItemKind.ASSET, as_of, first=500, with_ended=True)
        assert len(locations) > 10 < len(assets)
        streams = [item.stream for item in (*locations, *assets)]

        paths = await paths_of(ledger, streams, as_of)
        assert paths == {stream: await path_of(ledger, stream, as_of) for stream in streams}
        named = await items_of(ledger, [*streams, "location:nowhere"], as_of)
        assert named == {stream: paths[stream][-1] for stream in streams}
        forest = await forest_below(ledger, [item.item_id for item in locations], as_of)
        for location in locations:
            tree = await tree_below(ledger, location.item_id, as_of, components=False)
            assert below(forest, location.item_id) == tree[1:]

    now = await ledger.pool.fetchval("select max(occurred_at) from event")
    ids = [item.item_id for item in await list_items(ledger, ItemKind.LOCATION, first=500)]
    _, twins = await location_twins_of(ledger, ids, now)
    for location_id in ids:
        alone = (await location_twins(ledger, location_id, now)).locations[location_id]
        # Alone, nobody asks what it stands in.
        twin = twins[location_id]
        assert twin.members == alone.members
        assert (twin.health, twin.connectivity) == (alone.health, alone.connectivity)
        assert (twin.assets, twin.connected) == (alone.assets, alone.connected)
        assert twin.concerns == alone.concerns


async def test_lists_go_on_where_a_page_ended(ledger: Ledger, database_url: str) -> None:
    history = await record_history(ledger, HistoryName(parts=20, seed=6, months=6))
    async with running(ledger, database_url, PlantProjection()) as runners:
        await runners[0].wait_for(history.position, PATIENCE_S)
    whole = await list_items(ledger, ItemKind.COMPONENT, first=500, with_ended=True)
    paged: list[PlantItem] = []
    while page := await list_items(
        ledger,
        ItemKind.COMPONENT,
        first=3,
        after=paged[-1].item_id if paged else "",
        with_ended=True,
    ):
        paged += page

    assert len(whole) > 5
    assert paged == whole
    assert {item.kind for item in whole} == {ItemKind.COMPONENT}


async def test_circles_and_what_was_given_up_do_no_harm(ledger: Ledger, database_url: str) -> None:
    await tell(
        ledger,
        [
            Told(LocationDefined("works", Level.SITE, "Works", None), 0),
            Told(LocationDefined("hall", Level.AREA, "Hall", "works"), 1),
            Told(LocationDefined("line", Level.LINE, "Line", "hall"), 2),
            Told(LocationMoved("hall", "line"), 3),
            Told(LocationDefined("cell", Level.CELL, "Cell", "works"), 4),
            Told(LocationRetired("cell", "torn down"), 5),
        ],
    )
    async with running(ledger, database_url, PlantProjection(), TwinProjection()) as runners:
        for runner in runners:
            await runner.wait_for(await ledger.head(), PATIENCE_S)

    forest = await forest_below(ledger, ["hall", "line", "works"])

    assert {item.item_id for item in forest} == {"hall", "line", "works", "cell"}
    assert [item.item_id for item in below(forest, "hall")] == ["line"]
    assert [item.item_id for item in below(forest, "works")] == ["cell"]
    assert [i.item_id for i in await list_items(ledger, ItemKind.LOCATION, first=9)] == [
        "hall",
        "line",
        "works",
    ]
    _, twins = await location_twins_of(ledger, ["cell", "works", "hall"], NOON.replace(hour=13))
    assert twins["works"].members == 0  # what was given up does not count
    assert twins["cell"].location_id == "cell"  # and is told where it is asked for
    assert set(twins) == {"cell", "works", "hall"}


async def test_runs_and_orders_of_many_assets_are_those_of_each(
    ledger: Ledger, database_url: str
) -> None:
    history = await record_history(ledger, HistoryName(parts=60, seed=7, months=12))
    folded = (ProductionProjection(), MaintenanceProjection())
    async with running(ledger, database_url, *folded) as runners:
        for runner in runners:
            await runner.wait_for(history.position, PATIENCE_S)
    rows = await ledger.pool.fetch("select distinct asset_id from process_run")
    assets = sorted(row["asset_id"] for row in rows if row["asset_id"] is not None)
    for as_of in (None, history.position // 2):
        runs = await runs_of(ledger, assets, RunFilter(), first=4, as_of=as_of)
        assert sum(map(len, runs.values())) > len(assets)
        for asset in assets:
            only = RunFilter(assets=(asset,))
            assert runs[asset] == await list_runs(ledger, only, first=4, as_of=as_of)
        for by in WorkOrderOrder:
            orders = await work_orders_of(
                ledger, assets, WorkOrderFilter(), by, first=2, as_of=as_of
            )
            assert any(orders.values()) or as_of is not None
            for asset in assets:
                mine = WorkOrderFilter(assets=(asset,))
                assert orders[asset] == await list_work_orders(
                    ledger, mine, by, first=2, as_of=as_of
                )
                if len(orders[asset]) == 2:
                    after = key_of(orders[asset][0], by)
                    (second,) = await list_work_orders(
                        ledger, mine, by, first=1, after=after, as_of=as_of
                    )
                    (again,) = (
                        await work_orders_of(
                            ledger, [asset], mine, by, first=1, after=after, as_of=as_of
                        )
                    )[asset]
                    assert second == again == orders[asset][1]
