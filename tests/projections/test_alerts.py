"""Alerts as rows: raised, acknowledged, cleared; found and listed."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

from domain.asset import AcknowledgeAlert, ClearAlert, EscalateAlert, RaiseAlert
from domain.asset_model import Severity
from eventlog.ledger import Ledger
from projections.alerts.projection import (
    AlertProjection,
    AlertRow,
    AlertState,
    alerts_of,
    find_alert,
    list_alerts,
)
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import LOOP, NOON, fold, register, table, told

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (uuid.UUID(int=n) for n in (1, 2, 3))


def raising(
    alert_id: uuid.UUID, severity: Severity = Severity.WARNING, asset: str = LOOP
) -> RaiseAlert:
    return RaiseAlert(
        asset_id=asset,
        alert_id=alert_id,
        rule="flow_low",
        severity=severity,
        channel="flow",
        value=4e-4,
        limit=5e-4,
        since=NOON - timedelta(seconds=30),
        message="flow is low",
    )


async def three_alerts(ledger: Ledger) -> None:
    """Have ONE cleared, TWO acknowledged and THREE, of another loop, raised."""
    await register(ledger)
    await register(ledger, "loop-2")
    await told(ledger, raising(ONE))
    await told(ledger, raising(TWO, Severity.CRITICAL))
    await told(ledger, raising(THREE, asset="loop-2"))
    await told(ledger, AcknowledgeAlert(LOOP, TWO, "on my way"), NOON + timedelta(seconds=5))
    await told(ledger, ClearAlert(LOOP, ONE, 6e-4), NOON + timedelta(seconds=9))


async def test_an_alert_keeps_its_whole_story(ledger: Ledger) -> None:
    await register(ledger)
    await told(ledger, raising(ONE))
    await fold(ledger, AlertProjection())
    raised = AlertRow(
        alert_id=ONE,
        position=2,
        asset_id=LOOP,
        rule="flow_low",
        severity=Severity.WARNING,
        channel="flow",
        value=4e-4,
        limit=5e-4,
        message="flow is low",
        since=NOON - timedelta(seconds=30),
        raised_at=NOON,
        acknowledged_at=None,
        acknowledged_by=None,
        note=None,
        cleared_at=None,
    )
    assert await find_alert(ledger, ONE) == raised
    assert raised.state is AlertState.RAISED
    await told(ledger, AcknowledgeAlert(LOOP, ONE, "seen"), NOON + timedelta(seconds=5))
    await fold(ledger, AlertProjection(), after=2)
    seen = await find_alert(ledger, ONE)
    assert seen is not None
    assert seen.state is AlertState.ACKNOWLEDGED
    assert (seen.acknowledged_at, seen.acknowledged_by, seen.note) == (
        NOON + timedelta(seconds=5),
        "user:mara",
        "seen",
    )
    await told(ledger, ClearAlert(LOOP, ONE, 6e-4), NOON + timedelta(seconds=9))
    await fold(ledger, AlertProjection(), after=3)
    gone = await find_alert(ledger, ONE)
    assert gone is not None
    assert gone.state is AlertState.CLEARED
    assert gone.cleared_at == NOON + timedelta(seconds=9)
    assert (gone.acknowledged_by, gone.value, gone.position) == ("user:mara", 4e-4, 2)


async def test_an_alert_keeps_its_last_escalation(ledger: Ledger) -> None:
    await register(ledger)
    await told(ledger, raising(ONE))
    await told(ledger, raising(TWO))
    for level, to in ((1, "shift lead"), (3, "plant manager")):
        at = NOON + timedelta(minutes=level)
        await told(ledger, EscalateAlert(LOOP, ONE, level, to, f"nobody came: {level}"), at)
    await fold(ledger, AlertProjection())
    one, two = await find_alert(ledger, ONE), await find_alert(ledger, TWO)
    assert one is not None
    assert two is not None
    assert (one.escalation_level, one.escalated_to) == (3, "plant manager")
    assert (one.escalated_at, one.escalation_reason) == (
        NOON + timedelta(minutes=3),
        "nobody came: 3",
    )
    assert one.state is AlertState.RAISED
    assert (two.escalation_level, two.escalated_at, two.escalated_to) == (None, None, None)


async def test_batch_sizes_and_folding_twice_do_not_matter(
    ledger: Ledger, database_url: str
) -> None:
    async with opened(database_url, "plant-2") as other:
        for log, batch in ((ledger, 1), (other, 1000)):
            await three_alerts(log)
            await fold(log, AlertProjection(), batch)
        once = await table(ledger, "alert", "position")
        assert len(once) == 3
        assert await table(other, "alert", "position") == once
    await fold(ledger, AlertProjection(), 2)
    assert await table(ledger, "alert", "position") == once


async def test_alerts_are_listed_newest_first_and_filtered(ledger: Ledger) -> None:
    await three_alerts(ledger)
    await fold(ledger, AlertProjection())

    async def listed(**wanted: object) -> list[int]:
        rows = await list_alerts(ledger, first=10, **wanted)  # type: ignore[arg-type]
        return [row.alert_id.int for row in rows]

    assert await listed() == [3, 2, 1]
    assert await listed(asset_ids=[LOOP]) == [2, 1]
    assert await listed(severities=[Severity.CRITICAL]) == [2]
    assert await listed(states=[AlertState.RAISED]) == [3]
    assert await listed(states=[AlertState.ACKNOWLEDGED]) == [2]
    assert await listed(states=[AlertState.CLEARED, AlertState.RAISED]) == [3, 1]
    assert await listed(asset_ids=["loop-2"], severities=[Severity.CRITICAL]) == []


async def test_pages_of_alerts_join_without_gap_or_overlap(ledger: Ledger) -> None:
    await three_alerts(ledger)
    await fold(ledger, AlertProjection())
    before, seen = None, []
    while page := await list_alerts(ledger, before=before, first=1):
        assert len(page) == 1
        before = page[0].position
        seen.append(page[0].alert_id)
    assert seen == [THREE, TWO, ONE]


async def test_an_acknowledged_alert_that_cleared_is_listed_as_cleared(ledger: Ledger) -> None:
    await three_alerts(ledger)
    await told(ledger, ClearAlert(LOOP, TWO, 6e-4))
    await fold(ledger, AlertProjection())
    assert await list_alerts(ledger, first=9, states=[AlertState.ACKNOWLEDGED]) == []
    cleared = await list_alerts(ledger, first=9, states=[AlertState.CLEARED])
    assert [row.alert_id for row in cleared] == [TWO, ONE]


async def test_alerts_of_another_ledger_are_not_seen(ledger: Ledger, database_url: str) -> None:
    await three_alerts(ledger)
    await fold(ledger, AlertProjection())
    async with opened(database_url, "plant-2") as other:
        assert await find_alert(other, ONE) is None
        assert await list_alerts(other, first=9) == []
    assert await find_alert(ledger, uuid.UUID(int=9)) is None


async def test_alerts_of_several_assets_are_those_of_each_alone(ledger: Ledger) -> None:
    await three_alerts(ledger)
    await told(ledger, raising(uuid.UUID(int=4), asset="loop-2"))
    await fold(ledger, AlertProjection())
    assets = ["loop-2", LOOP, "loop-9"]
    choices: tuple[dict[str, Any], ...] = (
        {"first": 10},
        {"first": 1},
        {"first": 10, "before": 4},
        {"first": 10, "severities": [Severity.CRITICAL]},
        {"first": 10, "states": [AlertState.RAISED, AlertState.CLEARED]},
    )
    for wanted in choices:
        found = await alerts_of(ledger, assets, **wanted)
        assert found == {
            asset: await list_alerts(ledger, asset_ids=[asset], **wanted) for asset in assets
        }
    everything = await alerts_of(ledger, [*assets, LOOP], first=10)
    assert {asset: [row.alert_id.int for row in rows] for asset, rows in everything.items()} == {
        "loop-2": [4, 3],
        LOOP: [2, 1],
        "loop-9": [],
    }
    assert await alerts_of(ledger, [], first=10) == {}
