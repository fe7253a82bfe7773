"""The plant: what stood where and in what, whatever the order in which it was told."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.asset import (
    AssetPlaced,
    AssetRegistered,
    AssetRetired,
    PlaceAsset,
    RegisterAsset,
    asset_stream,
)
from domain.errors import InvalidInput
from domain.plant.component import (
    ComponentInstalled,
    ComponentRegistered,
    ComponentRemoved,
    ComponentScrapped,
    InstallComponent,
    RegisterComponent,
    RemoveComponent,
    component_stream,
)
from domain.plant.location import (
    DefineLocation,
    Level,
    LocationDefined,
    LocationMoved,
    LocationRetired,
    RollUp,
    RollUpDeclared,
    location_stream,
)
from eventlog.commands import handle
from eventlog.database import Pool
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from projections.as_of import AsOf
from projections.plant import queries as plant_queries
from projections.plant.findings import FindingKind, list_findings
from projections.plant.projection import PlantProjection
from projections.plant.queries import (
    ItemKind,
    assets_of,
    components_of,
    path_of,
    stays_in,
    stays_of,
    tree_below,
)
from tests.domain.corrections import correction_of
from tests.projections.loop_frames import fold, fresh_ledgers, table
from tests.projections.plant_history import Told, at, stream_of, tell

pytestmark = pytest.mark.anyio

BEARING = "BRG-1042"


PLANT = (
    Told(LocationDefined("group", Level.ENTERPRISE, "Group", None), 0),
    Told(LocationDefined("works", Level.SITE, "Works", "group"), 0),
    Told(LocationDefined("hall", Level.AREA, "Hall", "works"), 0),
    Told(LocationDefined("line", Level.LINE, "Line", "hall"), 0),
    Told(AssetRegistered("loop-1", "skab-pump-loop", "Loop 1"), 0),
    Told(AssetRegistered("loop-2", "skab-pump-loop", "Loop 2"), 0),
    Told(ComponentRegistered(BEARING, "bearing", "Drive end", "SN-1"), 0),
)


async def told_plant(ledger: Ledger, *told: Told) -> None:
    await tell(ledger, (*PLANT, *told))
    await fold(ledger, PlantProjection())


# --- the tree -----------------------------------------------------------------------------


async def test_a_tree_holds_locations_assets_and_components_with_what_they_are(
    ledger: Ledger,
) -> None:
    await told_plant(
        ledger,
        Told(AssetPlaced("loop-1", "line", None), 1),
        Told(ComponentInstalled(BEARING, "loop-1", "drive-end"), 2),
        Told(RollUpDeclared("line", RollUp.K_OF_N, 1), 3),
    )
    tree = await tree_below(ledger, "works")
    assert [(item.kind, item.item_id, item.depth, item.parent) for item in tree] == [
        (ItemKind.LOCATION, "works", 0, None),
        (ItemKind.LOCATION, "hall", 1, "location:works"),
        (ItemKind.LOCATION, "line", 2, "location:hall"),
        (ItemKind.ASSET, "loop-1", 3, "location:line"),
        (ItemKind.COMPONENT, BEARING, 4, "asset:loop-1"),
    ]
    line, loop, bearing = tree[2:]
    assert (line.item_type, line.roll_up, line.required) == ("LINE", RollUp.K_OF_N, 1)
    assert (tree[1].roll_up, tree[1].required) == (RollUp.WORST, None)
    assert (loop.item_type, loop.title, loop.since) == ("skab-pump-loop", "Loop 1", at(1))
    assert (bearing.slot, bearing.part_id, bearing.stream) == (
        *("drive-end", "SN-1", component_stream(BEARING)),
    )
    without = await tree_below(ledger, "works", components=False, depth_max=2)
    assert [item.item_id for item in without] == ["works", "hall", "line"]


async def test_a_path_leads_from_the_top_to_a_component(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(AssetPlaced("loop-1", "line", None), 1),
        Told(ComponentInstalled(BEARING, "loop-1", "drive-end"), 2),
    )
    path = await path_of(ledger, component_stream(BEARING))
    assert [item.item_id for item in path] == ["group", "works", "hall", "line", "loop-1", BEARING]
    early = await path_of(ledger, component_stream(BEARING), AsOf(valid_at=at(1.5)))
    assert [item.item_id for item in early] == [BEARING]
    assert [item.item_id for item in await path_of(ledger, asset_stream("loop-2"))] == ["loop-2"]


async def test_a_tree_is_asked_for_as_of_a_moment_and_a_position(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(AssetPlaced("loop-1", "line", None), 10),  # position 8
        Told(AssetPlaced("loop-1", "hall", "line"), 20),  # 9
        Told(LocationMoved("line", "works"), 30),  # 10
        Told(AssetPlaced("loop-1", "works", None, late=True), 15),  # 11, told late
    )

    async def place(**as_of: Any) -> str | None:
        return (await path_of(ledger, asset_stream("loop-1"), AsOf(**as_of)))[-1].parent

    assert await place() == "location:hall"
    assert await place(valid_at=at(9)) is None
    assert await place(valid_at=at(10)) == "location:line"
    assert await place(valid_at=at(15)) == "location:works"
    assert await place(valid_at=at(19.9)) == "location:works"
    assert await place(valid_at=at(20)) == "location:hall"
    assert await place(valid_at=at(16), position=10) == "location:line"
    assert await place(valid_at=at(25), position=8) == "location:line"
    assert await place(position=7) is None
    line = await path_of(ledger, location_stream("line"), AsOf(valid_at=at(29)))
    assert [item.item_id for item in line] == ["group", "works", "hall", "line"]
    line = await path_of(ledger, location_stream("line"))
    assert [item.item_id for item in line] == ["group", "works", "line"]


async def test_as_of_a_time_of_recording_is_as_of_the_position_then(ledger: Ledger) -> None:
    await told_plant(ledger, Told(AssetPlaced("loop-1", "line", None), 10))
    recorded_at = await ledger.pool.fetchval("select recorded_at from event where position = 8")
    for moment, parent in (
        (recorded_at, "location:line"),
        (recorded_at - timedelta(days=1), None),
    ):
        (item,) = (await path_of(ledger, asset_stream("loop-1"), AsOf(recorded_at=moment)))[-1:]
        assert item.parent == parent


async def test_assets_of_a_location_are_those_in_itself(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(AssetPlaced("loop-1", "line", None), 1),
        Told(AssetPlaced("loop-2", "hall", None), 1),
    )
    assert [item.item_id for item in await assets_of(ledger, "hall")] == ["loop-2"]
    assert [item.item_id for item in await assets_of(ledger, "line")] == ["loop-1"]
    assert await assets_of(ledger, "line", AsOf(valid_at=at(0.5))) == []


async def test_a_retired_asset_stands_nowhere(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(AssetPlaced("loop-1", "line", None), 1),
        Told(AssetRetired("loop-1", "sold"), 5),
    )
    assert await assets_of(ledger, "line") == []
    assert len(await assets_of(ledger, "line", AsOf(valid_at=at(4)))) == 1
    (loop,) = await path_of(ledger, asset_stream("loop-1"))
    assert loop.ended


async def test_a_circle_in_what_was_told_ends(ledger: Ledger) -> None:
    await told_plant(ledger, Told(LocationMoved("works", "line"), 5))
    assert [item.item_id for item in await tree_below(ledger, "works")] == ["works", "hall", "line"]
    assert len(await path_of(ledger, location_stream("line"))) == 3


async def test_an_answer_has_a_bound(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await told_plant(ledger, Told(AssetPlaced("loop-1", "line", None), 1))
    monkeypatch.setattr(plant_queries, "ITEMS_MAX", 3)
    with pytest.raises(InvalidInput) as refused:
        await tree_below(ledger, "works")
    assert (refused.value.code, refused.value.limit) == ("plant.too_large", 3)


# --- installations ------------------------------------------------------------------------


async def test_components_are_known_by_slot_and_moment(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(ComponentRegistered("SEAL-1", "seal", "", None), 0),
        Told(ComponentInstalled(BEARING, "loop-1", "drive-end"), 1),
        Told(ComponentInstalled("SEAL-1", "loop-1", "casing"), 2),
        Told(ComponentRemoved(BEARING, "loop-1", "drive-end", "worn"), 10),
        Told(ComponentInstalled(BEARING, "loop-2", "drive-end"), 12),
    )

    async def installed(minutes: float) -> dict[str, list[tuple[str | None, str]]]:
        found = await components_of(ledger, ["loop-1", "loop-2"], AsOf(valid_at=at(minutes)))
        return {asset: [(i.slot, i.item_id) for i in items] for asset, items in found.items()}

    assert await installed(5) == {
        "loop-1": [("casing", "SEAL-1"), ("drive-end", BEARING)],
        "loop-2": [],
    }
    assert await installed(11) == {"loop-1": [("casing", "SEAL-1")], "loop-2": []}
    assert await installed(12) == {
        "loop-1": [("casing", "SEAL-1")],
        "loop-2": [("drive-end", BEARING)],
    }
    stays = (await stays_of(ledger, [component_stream(BEARING)]))[component_stream(BEARING)]
    assert [(stay.place, stay.began_at, stay.ended_at) for stay in stays] == [
        ("asset:loop-1", at(1), at(10)),
        ("asset:loop-2", at(12), None),
    ]
    (seal, bearing) = sorted(
        (await stays_in(ledger, ["asset:loop-1"], AsOf(valid_at=at(9))))["asset:loop-1"],
        key=lambda stay: stay.subject == component_stream(BEARING),
    )
    assert (seal.ended_at, bearing.ended_at) == (None, None)


async def test_a_removal_from_where_a_component_was_not_ends_nothing(ledger: Ledger) -> None:
    """Until the installation is told that the removal belongs to."""
    wrong = (
        Told(ComponentInstalled(BEARING, "loop-2", "drive-end"), 10),
        Told(ComponentRemoved(BEARING, "loop-1", "drive-end", "worn"), 20),
    )
    late = Told(ComponentInstalled(BEARING, "loop-1", "drive-end", late=True), 15)
    await told_plant(ledger, *wrong, late)
    as_told = (await stays_of(ledger, [component_stream(BEARING)], AsOf(position=9))).popitem()[1]
    assert [(stay.place, stay.ended_at) for stay in as_told] == [("asset:loop-2", None)]
    then = (await stays_of(ledger, [component_stream(BEARING)])).popitem()[1]
    assert [(stay.place, stay.ended_at) for stay in then] == [
        ("asset:loop-2", at(15)),
        ("asset:loop-1", at(20)),
    ]
    kinds = [finding.kind for finding in await list_findings(ledger, AsOf(position=9))]
    assert kinds == [FindingKind.NOT_THERE]
    kinds = [finding.kind for finding in await list_findings(ledger)]
    assert kinds == [FindingKind.NOT_REMOVED]


async def test_what_does_not_fit_together_is_shown_and_not_refused(ledger: Ledger) -> None:
    await told_plant(
        ledger,
        Told(ComponentRegistered("BRG-2", "bearing", "", None), 0),  # 8
        Told(ComponentInstalled(BEARING, "loop-1", "drive-end"), 1),  # 9
        Told(ComponentInstalled("BRG-2", "loop-1", "drive-end"), 5),  # 10: taken
        Told(ComponentRemoved(BEARING, "loop-1", "drive-end", "worn"), 6),  # 11
        Told(ComponentInstalled(BEARING, "loop-2", "drive-end"), 7),  # 12
        Told(ComponentScrapped(BEARING, "worn"), 8),  # 13: never removed
        Told(AssetPlaced("loop-1", "attic", None), 9),  # 14: nobody knows an attic
        Told(AssetPlaced("loop-2", "line", None), 9),  # 15
        Told(LocationRetired("line", "sold"), 10),  # 16
    )
    findings = await list_findings(ledger)
    assert [(f.kind, f.subject, f.place, f.other, f.source_position) for f in findings] == [
        (
            FindingKind.SLOT_TAKEN,
            component_stream("BRG-2"),
            "asset:loop-1",
            component_stream(BEARING),
            10,
        ),
        (FindingKind.NOT_REMOVED, component_stream(BEARING), None, None, 13),
        (FindingKind.IN_WHAT_IS_UNKNOWN, "asset:loop-1", "location:attic", None, 14),
        (FindingKind.IN_WHAT_ENDED, "asset:loop-2", "location:line", None, 15),
    ]
    assert [f.source_position for f in await list_findings(ledger, first=1)] == [10]
    beyond = await list_findings(ledger, first=2, after=10)
    assert [f.source_position for f in beyond] == [13, 14]
    before = await list_findings(ledger, AsOf(valid_at=at(9.5)))
    assert FindingKind.IN_WHAT_ENDED not in {f.kind for f in before}
    assert await list_findings(ledger, AsOf(position=9)) == []


# --- corrections --------------------------------------------------------------------------


async def test_a_correction_replaces_what_was_said_and_the_old_belief_stays(
    ledger: Ledger,
) -> None:
    installed = ComponentInstalled(BEARING, "loop-1", "drive-end")
    await told_plant(
        ledger,
        Told(installed, 10),  # 8
        Told(ComponentRemoved(BEARING, "loop-1", "fan-end", "worn"), 20),  # 9: not there
        Told(replace(installed, slot="fan-end"), 5, corrects=8),  # 10: it was the fan end
        Told(None, 0, corrects=9),  # 11: and it was never removed
        Told(replace(installed, slot="casing"), 6, corrects=8),  # 12: no, the casing
    )

    async def believed(position: int) -> list[tuple[str | None, datetime, datetime | None]]:
        as_of = AsOf(position=position)
        stays = (await stays_of(ledger, [component_stream(BEARING)], as_of)).popitem()[1]
        return [(stay.slot, stay.began_at, stay.ended_at) for stay in stays]

    assert await believed(8) == [("drive-end", at(10), None)]
    assert await believed(9) == [("drive-end", at(10), None)]
    assert await believed(10) == [("fan-end", at(5), at(20))]
    assert await believed(11) == [("fan-end", at(5), None)]
    assert await believed(12) == [("casing", at(6), None)]
    assert [f.kind for f in await list_findings(ledger, AsOf(position=9))] == [
        FindingKind.NOT_THERE
    ]
    assert await list_findings(ledger) == []


async def test_a_corrected_definition_changes_level_title_and_parent(ledger: Ledger) -> None:
    await told_plant(
        ledger, Told(LocationDefined("line", Level.CELL, "Cell 1", "works"), 0, corrects=4)
    )
    line = (await path_of(ledger, location_stream("line")))[-1]
    assert (line.item_type, line.title, line.parent) == ("CELL", "Cell 1", "location:works")
    line = (await path_of(ledger, location_stream("line"), AsOf(position=7)))[-1]
    assert (line.item_type, line.title, line.parent) == ("LINE", "Line", "location:hall")


async def test_corrections_of_other_records_change_nothing(ledger: Ledger) -> None:
    stream = "lot:L-1"
    wrong = correction_of(stream, uuid.uuid4(), 3, ComponentScrapped(BEARING, "worn"))
    fact = new_fact(stream, wrong, event_id=uuid.uuid4(), occurred_at=at(0), actor="user:mara")
    await tell(ledger, PLANT)
    await ledger.append([fact])
    await fold(ledger, PlantProjection())
    assert not (await path_of(ledger, component_stream(BEARING)))[-1].ended


# --- by command ---------------------------------------------------------------------------


async def test_a_plant_is_told_by_commands(ledger: Ledger) -> None:
    for minutes, command in (
        (0, DefineLocation("group", Level.ENTERPRISE, "Group")),
        (0, DefineLocation("line", Level.LINE, "Line", "group")),
        (1, RegisterAsset("loop-1", "skab-pump-loop", "Loop 1")),
        (2, PlaceAsset("loop-1", "line")),
        (3, RegisterComponent(BEARING, "bearing", "")),
        (4, InstallComponent(BEARING, "loop-1", "drive-end")),
        (9, RemoveComponent(BEARING, "loop-1", "drive-end", "worn")),
        (5, RemoveComponent(BEARING, "loop-1", "drive-end", "worn", late=True)),
        (6, InstallComponent(BEARING, "loop-1", "drive-end", late=True)),
    ):
        await handle(
            ledger,
            command,
            actor="user:mara",
            occurred_at=at(minutes),
            event_id=lambda _: uuid.uuid4(),
        )
    await fold(ledger, PlantProjection())
    stays = (await stays_of(ledger, [component_stream(BEARING)])).popitem()[1]
    assert [(stay.began_at, stay.ended_at) for stay in stays] == [(at(4), at(5)), (at(6), at(9))]
    path = await path_of(ledger, component_stream(BEARING), AsOf(valid_at=at(8)))
    assert [item.item_id for item in path] == ["group", "line", "loop-1", BEARING]
    assert await list_findings(ledger) == []


# --- any order ----------------------------------------------------------------------------

SLOTS = ("drive-end", "fan-end")
ASSETS = ("loop-1", "loop-2")
LOCATIONS = ("hall", "line")


def facts() -> st.SearchStrategy[Any]:
    slot, asset = st.sampled_from(SLOTS), st.sampled_from(ASSETS)
    component = st.sampled_from(["a", "b"])
    return st.one_of(
        st.builds(AssetPlaced, asset, st.sampled_from(LOCATIONS), st.none()),
        st.builds(AssetRetired, asset, st.just("sold")),
        st.builds(ComponentInstalled, component, asset, slot),
        st.builds(ComponentRemoved, component, asset, slot, st.just("")),
        st.builds(ComponentScrapped, component, st.just("")),
    )


def facts_of(subject: str) -> st.SearchStrategy[Any]:
    return facts().filter(lambda fact: stream_of(fact) == subject)


@st.composite
def histories(draw: st.DrawFn) -> list[Told]:
    """Return facts in any order of time, some at one moment, and corrections of some of them."""
    told = [Told(fact, draw(st.integers(0, 8))) for fact in draw(st.lists(facts(), max_size=12))]
    for _ in range(draw(st.integers(0, 4)) if told else 0):
        wrong = draw(st.integers(1, len(told)))
        if told[wrong - 1].corrects is None:
            subject = stream_of(told[wrong - 1].fact)
            right = draw(st.none() | facts_of(subject))
            told.append(Told(right, draw(st.integers(0, 8)), corrects=wrong))
    return told


def expected_place(told: Sequence[Told], subject: str, minutes: float) -> tuple[Any, ...] | None:
    """Return where `subject` is at a moment, by what was told: a walk through time."""
    true: dict[int, Told] = {}
    for position, one in enumerate(told, 1):
        if one.corrects is None:
            true[position] = one
        else:
            true[one.corrects] = replace(one, corrects=None)
    place: tuple[Any, ...] | None = None
    in_time = sorted(true.items(), key=lambda known: (known[1].minutes, known[0]))
    for _, one in in_time:
        if one.fact is None or stream_of(one.fact) != subject or one.minutes > minutes:
            continue
        match one.fact:
            case AssetPlaced(location_id=location_id):
                place = (location_stream(location_id), None)
            case ComponentInstalled(asset_id=asset_id, slot=slot):
                place = (asset_stream(asset_id), slot)
            case ComponentRemoved(asset_id=asset_id, slot=slot):
                place = None if place == (asset_stream(asset_id), slot) else place
            case AssetRetired() | ComponentScrapped():
                place = None
    return place


SUBJECTS = (*map(asset_stream, ASSETS), *map(component_stream, "ab"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=histories(),
    batch=st.integers(1, 20),
    probes=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 8)), min_size=1, max_size=3),
)
async def test_every_position_and_moment_is_right_whatever_the_order(
    pool: Pool, told: list[Told], batch: int, probes: list[tuple[int, int]]
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    try:
        if told:
            await tell(ledger, told)
        await fold(ledger, PlantProjection(), batch)
        for position, minutes in ((len(told), 8), *probes):
            as_of = AsOf(position=position, valid_at=at(minutes))
            for subject in SUBJECTS:
                item = (await path_of(ledger, subject, as_of))[-1]
                found = None if item.parent is None else (item.parent, item.slot)
                assert found == expected_place(told[:position], subject, minutes)
    finally:
        await ledger.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=histories(), batch=st.integers(1, 5))
async def test_the_size_of_a_batch_does_not_matter(
    pool: Pool, told: list[Told], batch: int
) -> None:
    ledgers = await fresh_ledgers(pool, 2)
    try:
        rows = []
        for ledger, size in zip(ledgers, (batch, 1000), strict=True):
            if told:
                await tell(ledger, told)
            await fold(ledger, PlantProjection(), size)
            order = "subject, facet, source_position, known_from"
            rows.append(await table(ledger, "plant_interval", order))
        assert rows[0] == rows[1]
    finally:
        for ledger in ledgers:
            await ledger.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=st.lists(facts(), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
)
async def test_facts_told_in_any_order_come_to_the_same_plant(
    pool: Pool, told: list[Any], seed: int
) -> None:
    in_time = [Told(fact, minutes) for minutes, fact in enumerate(told)]
    shuffled = random.Random(seed).sample(in_time, len(in_time))
    ledgers = await fresh_ledgers(pool, 2)
    try:
        stays = []
        for ledger, order in zip(ledgers, (in_time, shuffled), strict=True):
            await tell(ledger, order)
            await fold(ledger, PlantProjection(), 4)
            known = await stays_of(ledger, SUBJECTS)
            stays.append(
                {
                    subject: [replace(stay, source_position=0) for stay in of_subject]
                    for subject, of_subject in known.items()
                }
            )
        assert stays[0] == stays[1]
    finally:
        for ledger in ledgers:
            await ledger.close()
