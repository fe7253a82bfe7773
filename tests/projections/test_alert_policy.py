"""The alert policy raises and clears each alert once, whatever is folded again."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.asset import AcknowledgeAlert, AlertCleared, AlertRaised, RetireAsset
from domain.asset_model import Severity
from domain.errors import InvalidInput
from domain.frames import Frame
from eventlog.ledger import Ledger
from eventlog.reading import EventFilter, read_page
from projections.alerts.policy import AlertPolicy, pack_state, unpack_state
from projections.alerts.rule_states import RuleState, Seconds
from tests.eventlog.new_events import opened
from tests.projections.loop_frames import (
    LOOP,
    PATIENCE_S,
    fold,
    loop_frame,
    record,
    register,
    running,
    seconds_ns,
    si,
    skab_frames,
    table,
    told,
)

pytestmark = pytest.mark.anyio

FAULTY = "valve1/9"
"""Raises and clears both rules: four events."""

Outcome = tuple[str, str, Any]


async def outcomes(ledger: Ledger) -> list[Outcome]:
    """Return (kind, rule or alert, value) of every alert event in the log, in its order."""
    wanted = EventFilter(types=("asset.alert_raised", "asset.alert_cleared"))
    rules: dict[Any, str] = {}
    found: list[Outcome] = []
    for event in await read_page(ledger, 0, wanted=wanted):
        match event.fact:
            case AlertRaised() as raised:
                rules[raised.alert_id] = raised.rule
                found.append(("raised", raised.rule, raised.value))
            case AlertCleared() as cleared:
                found.append(("cleared", rules[cleared.alert_id], cleared.value))
    return found


async def folded_in_one_go(ledger: Ledger, frames: Sequence[Frame]) -> list[Outcome]:
    await register(ledger)
    await record(ledger, frames)
    await fold(ledger, AlertPolicy())
    return await outcomes(ledger)


async def test_a_labelled_fault_raises_and_clears_each_rule_once(ledger: Ledger) -> None:
    found = await folded_in_one_go(ledger, skab_frames(FAULTY, 60))
    assert [(kind, rule) for kind, rule, _ in found] == [
        ("raised", "flow_restricted"),
        ("raised", "flow_low"),
        ("cleared", "flow_low"),
        ("cleared", "flow_restricted"),
    ]


async def test_an_alert_says_what_was_wrong_and_which_frame_told(ledger: Ledger) -> None:
    await folded_in_one_go(ledger, skab_frames(FAULTY, 60))
    wanted = EventFilter(types=("asset.alert_raised",))
    low = next(e for e in await read_page(ledger, 0, wanted=wanted) if e.fact.rule == "flow_low")
    raised = low.fact
    assert (raised.asset_id, raised.channel) == (LOOP, "flow")
    assert raised.severity is Severity.CRITICAL
    assert raised.value < raised.limit == si("flow", [30.25])[0]
    assert (low.occurred_at - raised.since).total_seconds() == 30
    assert low.actor == "policy:alerts"
    causes = [e for e in await read_page(ledger, 0) if e.event_id == low.causation_id]
    assert [cause.is_frame for cause in causes] == [True]
    # The second in question was complete when the cause's frame came.
    assert causes[0].occurred_at >= low.occurred_at


@pytest.mark.parametrize("length", [7, 500])
async def test_the_cut_into_frames_and_batches_changes_nothing(
    ledger: Ledger, database_url: str, length: int
) -> None:
    expected = await folded_in_one_go(ledger, skab_frames(FAULTY, 60))
    async with opened(database_url, "plant-2") as other:
        await register(other)
        await record(other, skab_frames(FAULTY, length))
        await fold(other, AlertPolicy(), 3)
        # Within one frame each rule is run to its end before the next one.
        assert by_rule(await outcomes(other)) == by_rule(expected)


def by_rule(found: list[Outcome]) -> list[Outcome]:
    return sorted(found, key=lambda outcome: outcome[1])


class PowerCut(Exception):
    """What ends a transaction in these tests."""


async def fold_and_lose(ledger: Ledger) -> None:
    """Fold the whole log and roll back, as a crash before the commit does."""
    page = await read_page(ledger, 0, limit=1000)
    with contextlib.suppress(PowerCut):
        async with ledger.pool.acquire() as connection, connection.transaction():
            await AlertPolicy().fold(connection, ledger, page)
            raise PowerCut


async def test_a_crash_between_command_and_checkpoint_raises_nothing_twice(
    ledger: Ledger, database_url: str
) -> None:
    async with opened(database_url, "plant-2") as other:
        expected = await folded_in_one_go(other, skab_frames(FAULTY, 60))
    await register(ledger)
    await record(ledger, skab_frames(FAULTY, 60))
    await fold_and_lose(ledger)
    assert await outcomes(ledger) == expected
    assert await table(ledger, "alert_policy_rule", "rule") == []
    head = await ledger.head()
    await fold_and_lose(ledger)
    await fold(ledger, AlertPolicy(), 5)
    assert await outcomes(ledger) == expected
    assert await ledger.head() == head


async def test_a_crash_in_the_middle_of_an_alert_leaves_one_alert(ledger: Ledger) -> None:
    frames = skab_frames(FAULTY, 60)
    await register(ledger)
    await record(ledger, frames[:12])
    await fold_and_lose(ledger)
    assert [kind for kind, _, _ in await outcomes(ledger)] == ["raised", "raised"]
    await record(ledger, frames[12:])
    await fold(ledger, AlertPolicy())
    assert [(kind, rule) for kind, rule, _ in await outcomes(ledger)] == [
        ("raised", "flow_restricted"),
        ("raised", "flow_low"),
        ("cleared", "flow_low"),
        ("cleared", "flow_restricted"),
    ]


async def test_two_policies_at_once_command_once(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.running.runner.BATCH_EVENTS_MAX", 3)
    await register(ledger)
    async with (
        opened(database_url) as other,
        running(ledger, database_url, AlertPolicy()) as (one,),
        running(other, database_url, AlertPolicy()) as (two,),
    ):
        for frame in skab_frames(FAULTY, 60):
            await record(ledger, [frame])
            await asyncio.sleep(0)
        head = await ledger.head()
        await one.wait_for(head, PATIENCE_S)
        await two.wait_for(head, PATIENCE_S)
        assert (one.failure, two.failure) == (None, None)
    assert len(await outcomes(ledger)) == 4


async def test_late_frames_raise_nothing(ledger: Ledger) -> None:
    await register(ledger)
    flow = {"flow": [32.0] * 10}
    await record(ledger, [loop_frame(1, seconds_ns(*range(100, 110)), flow)])
    low = {"flow": [5.0] * 90}
    await record(ledger, [loop_frame(2, seconds_ns(*range(90)), low)])
    await fold(ledger, AlertPolicy())
    assert await outcomes(ledger) == []


async def test_bad_readings_raise_nothing(ledger: Ledger) -> None:
    await register(ledger)
    for n, quality in enumerate((1, 2, 3)):
        times = seconds_ns(*range(100 * n, 100 * n + 90))
        flow = {"flow": [5.0] * 90}
        await record(ledger, [loop_frame(n + 1, times, flow, qualities={"flow": [quality] * 90})])
    await fold(ledger, AlertPolicy())
    assert await outcomes(ledger) == []


async def test_a_retired_asset_gets_no_alert_and_stops_nobody(ledger: Ledger) -> None:
    await register(ledger)
    await register(ledger, "loop-2")
    await told(ledger, RetireAsset(LOOP, "scrapped"))
    low = {"flow": [5.0] * 60}
    times = seconds_ns(*range(60))
    await record(
        ledger,
        [loop_frame(n + 1, times, low, asset=asset) for n, asset in enumerate((LOOP, "loop-2"))],
    )
    await fold(ledger, AlertPolicy(), 2)
    wanted = EventFilter(types=("asset.alert_raised",))
    assert [e.fact.asset_id for e in await read_page(ledger, 0, wanted=wanted)] == ["loop-2"]


async def test_an_alert_of_an_asset_retired_meanwhile_is_let_go(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(*range(60)), {"flow": [5.0] * 60})])
    page = await read_page(ledger, 0)
    await told(ledger, RetireAsset(LOOP, "scrapped"))
    async with ledger.pool.acquire() as connection, connection.transaction():
        await AlertPolicy().fold(connection, ledger, page)
    assert await outcomes(ledger) == []


async def test_an_acknowledged_alert_still_clears(ledger: Ledger) -> None:
    await register(ledger)
    await record(ledger, [loop_frame(1, seconds_ns(*range(60)), {"flow": [5.0] * 60})])
    await fold(ledger, AlertPolicy())
    (raised,) = await read_page(ledger, 0, wanted=EventFilter(types=("asset.alert_raised",)))
    await told(ledger, AcknowledgeAlert(LOOP, raised.fact.alert_id))
    await record(ledger, [loop_frame(2, seconds_ns(*range(60, 90)), {"flow": [32.0] * 30})])
    await fold(ledger, AlertPolicy(), after=2)
    assert [kind for kind, _, _ in await outcomes(ledger)] == ["raised", "cleared"]


# --- memory -------------------------------------------------------------------------------

_int64 = st.integers(-(2**63), 2**63 - 1)
_moment = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)


@st.composite
def seconds(draw: st.DrawFn) -> Seconds:
    length = draw(st.integers(0, 20))
    column = st.lists(_int64, min_size=length, max_size=length)
    return Seconds(*(np.array(draw(column), np.int64) for _ in range(3)))


@given(
    st.builds(
        RuleState,
        history=seconds(),
        open=seconds(),
        pending_since_s=_moment,
        raised_at_s=_moment,
        clearing_since_s=_moment,
        frozen_baseline=st.none() | st.floats(allow_nan=False),
    )
)
def test_a_state_comes_back_as_it_was_packed(state: RuleState) -> None:
    restored = unpack_state(pack_state(state))
    for name in ("pending_since_s", "raised_at_s", "clearing_since_s", "frozen_baseline"):
        assert getattr(restored, name) == getattr(state, name)
    for name in ("history", "open"):
        for field in fields(Seconds):
            before = getattr(getattr(state, name), field.name)
            assert getattr(getattr(restored, name), field.name).tolist() == before.tolist()


def test_a_state_of_the_first_version_still_loads() -> None:
    columns = np.array([[7, 8], [-3, 4], [1, 2]], np.int64)
    packed = struct.pack("<BqqqdII", 1, 5, -(2**63), -(2**63), np.nan, 1, 1) + zlib.compress(
        b"".join(columns[:, place].tobytes() for place in range(2))
    )
    state = unpack_state(packed)
    assert (state.pending_since_s, state.raised_at_s, state.frozen_baseline) == (5, None, None)
    for place, part in enumerate((state.history, state.open)):
        assert [part.second, part.total, part.count] == columns[:, place : place + 1].tolist()


def test_a_state_of_another_version_is_refused() -> None:
    packed = pack_state(RuleState())
    with pytest.raises(InvalidInput) as refused:
        unpack_state(b"\x03" + packed[1:])
    assert (refused.value.code, refused.value.value, refused.value.limit) == (
        "alert_policy.state_version",
        3,
        2,
    )
