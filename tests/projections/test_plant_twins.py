"""Twins of locations, rolled up from their assets, and of components in their slots."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from domain.asset import (
    AssetPlaced,
    AssetRegistered,
    AssetRetired,
    RaiseAlert,
)
from domain.asset_model import Severity
from domain.errors import InvalidInput, NotFound
from domain.health import HealthStatus
from domain.plant.component import ComponentInstalled, ComponentRegistered, ComponentRemoved
from domain.plant.location import (
    Level,
    LocationDefined,
    LocationRetired,
    RollUp,
    RollUpDeclared,
)
from domain.plant.roll_up import MemberHealth, Rule
from eventlog.database import Pool
from eventlog.envelope import new_fact
from eventlog.ledger import Ledger
from projections.alerts.projection import AlertProjection
from projections.as_of import AsOf
from projections.plant import twins as plant_twins
from projections.plant.projection import PlantProjection
from projections.plant.twins import TwinKind, component_twins, location_twins
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import Connectivity, TwinProjection
from tests.projections.loop_frames import NOON, fold, loop_frame, record, seconds_ns, told
from tests.projections.plant_history import Told, at, stream_of, tell

pytestmark = pytest.mark.anyio

NOW_S = NOON + timedelta(seconds=5)
GOOD = MemberHealth(HealthStatus.GOOD, 1.0)
BAD = MemberHealth(HealthStatus.WARNING, 0.5)
UNKNOWN = MemberHealth(HealthStatus.UNKNOWN, None)


async def plant_of_three_loops(ledger: Ledger) -> None:
    """Tell of a works with two lines: two loops in the first and one in the second.

    The supply of loop-1 is good, that of loop-2 half-way to critical; nobody has heard loop-3.
    """
    loops = ("loop-1", "loop-2", "loop-3")
    lines = ("line-1", "line-1", "line-2")
    await tell(
        ledger,
        [
            Told(LocationDefined("works", Level.SITE, "Works", None), -2),
            Told(LocationDefined("line-1", Level.LINE, "Line 1", "works"), -2),
            Told(LocationDefined("line-2", Level.LINE, "Line 2", "works"), -2),
            *(Told(AssetRegistered(loop, "skab-pump-loop", loop), -2) for loop in loops),
            *(
                Told(AssetPlaced(loop, line, None), -1)
                for loop, line in zip(loops, lines, strict=True)
            ),
        ],
    )
    supply = {"loop-1": 230.0, "loop-2": 212.0}
    await record(
        ledger,
        [
            loop_frame(
                1, seconds_ns(0), {"supply_voltage": [volts]}, asset=loop, agent=f"agent-{loop}"
            )
            for loop, volts in supply.items()
        ],
    )


async def fold_all(ledger: Ledger, after: int = 0) -> None:
    for projection in (PlantProjection(), TwinProjection(), AlertProjection()):
        await fold(ledger, projection, after=after)


async def test_a_location_is_as_each_level_declares(ledger: Ledger) -> None:
    await plant_of_three_loops(ledger)
    await fold_all(ledger)
    twins = await location_twins(ledger, "works", NOW_S)
    works, line_1, line_2 = (twins.locations[name] for name in ("works", "line-1", "line-2"))
    assert next(iter(twins.locations)) == "works"
    assert (line_1.health, line_1.connectivity, line_1.kind) == (
        *(BAD, Connectivity.ONLINE, TwinKind.PROCESS),
    )
    assert (line_2.health, line_2.connectivity) == (UNKNOWN, Connectivity.NEVER_SEEN)
    assert (works.health, works.kind, works.members) == (BAD, TwinKind.SYSTEM, 2)
    assert works.connectivity is Connectivity.NEVER_SEEN
    assert works.assets == {
        HealthStatus.GOOD: 1,
        HealthStatus.WARNING: 1,
        HealthStatus.UNKNOWN: 1,
    }
    assert works.connected == {Connectivity.ONLINE: 2, Connectivity.NEVER_SEEN: 1}
    assert [(each.stream, each.health) for each in works.concerns] == [
        ("location:line-1", BAD),
        ("location:line-2", UNKNOWN),
    ]
    assert [each.stream for each in line_1.concerns] == ["asset:loop-2"]
    assert (line_1.parent_id, works.parent_id, works.level) == ("works", None, Level.SITE)


async def test_a_rule_is_declared_and_changed_for_a_level(ledger: Ledger) -> None:
    await plant_of_three_loops(ledger)
    await fold_all(ledger)
    head = await ledger.head()
    await tell_more(
        ledger,
        Told(RollUpDeclared("line-1", RollUp.K_OF_N, 1), 0),
        Told(RollUpDeclared("works", RollUp.MEAN, None), 0),
    )
    await fold_all(ledger, after=head)
    twins = (await location_twins(ledger, "works", NOW_S)).locations
    assert (twins["line-1"].rule, twins["line-1"].health) == (Rule(RollUp.K_OF_N, 1), GOOD)
    assert twins["works"].health == UNKNOWN  # one good line, and one nobody has heard
    assert twins["works"].connectivity is Connectivity.STALE  # the mean of online and never seen


async def tell_more(ledger: Ledger, *more: Told) -> None:
    await ledger.append(
        [
            new_fact(
                stream_of(one.fact),
                one.fact,
                event_id=uuid.uuid4(),
                occurred_at=at(one.minutes),
                actor="user:mara",
            )
            for one in more
        ]
    )


async def test_alerts_and_silence_reach_the_top(ledger: Ledger) -> None:
    await plant_of_three_loops(ledger)
    alert = RaiseAlert(
        *("loop-1", uuid.UUID(int=1), "flow_low", Severity.CRITICAL, "flow", 1.0, 2.0, NOON, "low")
    )
    await told(ledger, alert)
    await fold_all(ledger)
    twins = await location_twins(ledger, "works", NOON + timedelta(hours=1))
    works = twins.locations["works"]
    assert works.open_alert_count == 1
    assert works.health == MemberHealth(HealthStatus.CRITICAL, 0.0)
    assert twins.locations["line-1"].connectivity is Connectivity.STALE
    assert twins.assets["loop-1"].open_alert_count == 1


async def test_what_was_retired_or_given_up_does_not_count(ledger: Ledger) -> None:
    await plant_of_three_loops(ledger)
    await tell_more(
        ledger,
        Told(AssetRetired("loop-2", "sold"), 0),
        Told(LocationRetired("line-2", "sold"), 0),
    )
    await fold_all(ledger)
    twins = (await location_twins(ledger, "works", NOW_S)).locations
    assert list(twins) == ["works", "line-1"]
    assert (twins["works"].health, twins["works"].members) == (GOOD, 1)
    assert twins["works"].assets == {HealthStatus.GOOD: 1}


async def test_a_location_s_twin_is_asked_for_as_of_an_earlier_time(ledger: Ledger) -> None:
    await plant_of_three_loops(ledger)
    await fold_all(ledger)
    await fold(ledger, TwinHistoryProjection())
    live = await location_twins(ledger, "works", NOW_S)
    head = await ledger.head()
    await tell_more(ledger, Told(AssetPlaced("loop-2", "line-2", "line-1"), 0.05))
    await fold_all(ledger, after=head)
    then = await location_twins(ledger, "works", NOW_S, AsOf(position=head))
    assert (then.locations, then.assets.keys()) == (live.locations, live.assets.keys())
    now = (await location_twins(ledger, "works", NOW_S)).locations
    assert (now["line-1"].health, now["line-2"].health) == (GOOD, BAD)
    before = await location_twins(ledger, "works", NOW_S, AsOf(valid_at=NOON))
    assert before.locations["line-1"].health == BAD


async def test_an_empty_location_is_unknown_and_an_undefined_one_is_not_found(
    ledger: Ledger,
) -> None:
    await tell(ledger, [Told(LocationDefined("works", Level.SITE, "Works", None), 0)])
    await fold_all(ledger)
    works = (await location_twins(ledger, "works", NOW_S)).locations["works"]
    assert (works.health, works.connectivity, works.members) == (UNKNOWN, None, 0)
    with pytest.raises(NotFound) as missing:
        await location_twins(ledger, "attic", NOW_S)
    assert (missing.value.code, missing.value.value) == ("location.unknown", "attic")


class CountedPool:
    """A pool that counts the statements sent through it."""

    def __init__(self, pool: Pool) -> None:
        self.statements = 0
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "fetch", "fetchrow", "fetchval"):
            self.statements += 1
        return getattr(self._pool, name)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        async with self._pool.acquire() as connection:
            with connection.query_logger(self._count):
                yield connection

    async def _count(self, _record: Any) -> None:
        self.statements += 1


async def test_twins_of_a_plant_cost_few_statements_and_have_a_bound(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await plant_of_three_loops(ledger)
    await fold_all(ledger)
    counts = []
    for name in ("line-2", "works"):
        counted = CountedPool(ledger.pool)
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "pool", counted)
            await location_twins(ledger, name, NOW_S)
        counts.append(counted.statements)
    assert 0 < counts[0] == counts[1]
    monkeypatch.setattr(plant_twins, "ASSETS_MAX", 2)
    with pytest.raises(InvalidInput) as refused:
        await location_twins(ledger, "works", NOW_S)
    assert (refused.value.code, refused.value.value) == ("plant.too_large", 3)


# --- components ---------------------------------------------------------------------------


async def test_a_component_s_twin_knows_its_slot_and_how_long_it_has_served(
    ledger: Ledger,
) -> None:
    await tell(
        ledger,
        [
            Told(AssetRegistered("loop-1", "skab-pump-loop", "Loop 1"), 0),
            Told(ComponentRegistered("BRG-1", "bearing", "Drive end", "SN-1"), 0),
            Told(ComponentRegistered("BRG-2", "bearing", "Fan end", None), 0),
            Told(ComponentInstalled("BRG-1", "loop-0", "drive-end"), 10),
            Told(ComponentRemoved("BRG-1", "loop-0", "drive-end", "moved"), 20),
            Told(ComponentInstalled("BRG-1", "loop-1", "drive-end"), 30),
            Told(ComponentInstalled("BRG-2", "loop-1", "fan-end"), 31),
            Told(ComponentRemoved("BRG-2", "loop-1", "fan-end", "worn"), 41),
        ],
    )
    await fold(ledger, PlantProjection())

    async def twins(moment: datetime, **as_of: Any) -> list[tuple[str, str, float]]:
        found = await component_twins(ledger, ["loop-1", "loop-9"], moment, AsOf(**as_of))
        assert found["loop-9"] == []
        return [(each.component_id, each.slot, each.installed_s) for each in found["loop-1"]]

    assert await twins(at(40)) == [
        ("BRG-1", "drive-end", 20 * 60.0),
        ("BRG-2", "fan-end", 9 * 60.0),
    ]
    assert await twins(at(50)) == [("BRG-1", "drive-end", 30 * 60.0)]
    assert await twins(at(50), valid_at=at(30.5)) == [("BRG-1", "drive-end", 10.5 * 60.0)]
    assert await twins(at(50), position=6) == [("BRG-1", "drive-end", 30 * 60.0)]
    (bearing,) = (await component_twins(ledger, ["loop-1"], at(50)))["loop-1"]
    assert (bearing.part_id, bearing.title, bearing.installed_at, bearing.kind) == (
        *("SN-1", "Drive end", at(30), TwinKind.COMPONENT),
    )
