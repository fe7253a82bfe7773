"""Twins as they were: equal to what the live twin was, and to what was true at a moment."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.asset import (
    AlertCleared,
    AlertRaised,
    AssetCommissioned,
    AssetRegistered,
    AssetRetired,
    SetpointDesired,
    SetpointReported,
    asset_stream,
    telemetry_stream,
)
from domain.asset_model import Severity
from domain.errors import InvalidInput, Unavailable
from domain.frames import ChannelHeader, Frame, FrameHeader, build_frame, time_from_ns
from domain.records import Meaning, RecordSigned
from domain.units import unit
from eventlog.database import Pool
from eventlog.envelope import NewEvent, new_fact, new_frame
from eventlog.erasure import erase
from eventlog.ledger import Ledger
from projections.alerts.projection import AlertProjection
from projections.as_of import NOW, AsOf
from projections.plant.projection import PlantProjection
from projections.running.content import check
from projections.twins import facts as twin_facts
from projections.twins import history as twin_history
from projections.twins.as_of import twin_as_of
from projections.twins.history import TwinHistoryProjection
from projections.twins.projection import (
    AssetRow,
    Twin,
    TwinProjection,
    find_asset,
    twins_by_asset_id,
)
from tests.domain.corrections import correction_of
from tests.projections.loop_frames import (
    LOOP,
    NOON,
    PATIENCE_S,
    fold,
    fresh_ledgers,
    running,
    seconds_ns,
    table,
)

pytestmark = pytest.mark.anyio

LATER = NOON + timedelta(hours=1)
registered = AssetRegistered(LOOP, "skab-pump-loop", "Loop 1")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def two_channel_frame(
    sequence: int,
    seconds: Sequence[float],
    qualities: Sequence[int],
    channels: Sequence[str] = ("flow", "mode"),
) -> Frame:
    """Return a frame of a flow and of a mode, which is text; values tell frame and place."""
    flow = unit("l/min")
    headers = {
        "flow": ChannelHeader("flow", "l/min", flow.factor, flow.offset),
        "mode": ChannelHeader("mode", "1", 1.0, 0.0, "str"),
    }
    columns: dict[str, Any] = {
        "flow": np.array([10.0 * sequence + n for n in range(len(seconds))]),
        "mode": np.array([f"{sequence}/{n}" for n in range(len(seconds))], object),
    }
    return build_frame(
        FrameHeader(LOOP, "agent-1", tuple(headers[name] for name in channels)),
        sequence,
        [seconds_ns(*seconds)],
        [columns[name] for name in channels],
        [np.array(qualities, np.uint8) for _ in channels],
    )


def frame_event(frame: Frame) -> NewEvent:
    return new_frame(
        telemetry_stream(LOOP),
        frame,
        event_id=uuid.uuid4(),
        occurred_at=time_from_ns(frame.window_end_ns),
    )


def fact_event(fact: Any, moment: datetime, event_id: uuid.UUID | None = None) -> NewEvent:
    return new_fact(
        asset_stream(LOOP),
        fact,
        event_id=event_id or uuid.uuid4(),
        occurred_at=moment,
        actor="user:mara",
    )


async def live_twin(ledger: Ledger, now: datetime) -> tuple[AssetRow, Twin] | None:
    """Return what the rows say; the position of a twin is the runner's, which is not here."""
    asset = await find_asset(ledger, LOOP)
    if asset is None:
        return None
    twin = (await twins_by_asset_id(ledger, [asset], now))[LOOP]
    return asset, replace(twin, position=0)


async def twin_then(ledger: Ledger, as_of: AsOf, now: datetime) -> tuple[AssetRow, Twin] | None:
    found = await twin_as_of(ledger, LOOP, as_of, judged_at=now)
    return None if found is None else (found[0], replace(found[1], position=0))


# --- any log ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A fact, and when it was true in seconds after noon."""

    fact: Any
    seconds: int


ALERTS = [uuid.UUID(int=n) for n in (1, 2)]
alert_facts = st.sampled_from(ALERTS).flatmap(
    lambda alert_id: st.sampled_from(
        [
            AlertRaised(
                *(LOOP, alert_id, "flow_low", Severity.CRITICAL, "flow", 4e-4, 5e-4, NOON, "low")
            ),
            AlertCleared(LOOP, alert_id, 6e-4),
        ]
    )
)
facts = st.one_of(
    st.just(AssetCommissioned(LOOP)),
    st.just(AssetRetired(LOOP, "sold")),
    st.builds(SetpointDesired, st.just(LOOP), st.sampled_from(["flow", "x"]), st.floats(0, 1)),
    st.builds(SetpointReported, st.just(LOOP), st.sampled_from(["flow", "x"]), st.floats(0, 1)),
    alert_facts,
)


@st.composite
def frames(draw: st.DrawFn) -> tuple[list[int], list[int], tuple[str, ...]]:
    length = draw(st.integers(1, 3))
    start = draw(st.integers(0, 12))
    return (
        [start + n for n in range(length)],
        draw(st.lists(st.integers(0, 3), min_size=length, max_size=length)),
        draw(st.sampled_from([("flow",), ("mode",), ("flow", "mode")])),
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Said | Frame]:
    """Return facts and frames in any order of time; the asset is registered at some place."""
    told: list[Said | Frame] = []
    for sequence in range(1, draw(st.integers(1, 20)) + 1):
        if draw(st.booleans()):
            told.append(two_channel_frame(sequence, *draw(frames())))
        else:
            told.append(Said(draw(facts), draw(st.integers(0, 12))))
    first = next((n for n, one in enumerate(told) if isinstance(one, Said)), len(told))
    told.insert(draw(st.integers(0, first)), Said(registered, draw(st.integers(0, 12))))
    return told


def event_of(one: Said | Frame) -> NewEvent:
    return fact_event(one.fact, at(one.seconds)) if isinstance(one, Said) else frame_event(one)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=logs(), row_frames=st.integers(1, 5), batch=st.integers(1, 9))
async def test_as_of_every_position_a_twin_is_what_it_was_then(
    pool: Pool, told: list[Said | Frame], row_frames: int, batch: int
) -> None:
    (ledger,) = await fresh_ledgers(pool, 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(twin_history, "ROW_FRAMES", row_frames)
        try:
            then = []
            for position, one in enumerate(told, 1):
                await ledger.append([event_of(one)])
                await fold(ledger, TwinProjection(), after=position - 1)
                await fold(ledger, AlertProjection(), after=position - 1)
                then.append(await live_twin(ledger, LATER))
            await fold(ledger, TwinHistoryProjection(), batch)
            for position, expected in enumerate(then, 1):
                assert await twin_then(ledger, AsOf(position=position), LATER) == expected
            assert await twin_then(ledger, NOW, LATER) == then[-1]
        finally:
            await ledger.close()


def cut(frame: Frame, seconds: int) -> Frame | None:
    """Return `frame` as if it had ended at so many seconds after noon."""
    count = int((frame.clocks[0] <= seconds_ns(seconds)[0]).sum())
    if count == 0:
        return None
    return build_frame(
        frame.header,
        frame.sequence,
        [frame.clocks[0][:count]],
        [column[:count] for column in frame.values],
        [quality[:count] for quality in frame.qualities],
    )


def true_by(told: Sequence[Said | Frame], seconds: int) -> list[NewEvent]:
    """Return a log of nothing but what was true by a moment, facts in the order of time."""
    said = [one for one in told if isinstance(one, Said)]
    first = [one for one in said if one.fact == registered]
    others = [one for one in said if one.fact != registered and one.seconds <= seconds]
    short = (cut(one, seconds) for one in told if isinstance(one, Frame))
    return [
        *map(event_of, first),
        *map(event_of, sorted(others, key=lambda one: one.seconds)),
        *(frame_event(frame) for frame in short if frame is not None),
    ]


def about(found: tuple[AssetRow, Twin] | None) -> Any:
    """Return what does not depend on how many events a log has; means to some digits."""
    if found is None:
        return None
    asset, twin = found
    readings = tuple(
        replace(each, window_mean=None if each.window_mean is None else round(each.window_mean, 12))
        for each in twin.readings
    )
    return replace(asset, version=0, position=0), replace(twin, readings=readings)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=logs(),
    row_frames=st.integers(1, 4),
    moments=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 21)), min_size=1, max_size=3),
)
async def test_as_of_a_moment_a_twin_is_what_a_log_of_what_was_true_by_then_says(
    pool: Pool, told: list[Said | Frame], row_frames: int, moments: list[tuple[int, int]]
) -> None:
    ledgers = await fresh_ledgers(pool, 1 + len(moments))
    ledger, *others = ledgers
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(twin_history, "ROW_FRAMES", row_frames)
        try:
            await ledger.append([event_of(one) for one in told])
            await fold(ledger, TwinHistoryProjection())
            for other, (seconds, position) in zip(others, moments, strict=True):
                events = true_by(told[:position], seconds)
                if events:
                    await other.append(events)
                await fold(other, TwinProjection())
                await fold(other, AlertProjection())
                as_of = AsOf(position=position, valid_at=at(seconds))
                found = await twin_then(ledger, as_of, LATER)
                assert about(found) == about(await live_twin(other, LATER))
        finally:
            for each in ledgers:
                await each.close()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=logs(), batch=st.integers(1, 7))
async def test_rows_of_the_history_do_not_depend_on_batches(
    pool: Pool, told: list[Said | Frame], batch: int
) -> None:
    ledgers = await fresh_ledgers(pool, 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(twin_history, "ROW_FRAMES", 3)
        patched.setattr(twin_history, "ROWS_AT_ONCE", 2)
        try:
            rows = []
            for ledger, size in zip(ledgers, (batch, 1000), strict=True):
                await ledger.append([event_of(one) for one in told])
                await fold(ledger, TwinHistoryProjection(), size)
                await fold(ledger, TwinHistoryProjection(), size)  # twice comes to once
                rows.append(await table(ledger, "twin_history", "asset_id, version"))
            assert rows[0] == rows[1]
            assert len(rows[0]) == sum(isinstance(one, Frame) for one in told) // 3
        finally:
            for ledger in ledgers:
                await ledger.close()


# --- one by one ---------------------------------------------------------------------------


async def test_a_channel_that_has_long_been_silent_is_remembered(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_history, "ROW_FRAMES", 4)
    silent = two_channel_frame(1, [0], [0], ("mode",))
    others = [two_channel_frame(n, [n], [0], ("flow",)) for n in range(2, 40)]
    await ledger.append([fact_event(registered, NOON), *map(frame_event, (silent, *others))])
    await fold(ledger, TwinHistoryProjection())
    for as_of in (NOW, AsOf(position=30), AsOf(valid_at=at(25)), AsOf(position=20)):
        found = await twin_as_of(ledger, LOOP, as_of, judged_at=LATER)
        assert found is not None
        (mode,) = [each for each in found[1].readings if each.channel == "mode"]
        assert (mode.text, mode.read_at) == ("1/0", NOON)


async def test_of_readings_of_one_moment_the_later_recorded_counts_across_rows(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_history, "ROW_FRAMES", 2)
    given = [two_channel_frame(n, [1, 2], [0, 0]) for n in range(1, 5)]
    await ledger.append([fact_event(registered, NOON), *map(frame_event, given)])
    await fold(ledger, TwinHistoryProjection())
    for as_of, last in (
        (NOW, "4/1"),
        (AsOf(position=4), "3/1"),  # a row, and a frame beyond it
        (AsOf(position=5, valid_at=at(2)), "4/1"),
        (AsOf(position=5, valid_at=at(1)), "4/0"),
        (AsOf(position=4, valid_at=at(1)), "3/0"),
    ):
        found = await twin_as_of(ledger, LOOP, as_of, judged_at=LATER)
        assert found is not None
        flow, mode = found[1].readings
        number, place = (int(part) for part in last.split("/"))
        assert mode.text == last
        assert flow.value == pytest.approx((10 * number + place) / 60_000)


async def test_a_time_of_recording_is_the_position_then_and_judged_then(ledger: Ledger) -> None:
    await ledger.append([fact_event(registered, NOON)])
    await ledger.append([frame_event(two_channel_frame(1, [0], [0]))])
    times = [
        row["recorded_at"]
        for row in await ledger.pool.fetch("select recorded_at from event order by position")
    ]
    found = await twin_as_of(ledger, LOOP, AsOf(recorded_at=times[1]))
    assert found is not None
    assert (found[1].position, found[1].as_of, len(found[1].readings)) == (2, times[1], 2)
    found = await twin_as_of(ledger, LOOP, AsOf(position=1))
    assert found is not None
    assert (found[1].position, found[1].as_of, found[1].readings) == (1, times[0], ())
    before = times[0] - timedelta(days=1)
    assert await twin_as_of(ledger, LOOP, AsOf(recorded_at=before)) is None
    with pytest.raises(InvalidInput) as refused:
        await twin_as_of(ledger, LOOP, AsOf(position=1, recorded_at=times[0]))
    assert refused.value.code == "as_of.ambiguous"


async def test_nobody_is_a_twin_before_it_is_registered(ledger: Ledger) -> None:
    assert await twin_as_of(ledger, LOOP, NOW) is None
    await ledger.append([frame_event(two_channel_frame(1, [0], [0]))])
    assert await twin_as_of(ledger, LOOP, NOW) is None


async def test_an_asset_registered_later_was_there_before(ledger: Ledger) -> None:
    """Its recordings are often older than its name in the log."""
    await ledger.append(
        [fact_event(registered, LATER), frame_event(two_channel_frame(1, [0, 1], [0, 0]))]
    )
    found = await twin_as_of(ledger, LOOP, AsOf(valid_at=at(0.5)))
    assert found is not None
    assert found[1].last_reading_at == NOON


async def test_a_correction_changes_the_live_twin_and_not_what_it_was(ledger: Ledger) -> None:
    wrong = uuid.uuid4()
    await ledger.append(
        [
            fact_event(registered, NOON),
            fact_event(SetpointDesired(LOOP, "flow", 0.5), at(1), wrong),
            fact_event(SetpointDesired(LOOP, "x", 0.1), at(2)),
        ]
    )
    await fold(ledger, TwinProjection())
    before = await live_twin(ledger, LATER)
    corrected = correction_of(asset_stream(LOOP), wrong, 2, SetpointDesired(LOOP, "flow", 0.4))
    signed = RecordSigned(
        *(asset_stream(LOOP), 2, wrong, "00" * 32, None, "user:mara", "Mara", Meaning.APPROVED),
        NOON,
        ("password", "key"),
    )
    await ledger.append([fact_event(corrected, at(5)), fact_event(signed, at(6))])
    await fold(ledger, TwinProjection(), after=3)
    now = await live_twin(ledger, LATER)
    assert now is not None
    asset, twin = now
    flow = twin.setpoints[0]
    assert (flow.desired, flow.desired_at, flow.desired_by) == (0.4, at(5), "user:mara")
    assert (asset.version, asset.position) == (5, 5)
    assert await twin_then(ledger, NOW, LATER) == now
    assert await twin_then(ledger, AsOf(position=3), LATER) == before
    withdrawn = correction_of(asset_stream(LOOP), wrong, 2, None)
    await ledger.append([fact_event(withdrawn, at(7))])
    await fold(ledger, TwinProjection(), 1, after=5)
    now = await live_twin(ledger, LATER)
    assert now is not None
    assert [each.setpoint for each in now[1].setpoints] == ["x"]
    assert await twin_then(ledger, NOW, LATER) == now


async def test_a_registration_that_never_was_takes_the_twin_away(ledger: Ledger) -> None:
    wrong = uuid.uuid4()
    desired = SetpointDesired(LOOP, "flow", 0.5)
    await ledger.append([fact_event(registered, NOON, wrong), fact_event(desired, NOON)])
    await fold(ledger, TwinProjection())
    await ledger.append([fact_event(correction_of(asset_stream(LOOP), wrong, 1, None), NOON)])
    await fold(ledger, TwinProjection(), after=2)
    assert await find_asset(ledger, LOOP) is None
    assert await table(ledger, "twin_setpoint", "setpoint") == []
    assert await twin_as_of(ledger, LOOP, NOW) is None


async def test_what_is_folded_anew_is_what_was_live(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_history, "ROW_FRAMES", 2)
    wrong = uuid.uuid4()
    corrected = correction_of(asset_stream(LOOP), wrong, 2, SetpointDesired(LOOP, "flow", 0.4))
    log = [
        fact_event(registered, NOON),
        fact_event(SetpointDesired(LOOP, "flow", 0.5), at(1), wrong),
        *(frame_event(two_channel_frame(n, [9 - n, 10 - n], [0, 0])) for n in range(1, 8)),
        fact_event(corrected, at(5)),
        fact_event(AssetCommissioned(LOOP), at(6)),
    ]
    kept = (TwinProjection(), TwinHistoryProjection(), PlantProjection())
    async with running(ledger, database_url, *kept) as runners:
        for event in log:
            await ledger.append([event])
            for runner in runners:
                await runner.wait_for(await ledger.head(), PATIENCE_S)
    for projection in kept:
        found = await check(ledger.pool, ledger, projection)
        assert [table for table in found.tables if not table.equal] == []
        assert all(table.live.rows > 0 for table in found.tables)


async def test_erased_frames_say_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_history, "ROW_FRAMES", 2)
    given = [two_channel_frame(n, [n, n + 0.5], [0, 0]) for n in range(1, 6)]
    await ledger.append([fact_event(registered, NOON), *map(frame_event, given)])
    await erase(
        ledger,
        [3, 6],
        reason="by law",
        actor="user:mara",
        now=NOON,
        new_event_id=uuid.uuid4,
    )
    await fold(ledger, TwinHistoryProjection())
    for as_of, text in ((NOW, "4/1"), (AsOf(valid_at=at(5.2)), "4/1"), (AsOf(position=3), "1/1")):
        found = await twin_as_of(ledger, LOOP, as_of, judged_at=LATER)
        assert found is not None
        assert found[1].readings[1].text == text


async def test_a_history_that_lags_and_a_life_too_long_are_refused(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin_history, "UNFOLDED_FRAMES_MAX", 2)
    given = [two_channel_frame(n, [n], [0]) for n in range(1, 4)]
    await ledger.append([fact_event(registered, NOON), *map(frame_event, given)])
    for as_of in (NOW, AsOf(valid_at=LATER)):
        with pytest.raises(Unavailable) as refused:
            await twin_as_of(ledger, LOOP, as_of)
        assert (refused.value.code, refused.value.value) == ("twin.history_behind", 3)
    monkeypatch.setattr(twin_facts, "FACTS_MAX", 0)
    with pytest.raises(InvalidInput) as too_many:
        await twin_as_of(ledger, LOOP, NOW)
    assert (too_many.value.code, too_many.value.limit) == ("twin.too_many_facts", 0)
